//! Addresses that a container engine holds.

use std::{collections::BTreeSet, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::Pool;

/// A subnet that a container engine has from netd's address management, and the addresses of it that it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeasedPool {
    /// What netd calls it to the engine, and the engine to netd.
    pub id: String,
    /// The subnet, and where addresses come from. The gateway is a lease like any other.
    pub pool: Pool,
    /// Whether addresses are given out one after the other, and not the lowest that is free.
    pub serial: bool,
    /// The addresses held.
    pub leases: BTreeSet<IpAddr>,
}
