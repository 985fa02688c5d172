//! Docker's routes for what netd has none of: containers, images, volumes, build caches, plugins. Its command line asks for them
//! on the way to what netd does have.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{
    Api, Networks,
    body::Json,
    error::{JSON, Refusal},
    event::Message,
    filter::Filters,
    parameter::Parameters,
    version::Version,
};

/// A list of nothing.
const EMPTY: [u8; 0] = [];

/// Keys that `GET /containers/json` filters by.
const CONTAINER_KEYS: [&str; 15] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

/// `GET /containers/json`
pub(crate) async fn containers(parameters: Parameters) -> Result<Response, Refusal> {
    list(&parameters, &CONTAINER_KEYS)
}

/// `GET /plugins`
pub(crate) async fn plugins(parameters: Parameters) -> Result<Response, Refusal> {
    list(&parameters, &["capability", "enabled"])
}

/// A list with nothing in it, whatever is asked for.
fn list(parameters: &Parameters, keys: &[&str]) -> Result<Response, Refusal> {
    Filters::parse(parameters.get("filters"))?.only(keys)?;
    Ok(Json(EMPTY).into_response())
}

/// `GET /system/df`. Only what is asked for is a list.
pub(crate) async fn disk_usage(version: Version, parameters: Parameters) -> Result<Response, Refusal> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct DiskUsage {
        layers_size: u64,
        images: Option<[u8; 0]>,
        containers: Option<[u8; 0]>,
        volumes: Option<[u8; 0]>,
        build_cache: Option<[u8; 0]>,
    }
    let kinds = ["image", "container", "volume", "build-cache"];
    // Before 1.42 everything was told.
    let mut asked: Vec<&str> =
        if version.is_before("1.42") { Vec::new() } else { parameters.all("type").collect() };
    if let Some(unknown) = asked.iter().find(|kind| !kinds.contains(kind)) {
        return Err(Refusal::invalid(format!("unknown object type: {unknown}")));
    }
    if asked.is_empty() {
        asked = kinds.to_vec();
    }
    let [images, containers, volumes, build_cache] = kinds.map(|kind| asked.contains(&kind).then_some(EMPTY));
    Ok(Json(DiskUsage { layers_size: 0, images, containers, volumes, build_cache }).into_response())
}

/// `POST /containers/prune`
pub(crate) async fn prune_containers<E: Networks>(
    State(api): State<Api<E>>,
    parameters: Parameters,
) -> Result<Response, Refusal> {
    prune(&api, &parameters, "container", "ContainersDeleted")
}

/// `POST /images/prune`
pub(crate) async fn prune_images<E: Networks>(
    State(api): State<Api<E>>,
    parameters: Parameters,
) -> Result<Response, Refusal> {
    prune(&api, &parameters, "image", "ImagesDeleted")
}

/// `POST /volumes/prune`
pub(crate) async fn prune_volumes<E: Networks>(
    State(api): State<Api<E>>,
    parameters: Parameters,
) -> Result<Response, Refusal> {
    prune(&api, &parameters, "volume", "VolumesDeleted")
}

/// `POST /build/prune`
pub(crate) async fn prune_builds<E: Networks>(
    State(api): State<Api<E>>,
    parameters: Parameters,
) -> Result<Response, Refusal> {
    prune(&api, &parameters, "builder", "CachesDeleted")
}

/// Tells that things of a kind were pruned, of which there are none.
fn prune<E>(
    api: &Api<E>,
    parameters: &Parameters,
    kind: &'static str,
    deleted: &str,
) -> Result<Response, Refusal> {
    Filters::parse(parameters.get("filters"))?;
    api.events.tell(Message::pruned(kind));
    Ok(([JSON], format!("{{\"{deleted}\":null,\"SpaceReclaimed\":0}}\n")).into_response())
}
