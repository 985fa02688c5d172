//! Who has the far end of an endpoint's veth.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::Sandbox;

/// The far end of an endpoint's veth: who furnishes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FarEnd {
    /// netd does. It is in a sandbox, where netd put it and keeps it as it should be.
    Sandbox(Sandbox),
    /// A container engine does. It takes it out of the host's namespace, names and addresses it, and brings it back.
    Engine(Handover),
}

/// A far end that is made for a container engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// What the engine calls the endpoint.
    pub id: String,
    /// The namespace that the engine has taken the interface to. Without one it is in the host's, and is silent.
    pub joined: Option<PathBuf>,
    /// What the interface is to be called there, if that matters.
    pub name: Option<String>,
}

impl FarEnd {
    /// The sandbox, if netd furnishes it.
    pub const fn sandbox(&self) -> Option<&Sandbox> {
        match self {
            Self::Sandbox(sandbox) => Some(sandbox),
            Self::Engine(_) => None,
        }
    }

    /// Where the namespace is that it is in, if it is in one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Sandbox(sandbox) => Some(&sandbox.path),
            Self::Engine(handover) => handover.joined.as_deref(),
        }
    }

    /// The engine's part, if it is an engine's.
    pub const fn handover(&self) -> Option<&Handover> {
        match self {
            Self::Sandbox(_) => None,
            Self::Engine(handover) => Some(handover),
        }
    }
}

impl fmt::Display for FarEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sandbox(sandbox) => sandbox.fmt(f),
            Self::Engine(Handover { joined: Some(path), .. }) => write!(f, "{}", path.display()),
            Self::Engine(handover) => write!(f, "endpoint {}", handover.id),
        }
    }
}
