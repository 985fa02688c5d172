//! netd: container networking with the packet path in eBPF.
//!
//! A module imports only what is below it:
//!
//! | | |
//! |---|---|
//! | [`cli`], [`cni`], [`netavark`], [`daemon`] | the command line and the plugins, clients of the API; the process that serves it |
//! | [`api`], [`dns`], [`serve`], [`metrics`] | the fronts: Docker's API and netd's own, listeners, Prometheus |
//! | [`engine`] | the single writer: request, plan, steps, store, event, answer |
//! | [`apply`] | takes a plan's steps, or undoes them |
//! | [`link`], [`datapath`], [`store`] | effects: rtnetlink, programs and maps, the database |
//! | [`ipam`], [`plan`] | pure: addresses; from what is seen to what is desired |
//! | [`model`], [`config`] | values: networks, endpoints, requests; what the daemon is told |

pub mod api;
pub mod apply;
pub mod cli;
pub mod cni;
pub mod config;
pub mod daemon;
pub mod datapath;
pub mod dns;
pub mod engine;
pub mod ipam;
pub mod link;
pub mod metrics;
pub mod model;
pub mod netavark;
pub mod plan;
mod plugin;
pub mod serve;
pub mod store;
