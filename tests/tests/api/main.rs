//! Docker's API, and what its own command line makes of it: netd as those see it who know Docker.
//!
//! Each test has a daemon of its own in a namespace of its own, so they run side by side. Needs root, a kernel of 6.6 or
//! later, `ip`, and `docker`, the command line; a test panics where one of them is missing. A test whose name begins with
//! `t` and a number replays that case of the contract that netd meets.

mod configuration;
mod engine;
mod negotiation;
mod plugin;

use netd_tests::lab::Host;

/// A host that runs netd with no more than its default networks.
fn daemon() -> Host {
    let host = Host::new();
    host.start(&[]);
    host
}
