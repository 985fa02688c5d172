//! Word of what has happened, for those who listen.

use std::sync::Arc;

use super::Engine;
use crate::model::{Driver, Id, Network, Timestamp};

/// What happened to a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It was made.
    Create,
    /// It was removed.
    Destroy,
    /// A container joined it.
    Connect,
    /// A container left it.
    Disconnect,
}

impl Action {
    /// The name in Docker's API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Destroy => "destroy",
            Self::Connect => "connect",
            Self::Disconnect => "disconnect",
        }
    }
}

/// Word of a change, sent when it is in force, and stored if it is one of the state's.
#[derive(Clone, Debug)]
pub struct Event {
    /// What happened.
    pub happened: Happened,
    /// When.
    pub time: Timestamp,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Happened {
    /// Something happened to a network.
    Network {
        /// What happened.
        action: Action,
        /// To which network.
        id: Id,
        /// The network's name.
        name: String,
        /// The network's driver.
        driver: Driver,
        /// Who joined or left, as `netns:NAME`, `pid:N` or a path.
        container: Option<String>,
    },
    /// The daemon has read its configuration anew.
    Reload {
        /// The daemon's id.
        daemon: String,
        /// What it goes by from now on.
        reloaded: Reloaded,
    },
}

/// What a daemon goes by that can change while it runs, as far as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// Whether it logs what only a developer wants to know.
    pub debug: bool,
    /// Its labels.
    pub labels: Arc<[String]>,
}

impl Engine {
    pub(super) fn tell(&self, action: Action, network: &Network, container: Option<String>) {
        log::info!(
            "{} network {} ({}){}",
            action.name(),
            network.name,
            network.id.short(),
            container.as_ref().map(|container| format!(", {container}")).unwrap_or_default()
        );
        let (id, name, driver) = (network.id, network.name.clone(), network.driver);
        self.send(Happened::Network { action, id, name, driver, container });
    }

    pub(super) fn send(&self, happened: Happened) {
        // Nobody listening is no failure.
        drop(self.0.events.send(Event { happened, time: Timestamp::now() }));
    }
}
