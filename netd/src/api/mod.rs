//! Docker's Engine API, as far as it is about networks, and netd's own routes beside it.
//!
//! A route is served with and without a version in its path. Every error is `{"message":"..."}` in Docker's words, and
//! every answer carries the headers that Docker's clients look for.

mod attachment;
pub(crate) mod body;
mod compose;
mod error;
mod event;
mod filter;
#[cfg(test)]
mod fuzz;
mod info;
pub(crate) mod json;
mod network;
mod none;
mod openapi;
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
    handler::Handler,
    http::Method,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{self, MethodRouter},
};
use futures_util::FutureExt;
use tokio::sync::{Mutex, broadcast, watch};

use self::{error::Refusal, event::Events, info::Told};
use crate::{
    engine::{Created, Engine, Error, Event},
    model::{State, request},
};

/// What Docker's routes ask of the engine, so that they can be tested without a kernel.
pub(crate) trait Networks: Clone + Send + Sync + 'static {
    fn state(&self) -> Arc<State>;
    fn events(&self) -> broadcast::Receiver<Event>;
    fn told(&self) -> Told;
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
}

impl Networks for Engine {
    fn state(&self) -> Arc<State> {
        self.state()
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.events()
    }

    fn told(&self) -> Told {
        Told::of(self.config(), &self.labels())
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
}

/// What the routes work with.
#[derive(Clone)]
pub(crate) struct Api<E> {
    engine: E,
    events: Events,
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
        Self { engine, events, pruning: Arc::default(), shutdown, started: Instant::now() }
    }

    /// `routes`, with the rules that hold for all of them.
    fn serve(self, routes: Vec<Route<E>>) -> Router {
        let router = routes
            .into_iter()
            .fold(Router::new(), |router, Route { path, handler, .. }| router.route(path, handler));
        let routes = router
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
        self.serve(docker().into_iter().chain(own()).collect())
    }

    /// What is served at `--metrics-addr`: the metrics, and nothing that changes anything.
    pub(crate) fn metrics_router(self) -> Router {
        self.serve(vec![get("/metrics", own::metrics)])
    }
}

/// What is answered to one method at one path.
struct Route<E> {
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "the handler knows it; the description of the API is held to it")
    )]
    method: Method,
    path: &'static str,
    handler: MethodRouter<Api<E>>,
}

fn get<E: Networks, T: 'static>(path: &'static str, handler: impl Handler<T, Api<E>>) -> Route<E> {
    Route { method: Method::GET, path, handler: routing::get(handler) }
}

fn post<E: Networks, T: 'static>(path: &'static str, handler: impl Handler<T, Api<E>>) -> Route<E> {
    Route { method: Method::POST, path, handler: routing::post(handler) }
}

fn delete<E: Networks, T: 'static>(path: &'static str, handler: impl Handler<T, Api<E>>) -> Route<E> {
    Route { method: Method::DELETE, path, handler: routing::delete(handler) }
}

/// The routes of Docker's API.
fn docker<E: Networks>() -> Vec<Route<E>> {
    vec![
        get("/_ping", system::ping),
        get("/version", system::version),
        get("/info", info::info),
        get("/events", event::events),
        get("/system/df", none::disk_usage),
        get("/networks", route::list),
        get("/networks/", route::list),
        post("/networks/create", route::create),
        post("/networks/prune", route::prune),
        get("/networks/{id}", route::inspect),
        delete("/networks/{id}", route::remove),
        post("/networks/{id}/connect", route::connect),
        post("/networks/{id}/disconnect", route::disconnect),
        get("/containers/json", none::containers),
        post("/containers/prune", none::prune_containers),
        post("/images/prune", none::prune_images),
        post("/volumes/prune", none::prune_volumes),
        post("/build/prune", none::prune_builds),
        get("/plugins", none::plugins),
    ]
}

/// netd's own routes.
fn own() -> Vec<Route<Engine>> {
    vec![
        post("/netd/attachments", attachment::add),
        post("/netd/attachments/{network}/prune", attachment::prune),
        get("/netd/attachments/{network}/{container}/{interface}", attachment::check),
        delete("/netd/attachments/{network}/{container}/{interface}", attachment::remove),
        get("/netd/nat", own::nat),
        post("/netd/nat", own::add_external),
        delete("/netd/nat", own::remove_external),
        get("/netd/fdb", own::fdb),
        get("/netd/routes", own::routes),
        get("/netd/names", own::names),
        get("/netd/publish", own::publications),
        post("/netd/publish", own::publish),
        post("/netd/unpublish", own::unpublish),
        get("/netd/stats", own::stats),
        get("/netd/status", own::status),
        get("/netd/openapi.json", openapi::describe),
        get("/metrics", own::metrics),
    ]
}

/// The body is taken, though nobody reads it: of a connection with the rest of one still on its way no more is heard, and a client that
/// sends its next request there is cut off.
async fn page_not_found(request: Request) -> Refusal {
    let _ = body::read(request.into_body(), body::LIMIT).await;
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
