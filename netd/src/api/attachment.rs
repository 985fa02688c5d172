//! The routes of engines' plugins: attachments, known by their network's name, their container's id and their interface's
//! name. They are netd's own.

use axum::{
    extract::{FromRequestParts, Path, State},
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{Api, body::Json, error::Refusal, parameter::Name};
use crate::{
    dns,
    engine::Engine,
    model::attachment::{Attach, Key, Prune},
};

/// An attachment, as a path names it.
#[derive(Debug, Deserialize)]
pub(crate) struct Named {
    network: String,
    container: String,
    interface: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(named)) => Ok(named),
            Err(rejection) => Err(Refusal::invalid(format!("invalid path: {}", rejection.body_text()))),
        }
    }
}

impl Named {
    fn key(self) -> (String, Key) {
        (self.network, Key { container: self.container, interface: self.interface })
    }
}

pub(crate) async fn add(
    State(api): State<Api<Engine>>,
    Json(request): Json<Attach>,
) -> Result<Response, Refusal> {
    let network = request.network.name.clone();
    let mut attachment = api.engine.add_attachment(request).await?;
    attachment.servers = api.engine.state().network_named(&network).map(dns::addresses).unwrap_or_default();
    Ok((StatusCode::CREATED, Json(attachment)).into_response())
}

/// The attachment, if the host has it as it was made; 409 and what is wrong if not.
pub(crate) async fn check(State(api): State<Api<Engine>>, named: Named) -> Result<Response, Refusal> {
    let (network, key) = named.key();
    Ok(Json(api.engine.check_attachment(&network, key).await?).into_response())
}

/// Ends an attachment; there being none is as good.
pub(crate) async fn remove(State(api): State<Api<Engine>>, named: Named) -> Result<StatusCode, Refusal> {
    let (network, key) = named.key();
    api.engine.remove_attachment(&network, key).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends all attachments of a network but those that the request names.
pub(crate) async fn prune(
    State(api): State<Api<Engine>>,
    Name(network): Name,
    Json(request): Json<Prune>,
) -> Result<Response, Refusal> {
    Ok(Json(api.engine.prune_attachments(&network, request).await?).into_response())
}
