//! `/events`: what happened to networks, as it happens and for a while after.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse, Response},
};
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;
use tokio::sync::broadcast::{
    self,
    error::{RecvError, TryRecvError},
};

use super::{
    Api, Networks,
    error::{JSON, Refusal},
    filter::Filters,
    parameter::Parameters,
    system::read,
    time,
};
use crate::engine::{Event, Happened, Reloaded};

/// Events that are kept for those who ask for what has been: as many as Docker keeps.
const KEPT: usize = 256;

/// The last events, and those to come.
#[derive(Clone)]
pub(crate) struct Events {
    log: Arc<Mutex<Log>>,
    coming: broadcast::Sender<Message>,
}

struct Log {
    /// What the engine tells, of which some may not be in `kept` yet.
    source: broadcast::Receiver<Event>,
    kept: VecDeque<Message>,
}

impl Events {
    /// Records what `source` tells until it ends.
    pub(crate) fn record(source: broadcast::Receiver<Event>) -> Self {
        let mut wake = source.resubscribe();
        let log = Log { source, kept: VecDeque::with_capacity(KEPT) };
        let events = Self { log: Arc::new(Mutex::new(log)), coming: broadcast::Sender::new(KEPT) };
        let recorder = events.clone();
        tokio::spawn(async move {
            while !matches!(wake.recv().await, Err(RecvError::Closed)) {
                drop(recorder.current());
            }
        });
        events
    }

    /// Tells an event to all who listen, and to those who will ask for it.
    pub(crate) fn tell(&self, message: Message) {
        self.current().push(message, &self.coming);
    }

    /// What is kept, then what comes; ends where the listener falls behind by more than is kept.
    fn listen(&self) -> (Vec<Message>, impl Stream<Item = Message> + Send + use<>) {
        let log = self.current();
        let coming = stream::unfold(self.coming.subscribe(), async |mut coming| {
            let event = coming.recv().await.ok()?;
            Some((event, coming))
        });
        (log.kept.iter().cloned().collect(), coming)
    }

    /// The log with all that the engine has told until now: whoever has his answer finds his event.
    fn current(&self) -> MutexGuard<'_, Log> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match log.source.try_recv() {
                Ok(event) => log.push(event.into(), &self.coming),
                Err(TryRecvError::Lagged(missed)) => log::warn!("{missed} events are missing from /events"),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break log,
            }
        }
    }

    /// Clients that listen now.
    pub(crate) fn listeners(&self) -> usize {
        self.coming.receiver_count()
    }
}

impl Log {
    fn push(&mut self, message: Message, coming: &broadcast::Sender<Message>) {
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(message.clone());
        // Nobody listening is no error. Within the log's lock, so that a listener gets each event once.
        let _ = coming.send(message);
    }
}

/// An event as it is told; fields in Docker's order.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Message {
    #[serde(rename = "Type")]
    kind: &'static str,
    #[serde(rename = "Action")]
    action: &'static str,
    #[serde(rename = "Actor")]
    actor: Actor,
    scope: &'static str,
    time: u64,
    #[serde(rename = "timeNano")]
    time_nano: u128,
}

#[derive(Debug, Clone, Serialize)]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Attributes")]
    attributes: BTreeMap<String, String>,
}

impl Message {
    /// Unused things of a kind were removed, whose own events tell which.
    pub(crate) fn pruned(kind: &'static str) -> Self {
        let attributes = BTreeMap::from([("reclaimed".to_owned(), "0".to_owned())]);
        Self::new(kind, "prune", Actor { id: String::new(), attributes }, SystemTime::now())
    }

    fn new(kind: &'static str, action: &'static str, actor: Actor, time: SystemTime) -> Self {
        let time = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { kind, action, actor, scope: "local", time: time.as_secs(), time_nano: time.as_nanos() }
    }

    fn time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.time_nano.try_into().unwrap_or(u64::MAX))
    }

    /// One line of JSON.
    fn line(&self) -> Bytes {
        let mut line = serde_json::to_vec(self).expect("strings and numbers are JSON");
        line.push(b'\n');
        line.into()
    }

    /// Whether a client that asked for `filters` wants it. Docker asks of each event whether it is of the container, or of the
    /// image, or of whatever else was asked for by name, whatever the event is about.
    fn is_wanted(&self, filters: &Filters) -> bool {
        let Actor { id, attributes } = &self.actor;
        let attribute = |name| attributes.get(name).map(String::as_str).unwrap_or_default();
        let name = attribute("name");
        filters.exact("event", self.action)
            && filters.exact("type", self.kind)
            && filters.exact("scope", self.scope)
            && NAMED.iter().all(|key| filters.prefix(key, &[id, name]))
            && (filters.exact("image", id) || filters.exact("image", attribute("image")))
            && filters.labels("label", attributes)
    }
}

/// What events can be asked for by the name or id of.
const NAMED: [&str; 9] =
    ["config", "container", "daemon", "network", "node", "plugin", "secret", "service", "volume"];

