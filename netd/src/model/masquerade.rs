//! What masquerade promises (RFC 4787).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What an external port, or who may send to it, depends on. The names are those of RFC 4787, sections 4.1 and 5.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dependence {
    /// On the remote's address and port.
    #[default]
    AddressAndPortDependent,
    /// On no remote.
    EndpointIndependent,
}

impl Dependence {
    /// The name in options.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AddressAndPortDependent => "address-and-port-dependent",
            Self::EndpointIndependent => "endpoint-independent",
        }
    }
}

impl fmt::Display for Dependence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names neither.
#[derive(Debug, thiserror::Error)]
#[error("it is {} or {}", Dependence::EndpointIndependent, Dependence::AddressAndPortDependent)]
pub struct UnknownDependence;

impl FromStr for Dependence {
    type Err = UnknownDependence;

    fn from_str(text: &str) -> Result<Self, UnknownDependence> {
        [Self::AddressAndPortDependent, Self::EndpointIndependent]
            .into_iter()
            .find(|dependence| dependence.name() == text)
            .ok_or(UnknownDependence)
    }
}
