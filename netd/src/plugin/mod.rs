//! Docker Engine's plugin protocol: libnetwork's remote network driver, and its remote address management.
//!
//! Each call is `POST /INTERFACE.METHOD` with a JSON body of any type, or of none. A call that is not done is answered 200 with
//! the reason in the body; another status says that the call itself was no good, and 404 that there is no such method.
//! The engine holds locks while it waits, so nothing here ever asks the engine for anything.

mod driver;
mod ipam;
mod message;

use std::panic::AssertUnwindSafe;

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{MethodRouter, post},
};
use futures_util::FutureExt;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    api::{body, json},
    engine::Engine,
    model::Error,
};

/// The type of all bodies, which the engine names and nobody insists on.
const MEDIA_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";

/// The most bytes that a call's body may have: 16 MiB. An engine names each port of a range, twice and in some 110 bytes, and a
/// container may publish all there are, by TCP and by UDP.
const LIMIT: usize = 16 << 20;

/// What is served at the plugin's socket.
pub(crate) fn router(engine: Engine) -> Router {
    Router::new()
        .route("/Plugin.Activate", post(activate))
        .merge(driver::routes())
        .merge(ipam::routes())
        .method_not_allowed_fallback(unknown)
        .fallback(unknown)
        .layer(from_fn(catch_panic))
        .with_state(engine)
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Activated {
    implements: [&'static str; 2],
}

/// Hello: the engine has started. It is going to ask for the addresses that it holds.
async fn activate(State(engine): State<Engine>) -> Response {
    log::info!("a container engine has come");
    engine.expect_replay().await;
    answer(StatusCode::OK, &Activated { implements: ["NetworkDriver", "IpamDriver"] })
}

/// The answer of a method that has nothing to say.
#[derive(Serialize)]
struct Done {}

/// Where the reason of a call that is not done is found.
#[derive(Clone, Copy)]
enum Interface {
    Network,
    Ipam,
}

/// What serves a method.
fn method<Q, A, F>(interface: Interface, method: fn(Engine, Q) -> F) -> MethodRouter<Engine>
where
    Q: DeserializeOwned + Send + 'static,
    A: Serialize + 'static,
    F: Future<Output = Result<A, Error>> + Send + 'static,
{
    post(move |State(engine): State<Engine>, request: Request| call(interface, engine, request, method))
}

/// Takes a call apart, and puts its answer together.
async fn call<Q, A, F>(
    interface: Interface,
    engine: Engine,
    request: Request,
    method: fn(Engine, Q) -> F,
) -> Response
where
    Q: DeserializeOwned,
    A: Serialize,
    F: Future<Output = Result<A, Error>>,
{
    let path = request.uri().path().to_owned();
    let body = body::read(request.into_body(), LIMIT).await;
    let parameters = match body.and_then(|body| json::read::<Q>(&body)) {
        Ok(parameters) => parameters,
        Err(refusal) => return failed(refusal.status, &refusal.message),
    };
    match method(engine, parameters).await {
        Ok(done) => {
            log::debug!("{path}: done");
            answer(StatusCode::OK, &done)
        }
        Err(error) => {
            log::warn!("{path}: {error}");
            let reason = error.message.as_str();
            match interface {
                Interface::Network => failed(StatusCode::OK, reason),
                Interface::Ipam => answer(StatusCode::OK, &serde_json::json!({ "Error": reason })),
            }
        }
    }
}

fn failed(status: StatusCode, reason: &str) -> Response {
    answer(status, &serde_json::json!({ "Err": reason }))
}

fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => (status, [(header::CONTENT_TYPE, MEDIA_TYPE)], body).into_response(),
        Err(error) => {
            log::error!("an answer cannot be written as JSON: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// The body is taken, as of any request that the API does not have.
async fn unknown(request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let _ = body::read(request.into_body(), LIMIT).await;
    failed(StatusCode::NOT_FOUND, &format!("{path} is no method of netd's"))
}

/// Answers a call whose handler panicked: without an answer the engine would ask again for half a minute.
async fn catch_panic(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    AssertUnwindSafe(next.run(request)).catch_unwind().await.unwrap_or_else(|_| {
        log::error!("{path}: the handler panicked");
        failed(StatusCode::INTERNAL_SERVER_ERROR, "netd failed; the cause is in its log")
    })
}