impl From<Event> for Message {
    fn from(Event { happened, time }: Event) -> Self {
        let time = time.system_time();
        match happened {
            Happened::Network { action, id, name, driver, container } => {
                let driver = driver.name().to_owned();
                let mut attributes = BTreeMap::from([("name".to_owned(), name), ("type".to_owned(), driver)]);
                attributes.extend(container.map(|container| ("container".to_owned(), container)));
                Self::new("network", action.name(), Actor { id: id.to_string(), attributes }, time)
            }
            Happened::Reload { daemon, reloaded } => {
                let attributes = attributes(&reloaded);
                Self::new("daemon", "reload", Actor { id: daemon, attributes }, time)
            }
        }
    }
}

/// What Docker tells of itself when it has read its configuration anew, of the keys that netd has as well.
fn attributes(Reloaded { debug, labels }: &Reloaded) -> BTreeMap<String, String> {
    let labels = serde_json::to_string(&labels[..]).expect("strings are JSON");
    let attributes = [
        ("debug", debug.to_string()),
        ("labels", labels),
        ("live-restore", true.to_string()),
        ("name", read("/proc/sys/kernel/hostname")),
    ];
    attributes.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
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
        text => time::parse(text, now).map(Some).ok_or_else(|| {
            Refusal::invalid(format!(
                "invalid {field} {text:?}: neither seconds since 1970, nor a time, nor a duration"
            ))
        }),
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
    // Those who name no time are told of what comes.
    let asked = since.or(until.map(|_| UNIX_EPOCH));
    let kept = kept.into_iter().filter(move |event| asked.is_some_and(|since| event.time() >= since));
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
        .filter(move |event| future::ready(until.is_none_or(|until| event.time() <= until)))
        .chain(coming.take_until(Box::pin(end)))
        .filter(move |event| future::ready(event.is_wanted(&filters)))
        .map(|event| Ok::<_, Infallible>(event.line()));
    Ok(([JSON], Body::from_stream(lines)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::Action,
        model::{Driver, Id},
    };

    fn event(action: Action, name: &str) -> Event {
        let happened = Happened::Network {
            action,
            id: Id::new([1; 32]),
            name: name.into(),
            driver: Driver::Bridge,
            container: (action == Action::Connect).then(|| "netns:web".into()),
        };
        Event { happened, time: (UNIX_EPOCH + Duration::new(1_748_772_000, 123_456_789)).into() }
    }

    fn message(action: Action, name: &str) -> Message {
        event(action, name).into()
    }

    #[test]
    fn events_are_golden() {
        assert_eq!(
            message(Action::Connect, "n1").line(),
            concat!(
                r#"{"Type":"network","Action":"connect","Actor":{"#,
                r#""ID":"0101010101010101010101010101010101010101010101010101010101010101","#,
                r#""Attributes":{"container":"netns:web","name":"n1","type":"bridge"}},"#,
                r#""scope":"local","time":1748772000,"timeNano":1748772000123456789}"#,
                "\n"
            )
        );
        assert!(!String::from_utf8_lossy(&message(Action::Create, "n1").line()).contains("container"));
        let pruned = String::from_utf8(Message::pruned("network").line().to_vec()).unwrap();
        assert!(pruned.starts_with(
            r#"{"Type":"network","Action":"prune","Actor":{"ID":"","Attributes":{"reclaimed":"0"}},"scope":"local","#
        ));
    }

    #[test]
    fn a_client_gets_what_it_asked_for() {
        let wanted = |filters| message(Action::Create, "n1").is_wanted(&Filters::parse(filters).unwrap());
        for filters in [
            "",
            r#"{"type":["network"]}"#,
            r#"{"type":["image","network"],"scope":["local"]}"#,
            r#"{"network":["n"]}"#,
            r#"{"network":{"0101":true}}"#,
            r#"{"label":["name=n1","type"]}"#,
        ] {
            assert!(wanted(filters), "{filters}");
        }
        for filters in [
            r#"{"type":["image"]}"#,
            r#"{"network":["1"]}"#,
            r#"{"event":["destroy"]}"#,
            r#"{"volume":["x"]}"#,
            r#"{"image":["x"]}"#,
            r#"{"container":["web"]}"#,
            r#"{"label":["name=n2"]}"#,
            r#"{"scope":["swarm"]}"#,
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
        // Nobody waits for the recorder: what the engine has told is there for whoever asks next.
        let (kept, _) = events.listen();
        assert_eq!(kept.iter().map(|event| event.action).collect::<Vec<_>>(), ["create", "destroy"]);
        events.tell(message(Action::Connect, "n1"));
        let actions: Vec<_> = coming.take(3).map(|event| event.action).collect().await;
        assert_eq!(actions, ["create", "destroy", "connect"]);
        let (kept, _) = events.listen();
        assert_eq!(kept.iter().map(|event| event.action).collect::<Vec<_>>(), actions);
        for _ in 0..KEPT {
            events.tell(message(Action::Connect, "n1"));
        }
        let (kept, _) = events.listen();
        assert!(kept.len() == KEPT && kept.iter().all(|event| event.action == "connect"));
    }
}
