//! The routes of Docker's API: from a request to the engine's call, and from its result to the answer.

use std::time::SystemTime;

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{
    Api, Networks,
    body::Json,
    error::Refusal,
    event::Message,
    filter::Filters,
    network,
    parameter::{Name, Parameters},
    time,
    version::Version,
};
use crate::model::{Network, request};

/// Keys that `POST /networks/prune` filters by.
const PRUNE_KEYS: [&str; 3] = ["label", "label!", "until"];

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    id: String,
    warning: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Pruned {
    /// `null` for none: Go's nil slice.
    networks_deleted: Option<Vec<String>>,
}

pub(crate) async fn list<E: Networks>(
    State(api): State<Api<E>>,
    version: Version,
    parameters: Parameters,
) -> Result<Response, Refusal> {
    let state = api.engine.state();
    let networks = network::list(&state, &Filters::parse(parameters.get("filters"))?)?;
    // Until 1.28 a list told of endpoints too.
    let detailed = version.is_before("1.28");
    let resource = |found| if detailed { network::inspected(found, &state) } else { network::listed(found) };
    Ok(Json(networks.into_iter().map(resource).collect::<Vec<_>>()).into_response())
}

pub(crate) async fn inspect<E: Networks>(
    State(api): State<Api<E>>,
    Name(name): Name,
    parameters: Parameters,
) -> Result<Response, Refusal> {
    let verbose = parameters.get("verbose");
    // What Go reads as a boolean. It makes no difference: only networks of a swarm have more to tell.
    if !matches!(
        verbose,
        "" | "1" | "t" | "T" | "TRUE" | "true" | "True" | "0" | "f" | "F" | "FALSE" | "false" | "False"
    ) {
        return Err(Refusal::invalid(format!(
            "invalid value for verbose: {verbose}: strconv.ParseBool: parsing {verbose:?}: invalid syntax"
        )));
    }
    let state = api.engine.state();
    let found = state.find_network(&name)?;
    if !matches!(parameters.get("scope"), "" | "local") {
        return Err(crate::model::Error::not_found(format!("network {name} not found")).into());
    }
    Ok(Json(network::inspected(found, &state)).into_response())
}

pub(crate) async fn create<E: Networks>(
    State(api): State<Api<E>>,
    version: Version,
    Json(mut request): Json<request::NetworkCreate>,
) -> Result<Response, Refusal> {
    // Nobody could mean it before there was such a field.
    if version.is_before("1.48") {
        request.enable_ipv4 = None;
    }
    let created = api.engine.create(request).await?;
    let body = Created { id: created.id.to_string(), warning: created.warning };
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

pub(crate) async fn remove<E: Networks>(
    State(api): State<Api<E>>,
    Name(name): Name,
    parameters: Parameters,
) -> Result<StatusCode, Refusal> {
    // netd's own parameter; Docker's clients have none.
    let force = matches!(parameters.get("force"), "1" | "true");
    api.engine.remove(&name, force).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn connect<E: Networks>(
    State(api): State<Api<E>>,
    Name(name): Name,
    Json(request): Json<request::NetworkConnect>,
) -> Result<StatusCode, Refusal> {
    api.engine.connect(&name, request).await?;
    Ok(StatusCode::OK)
}

pub(crate) async fn disconnect<E: Networks>(
    State(api): State<Api<E>>,
    Name(name): Name,
    Json(request): Json<request::NetworkDisconnect>,
) -> Result<StatusCode, Refusal> {
    api.engine.disconnect(&name, request).await?;
    Ok(StatusCode::OK)
}

/// Removes the networks of no endpoint. One that gets an endpoint meanwhile stays.
pub(crate) async fn prune<E: Networks>(
    State(api): State<Api<E>>,
    parameters: Parameters,
) -> Result<Response, Refusal> {
    let filters = Filters::parse(parameters.get("filters"))?;
    filters.only(&PRUNE_KEYS)?;
    let until = until(&filters)?;
    let Ok(_pruning) = api.pruning.try_lock() else {
        return Err(Refusal {
            status: StatusCode::CONFLICT,
            message: "a prune operation is already running".into(),
        });
    };
    let state = api.engine.state();
    let is_wanted = |network: &&Network| {
        !network.is_predefined()
            && network.engine_id.is_none()
            && !network.config_only
            && state.endpoints_of(network.id).next().is_none()
            && until.is_none_or(|until| network.created.system_time() <= until)
            && filters.labels("label", &network.labels)
            && filters.without_labels("label!", &network.labels)
    };
    let mut deleted = Vec::new();
    for network in state.networks.values().filter(is_wanted) {
        match api.engine.remove(&network.id.to_string(), false).await {
            Ok(()) => deleted.push(network.name.clone()),
            Err(error) => log::warn!("prune leaves network {}: {error}", network.name),
        }
    }
    api.events.tell(Message::pruned("network"));
    let body = Pruned { networks_deleted: (!deleted.is_empty()).then_some(deleted) };
    Ok(Json(body).into_response())
}

/// Only networks made before this are pruned.
fn until(filters: &Filters) -> Result<Option<SystemTime>, Refusal> {
    let Some(values) = filters.values("until") else { return Ok(None) };
    if values.len() > 1 {
        return Err(Refusal::invalid("more than one until filter specified"));
    }
    let read = |value: &String| {
        time::parse(value, SystemTime::now())
            .ok_or_else(|| Refusal::invalid(format!("failed to parse value as time or duration: {value:?}")))
    };
    values.first().map(read).transpose()
}
