//! `/events`: what happened to networks, as it happens and for a while after.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse, Response},
};
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;
use tokio::sync::broadcast::{self, error::RecvError};

use super::{
    Api, Networks,
    error::{JSON, Refusal},
    filter::Filters,
    parameter::Parameters,
    time,
};
use crate::engine::Event;

/// Events that are kept for those who ask for what has been: as many as Docker keeps.
const KEPT: usize = 256;

/// The last events, and those to come.
#[derive(Clone)]
pub(crate) struct Events {
    kept: Arc<Mutex<VecDeque<Event>>>,
    coming: broadcast::Sender<Event>,
}

impl Events {
    /// Records what `source` tells until it ends.
    pub(crate) fn record(mut source: broadcast::Receiver<Event>) -> Self {
        let events = Self {
            kept: Arc::new(Mutex::new(VecDeque::with_capacity(KEPT))),
            coming: broadcast::Sender::new(KEPT),
        };
        let recorder = events.clone();
        tokio::spawn(async move {
            loop {
                match source.recv().await {
                    Ok(event) => recorder.push(event),
                    Err(RecvError::Lagged(missed)) => log::warn!("{missed} events are missing from /events"),
                    Err(RecvError::Closed) => break,
                }
            }
        });
        events
    }

    fn push(&self, event: Event) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(event.clone());
        // Nobody listening is no error. Within the lock, so that a listener gets each event once.
        let _ = self.coming.send(event);
    }

    /// What is kept, then what comes; ends where the listener falls behind by more than is kept.
    fn listen(&self) -> (Vec<Event>, impl Stream<Item = Event> + Send + use<>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let coming = stream::unfold(self.coming.subscribe(), async |mut coming| {
            let event = coming.recv().await.ok()?;
            Some((event, coming))
        });
        (kept.iter().cloned().collect(), coming)
    }

    /// Clients that listen now.
    pub(crate) fn listeners(&self) -> usize {
        self.coming.receiver_count()
    }
}

/// Fields in Docker's order.
#[derive(Serialize)]
struct Message<'a> {
    #[serde(rename = "Type")]
    kind: &'static str,
    #[serde(rename = "Action")]
    action: &'static str,
    #[serde(rename = "Actor")]
    actor: Actor<'a>,
    scope: &'static str,
    time: u64,
    #[serde(rename = "timeNano")]
    time_nano: u128,
}

#[derive(Serialize)]
struct Actor<'a> {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Attributes")]
    attributes: Attributes<'a>,
}

#[derive(Serialize)]
struct Attributes<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<&'a str>,
    name: &'a str,
    #[serde(rename = "type")]
    driver: &'static str,
}

/// One event as a line of JSON.
fn line(event: &Event) -> Bytes {
    let time = event.time.system_time().duration_since(UNIX_EPOCH).unwrap_or_default();
    let message = Message {
        kind: "network",
        action: event.action.name(),
        actor: Actor {
            id: event.network.to_string(),
            attributes: Attributes {
                container: event.container.as_deref(),
                name: &event.name,
                driver: event.driver.name(),
            },
        },
        scope: "local",
        time: time.as_secs(),
        time_nano: time.as_nanos(),
    };
    let mut line = serde_json::to_vec(&message).expect("strings and numbers are JSON");
    line.push(b'\n');
    line.into()
}

/// Whether a client that asked for `filters` wants `event`.
fn is_wanted(event: &Event, filters: &Filters) -> bool {
    filters.exact("event", event.action.name())
        && filters.exact("type", "network")
        && filters.exact("scope", "local")
        && filters.prefix("network", &[&event.network.to_string(), &event.name])
        // What else can be asked for is of other things than networks.
        && ["config", "container", "daemon", "image", "label", "node", "plugin", "secret", "service", "volume"]
            .iter()
            .all(|key| filters.values(key).is_none())
}

