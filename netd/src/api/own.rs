//! netd's own routes: what the engine, the host and the datapath tell at the moment.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    Api,
    body::Json,
    compose,
    error::Refusal,
    parameter::Parameters,
    view::{self, ExternalAdd, Stats, Status},
};
use crate::{
    datapath::{self, Counters, Datapath},
    engine::{Engine, HostView},
    metrics,
    model::request,
};

pub(crate) async fn nat(State(api): State<Api<Engine>>) -> Result<Response, Refusal> {
    let flows = in_datapath(&api.engine, Datapath::flows).await?;
    let host = api.engine.host().await?;
    Ok(Json(compose::nat(&api.engine.state(), &host, flows)).into_response())
}

pub(crate) async fn add_external(
    State(api): State<Api<Engine>>,
    Json(request): Json<ExternalAdd>,
) -> Result<StatusCode, Refusal> {
    api.engine.add_external(&request.external, &request.target).await?;
    Ok(StatusCode::CREATED)
}

pub(crate) async fn remove_external(
    State(api): State<Api<Engine>>,
    parameters: Parameters,
) -> Result<StatusCode, Refusal> {
    api.engine.remove_external(parameters.get("external")).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn fdb(State(api): State<Api<Engine>>) -> Result<Response, Refusal> {
    let stations = in_datapath(&api.engine, Datapath::fdb).await?;
    Ok(Json(compose::fdb(&api.engine.state(), stations)).into_response())
}

pub(crate) async fn routes(State(api): State<Api<Engine>>) -> Result<Response, Refusal> {
    let host = api.engine.host().await?;
    Ok(Json(compose::routes(&api.engine.state(), host.routes)).into_response())
}

pub(crate) async fn names(State(api): State<Api<Engine>>) -> Response {
    Json(compose::names(&api.engine.state())).into_response()
}

pub(crate) async fn stats(State(api): State<Api<Engine>>) -> Result<Response, Refusal> {
    Ok(Json(gather_stats(&api).await?).into_response())
}

pub(crate) async fn status(State(api): State<Api<Engine>>) -> Result<Response, Refusal> {
    Ok(Json(gather_status(&api).await?).into_response())
}

pub(crate) async fn publications(State(api): State<Api<Engine>>) -> Json<Vec<view::Publication>> {
    Json(compose::publications(&api.engine.state()))
}

pub(crate) async fn publish(
    State(api): State<Api<Engine>>,
    Json(request): Json<request::Publish>,
) -> Result<Response, Refusal> {
    let added = api.engine.publish(request).await?;
    Ok((StatusCode::CREATED, Json(compose::published(&api.engine.state(), &added))).into_response())
}

pub(crate) async fn unpublish(
    State(api): State<Api<Engine>>,
    Json(request): Json<request::Publish>,
) -> Result<Response, Refusal> {
    let removed = api.engine.unpublish(request).await?;
    Ok(Json(compose::published(&api.engine.state(), &removed)).into_response())
}

/// The metrics, in the format of OpenMetrics to those who ask for it, else in the one before.
pub(crate) async fn metrics(State(api): State<Api<Engine>>, headers: HeaderMap) -> Result<Response, Refusal> {
    let (stats, status) = (gather_stats(&api).await?, gather_status(&api).await?);
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = metrics::Format::negotiate(accept);
    let body = metrics::encode(&stats, &status, format)
        .map_err(|error| Refusal::internal(format!("metrics cannot be written: {error}")))?;
    Ok(([(header::CONTENT_TYPE, format.content_type())], body).into_response())
}

/// Runs `call`, whose system calls may take a while, off the threads that serve.
async fn in_datapath<T: Send + 'static>(
    engine: &Engine,
    call: fn(&Datapath) -> Result<T, datapath::Error>,
) -> Result<T, Refusal> {
    let engine = engine.clone();
    tokio::task::spawn_blocking(move || call(engine.datapath()))
        .await
        .map_err(|error| Refusal::internal(format!("reading the datapath's maps: {error}")))?
        .map_err(|error| Refusal::internal(error.to_string()))
}

/// What the kernel's links counted, and the programs.
pub(super) async fn counted(engine: &Engine) -> Result<(HostView, Counters), Refusal> {
    Ok((engine.host().await?, in_datapath(engine, Datapath::counters).await?))
}

async fn gather_stats(api: &Api<Engine>) -> Result<Stats, Refusal> {
    let (host, counters) = counted(&api.engine).await?;
    let state = api.engine.state();
    let (networks, endpoints) = compose::traffic(&state, &host.endpoints, &counters.endpoints);
    let by_name =
        |counters: Vec<(&'static str, u64)>| counters.into_iter().map(|(name, n)| (name.into(), n)).collect();
    Ok(Stats {
        networks,
        endpoints,
        paths: by_name(counters.paths),
        drops: by_name(counters.drops),
        draws: counters.draws,
    })
}

async fn gather_status(api: &Api<Engine>) -> Result<Status, Refusal> {
    let status = in_datapath(&api.engine, Datapath::status).await?;
    let host = api.engine.host().await?;
    Ok(compose::status(&api.engine.state(), &host, status, api.started.elapsed()))
}
