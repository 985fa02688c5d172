//! What netd has switched on of the host's own forwarding.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The families that netd has made a host forward.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Forwards {
    /// Which network namespace, since which boot: with it goes what was switched on in it.
    pub place: String,
    /// Whether IPv4.
    pub ipv4: bool,
    /// Whether IPv6.
    pub ipv6: bool,
    /// The links that forwarded IPv4 by a setting of their own when netd switched it on for all; `default` stands for those to come.
    pub by_link4: BTreeSet<String>,
    /// The same of IPv6.
    pub by_link6: BTreeSet<String>,
    /// The uplinks that netd has told to take router advertisements though the host forwards IPv6.
    pub advertised: BTreeSet<String>,
}