/// The stream of events: those since `since`, if it is given, until `until`, or else until either side goes away.
pub(crate) async fn events<E: Networks>(
    State(api): State<Api<E>>,
    parameters: Parameters,
) -> Result<Response, Refusal> {
    let filters = Filters::parse(parameters.get("filters"))?;
    let now = SystemTime::now();
    let point = |field| match parameters.get(field) {
        "" => Ok(None),
        text => time::parse(field, text, now).map(Some),
    };
    let (since, until) = (point("since")?, point("until")?);
    if let (Some(since), Some(until)) = (since, until)
        && until < since
    {
        return Err(Refusal::invalid(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            parameters.get("since"),
            parameters.get("until")
        )));
    }
    let (kept, coming) = api.events.listen();
    let kept =
        kept.into_iter().filter(move |event| since.is_some_and(|since| event.time.system_time() >= since));
    let mut shutdown = api.shutdown.clone();
    let end = async move {
        let over = async {
            match until {
                Some(until) => tokio::time::sleep(until.duration_since(now).unwrap_or_default()).await,
                None => future::pending().await,
            }
        };
        tokio::select! {
            () = over => {}
            _ = shutdown.wait_for(|shutdown| *shutdown) => {}
        }
    };
    let lines = stream::iter(kept)
        .filter(move |event| future::ready(until.is_none_or(|until| event.time.system_time() <= until)))
        .chain(coming.take_until(Box::pin(end)))
        .filter(move |event| future::ready(is_wanted(event, &filters)))
        .map(|event| Ok::<_, Infallible>(line(&event)));
    Ok(([JSON], Body::from_stream(lines)).into_response())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        engine::Action,
        model::{Driver, Id},
    };

    fn event(action: Action, name: &str) -> Event {
        Event {
            action,
            network: Id::new([1; 32]),
            name: name.into(),
            driver: Driver::Bridge,
            container: (action == Action::Connect).then(|| "netns:web".into()),
            time: (UNIX_EPOCH + Duration::new(1_748_772_000, 123_456_789)).into(),
        }
    }

    #[test]
    fn events_are_golden() {
        assert_eq!(
            line(&event(Action::Connect, "n1")),
            concat!(
                r#"{"Type":"network","Action":"connect","Actor":{"#,
                r#""ID":"0101010101010101010101010101010101010101010101010101010101010101","#,
                r#""Attributes":{"container":"netns:web","name":"n1","type":"bridge"}},"#,
                r#""scope":"local","time":1748772000,"timeNano":1748772000123456789}"#,
                "\n"
            )
        );
        assert!(!String::from_utf8_lossy(&line(&event(Action::Create, "n1"))).contains("container"));
    }

    #[test]
    fn a_client_gets_what_it_asked_for() {
        let wanted = |filters| is_wanted(&event(Action::Create, "n1"), &Filters::parse(filters).unwrap());
        for filters in ["", r#"{"type":["network"]}"#, r#"{"network":["n"]}"#, r#"{"network":{"0101":true}}"#]
        {
            assert!(wanted(filters), "{filters}");
        }
        for filters in [
            r#"{"type":["image"]}"#,
            r#"{"network":["1"]}"#,
            r#"{"event":["destroy"]}"#,
            r#"{"volume":["x"]}"#,
        ] {
            assert!(!wanted(filters), "{filters}");
        }
    }

    #[tokio::test]
    async fn a_listener_gets_each_event_once_and_the_last_are_kept() {
        let source = broadcast::Sender::new(4);
        let events = Events::record(source.subscribe());
        let (kept, coming) = events.listen();
        assert!(kept.is_empty());
        source.send(event(Action::Create, "n1")).unwrap();
        source.send(event(Action::Destroy, "n1")).unwrap();
        let actions: Vec<_> = coming.take(2).map(|event| event.action).collect().await;
        assert_eq!(actions, [Action::Create, Action::Destroy]);
        let (kept, _) = events.listen();
        assert_eq!(kept.iter().map(|event| event.action).collect::<Vec<_>>(), actions);
        for _ in 0..KEPT {
            events.push(event(Action::Connect, "n1"));
        }
        let (kept, _) = events.listen();
        assert!(kept.len() == KEPT && kept.iter().all(|event| event.action == Action::Connect));
    }
}
