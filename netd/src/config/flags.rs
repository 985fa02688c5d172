//! The command line of `netd daemon`.

use std::{net::SocketAddr, path::PathBuf};

/// The file that is read if none is named; it may be missing.
pub const DEFAULT_CONFIG: &str = "/etc/netd/daemon.json";

/// Run the daemon in the network namespace it is started in.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Flags {
    /// Configuration with the keys of Docker's daemon.json [default: /etc/netd/daemon.json, if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Serve the API at unix:///PATH or tcp://ADDR:PORT; may be repeated [default: netd.sock in the run directory]
    #[arg(long, short = 'H', value_name = "URL")]
    pub host: Vec<String>,
    /// Keep the networks and endpoints there
    #[arg(long, value_name = "DIR", default_value = "/var/lib/netd")]
    pub state_dir: PathBuf,
    /// Keep the socket there
    #[arg(long, value_name = "DIR", default_value = "/run/netd")]
    pub run_dir: PathBuf,
    /// Serve Docker Engine's plugin protocol at this socket; `none` for not at all [default:
    /// /run/docker/plugins/netd.sock, if it can be had]
    #[arg(long, value_name = "PATH|none")]
    pub plugin_socket: Option<String>,
    /// Serve Prometheus' metrics there as well as at the API
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics_addr: Option<SocketAddr>,
    /// An interface that leads outside; may be repeated [default: those that the host's routes use]
    #[arg(long, value_name = "IF")]
    pub uplink: Vec<String>,
    /// Remove all that netd ever made on this host, and exit
    #[arg(long)]
    pub cleanup: bool,
}
