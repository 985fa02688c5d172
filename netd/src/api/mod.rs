//! Docker's Engine API, as far as it is about networks, and netd's own routes beside it.
//!
//! A route is served with and without a version in its path. Every error is `{"message":"..."}` in Docker's words, and
//! every answer carries the headers that Docker's clients look for.

pub(crate) mod body;
mod compose;
mod departed;
mod error;
mod event;
mod filter;
mod network;
mod own;
mod parameter;
mod route;
#[cfg(test)]
pub(crate) mod sample;
mod system;
#[cfg(test)]
mod tests;
mod time;
mod version;
pub mod view;

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc, time::Instant};

use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::FutureExt;
use tokio::sync::{Mutex, broadcast, watch};

use self::{
    departed::{Departed, Total},
    error::Refusal,
    event::Events,
};
use crate::{
    engine::{Created, Engine, Error, Event},
    model::{Id, State, request},
};

/// What Docker's routes ask of the engine, so that they can be tested without a kernel.
pub(crate) trait Networks: Clone + Send + Sync + 'static {
    fn state(&self) -> Arc<State>;
    fn events(&self) -> broadcast::Receiver<Event>;
    fn create(&self, request: request::NetworkCreate) -> impl Future<Output = Result<Created, Error>> + Send;
    fn remove(&self, network: &str, force: bool) -> impl Future<Output = Result<(), Error>> + Send;
    fn connect(
        &self,
        network: &str,
        request: request::NetworkConnect,
    ) -> impl Future<Output = Result<(), Error>> + Send;
    fn disconnect(
        &self,
        network: &str,
        request: request::NetworkDisconnect,
    ) -> impl Future<Output = Result<(), Error>> + Send;
    /// What the endpoint of `network` that `container` names sent and received until now, and the network's id.
    fn traffic(&self, network: &str, container: &str) -> impl Future<Output = Option<(Id, Total)>> + Send;
}

impl Networks for Engine {
    fn state(&self) -> Arc<State> {
        self.state()
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.events()
    }

    async fn create(&self, request: request::NetworkCreate) -> Result<Created, Error> {
        self.create_network(request).await
    }

    async fn remove(&self, network: &str, force: bool) -> Result<(), Error> {
        self.remove_network(network, force).await
    }

    async fn connect(&self, network: &str, request: request::NetworkConnect) -> Result<(), Error> {
        self.connect(network, request).await.map(drop)
    }

    async fn disconnect(&self, network: &str, request: request::NetworkDisconnect) -> Result<(), Error> {
        self.disconnect(network, request).await
    }

    async fn traffic(&self, network: &str, container: &str) -> Option<(Id, Total)> {
        let state = self.state();
        let network = state.find_network(network).ok()?.id;
        let endpoint = state.find_endpoint(network, container)?;
        let (host, counters) = own::counted(self).await.ok()?;
        Some((network, compose::endpoint_total(endpoint, &host.endpoints, &counters.endpoints)))
    }
}

/// What the routes work with.
#[derive(Clone)]
pub(crate) struct Api<E> {
    engine: E,
    events: Events,
    departed: Departed,
    /// Held while networks are pruned: one such request at a time.
    pruning: Arc<Mutex<()>>,
    /// Becomes true when the streams are to end.
    shutdown: watch::Receiver<bool>,
    started: Instant,
}

impl<E: Networks> Api<E> {
    /// Serves `engine`. Must be called within a runtime.
    pub(crate) fn new(engine: E, shutdown: watch::Receiver<bool>) -> Self {
        let events = Events::record(engine.events());
        Self {
            engine,
            events,
            departed: Departed::default(),
            pruning: Arc::default(),
            shutdown,
            started: Instant::now(),
        }
    }

    /// `routes`, with the rules that hold for all of them.
    fn serve(self, routes: Router<Self>) -> Router {
        let routes = routes
            .route_layer(from_fn(version::check))
            .method_not_allowed_fallback(page_not_found)
            .fallback(page_not_found)
            .layer(from_fn(catch_panic))
            .with_state(self);
        // A layer sees the path after it was matched; what rewrites paths has to be around the router.
        Router::new().fallback_service(routes).layer(from_fn(version::negotiate))
    }
}

impl Api<Engine> {
    /// What is served at an API socket.
    pub(crate) fn router(self) -> Router {
        self.serve(docker().merge(own()))
    }

    /// What is served at `--metrics-addr`: the metrics, and nothing that changes anything.
    pub(crate) fn metrics_router(self) -> Router {
        self.serve(Router::new().route("/metrics", get(own::metrics)))
    }
}

/// The routes of Docker's API.
fn docker<E: Networks>() -> Router<Api<E>> {
    Router::new()
        .route("/_ping", get(system::ping))
        .route("/version", get(system::version))
        .route("/info", get(system::info::<E>))
        .route("/events", get(event::events::<E>))
        .route("/networks", get(route::list::<E>))
        .route("/networks/", get(route::list::<E>))
        .route("/networks/create", post(route::create::<E>))
        .route("/networks/prune", post(route::prune::<E>))
        .route("/networks/{id}", get(route::inspect::<E>).delete(route::remove::<E>))
        .route("/networks/{id}/connect", post(route::connect::<E>))
        .route("/networks/{id}/disconnect", post(route::disconnect::<E>))
}

/// netd's own routes.
fn own() -> Router<Api<Engine>> {
    Router::new()
        .route("/netd/nat", get(own::nat))
        .route("/netd/fdb", get(own::fdb))
        .route("/netd/routes", get(own::routes))
        .route("/netd/names", get(own::names))
        .route("/netd/stats", get(own::stats))
        .route("/netd/status", get(own::status))
        .route("/metrics", get(own::metrics))
}

async fn page_not_found() -> Refusal {
    Refusal::page_not_found()
}

/// Answers a request whose handler panicked, so that the client is told something.
async fn catch_panic(request: Request, next: Next) -> Response {
    let call = format!("{} {}", request.method(), request.uri());
    AssertUnwindSafe(next.run(request)).catch_unwind().await.unwrap_or_else(|_| {
        log::error!("{call}: the handler panicked");
        Refusal::internal(format!("{call}: netd failed; the cause is in its log")).into_response()
    })
}
