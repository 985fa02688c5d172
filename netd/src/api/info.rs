//! `/info`: the daemon and its host.

use std::{fs, net::IpAddr, path::PathBuf, thread};

use axum::{
    extract::State as Extracted,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{
    Api, Networks,
    body::Json,
    system::{VERSION, kernel_version, read},
    version::Version,
};
use crate::{
    config::{Config, Host},
    model::Timestamp,
};

/// What the daemon was told, as far as it is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Told {
    state_dir: PathBuf,
    labels: Vec<String>,
    pools: Vec<Pool>,
    warnings: Vec<String>,
}

impl Told {
    pub(crate) fn of(config: &Config, labels: &[String]) -> Self {
        let pool = |pool: &crate::config::AddressPool| Pool { base: pool.base.to_string(), size: pool.size };
        Self {
            state_dir: config.state_dir.clone(),
            labels: labels.to_vec(),
            pools: config.address_pools.iter().map(pool).collect(),
            warnings: config.hosts.iter().filter_map(|host| exposure(config, host)).collect(),
        }
    }
}

/// What Docker says where whoever can reach the API has the power of root.
fn exposure(config: &Config, host: &Host) -> Option<String> {
    let Host::Tcp { host: name, port } = host else { return None };
    let address = if name.contains(':') { format!("[{name}]:{port}") } else { format!("{name}:{port}") };
    let open = match &config.tls {
        None => format!("http://{address} without encryption"),
        Some(tls) if !tls.verify => format!("https://{address} without TLS client verification"),
        Some(_) => return None,
    };
    // Nobody else reaches it there.
    if config.tls.is_none() && name.parse().is_ok_and(|address: IpAddr| address.is_loopback()) {
        return None;
    }
    Some(format!(
        "WARNING: API is accessible on {open}.\n         \
         Access to the remote API is equivalent to root access on the host. Refer\n         \
         to the 'Docker daemon attack surface' section in the documentation for\n         \
         more information: https://docs.docker.com/go/attack-surface/"
    ))
}

/// The part of Docker's answer that is true of a daemon that has networks and nothing else; fields in Docker's order.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    #[serde(rename = "ID")]
    id: String,
    containers: usize,
    containers_running: usize,
    containers_paused: usize,
    containers_stopped: usize,
    images: usize,
    driver: &'static str,
    plugins: Plugins,
    #[serde(rename = "IPv4Forwarding")]
    ipv4_forwarding: bool,
    debug: bool,
    #[serde(rename = "NFd")]
    open_files: usize,
    system_time: Timestamp,
    #[serde(rename = "NEventsListener")]
    events_listeners: usize,
    kernel_version: String,
    operating_system: String,
    #[serde(rename = "OSVersion")]
    os_version: String,
    #[serde(rename = "OSType")]
    os_type: &'static str,
    architecture: &'static str,
    #[serde(rename = "NCPU")]
    cpus: usize,
    mem_total: u64,
    docker_root_dir: PathBuf,
    http_proxy: &'static str,
    https_proxy: &'static str,
    no_proxy: &'static str,
    name: String,
    labels: Vec<String>,
    experimental_build: bool,
    server_version: &'static str,
    swarm: Swarm,
    live_restore_enabled: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    default_address_pools: Vec<Pool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    firewall_backend: Option<FirewallBackend>,
    warnings: Option<Vec<String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Plugins {
    volume: [&'static str; 0],
    network: [&'static str; 3],
    authorization: Option<[&'static str; 0]>,
    log: [&'static str; 0],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Swarm {
    #[serde(rename = "NodeID")]
    node_id: &'static str,
    node_addr: &'static str,
    local_node_state: &'static str,
    control_available: bool,
    error: &'static str,
    remote_managers: Option<[&'static str; 0]>,
}

/// Where subnets come from that nobody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Pool {
    base: String,
    size: u8,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct FirewallBackend {
    driver: &'static str,
}

pub(crate) async fn info<E: Networks>(Extracted(api): Extracted<Api<E>>, version: Version) -> Response {
    let state = api.engine.state();
    let told = api.engine.told();
    let endpoints = state.endpoints.len();
    let os_release = read("/etc/os-release");
    let forwarding = read("/proc/sys/net/ipv4/ip_forward") == "1";
    let mut warnings = told.warnings;
    if !forwarding {
        warnings.push("WARNING: IPv4 forwarding is disabled".to_owned());
    }
    Json(Info {
        id: state.daemon_id(),
        containers: endpoints,
        containers_running: endpoints,
        containers_paused: 0,
        containers_stopped: 0,
        images: 0,
        driver: "",
        plugins: Plugins { volume: [], network: ["bridge", "host", "null"], authorization: None, log: [] },
        ipv4_forwarding: forwarding,
        debug: log::max_level() >= log::LevelFilter::Debug,
        open_files: fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
        system_time: Timestamp::now(),
        events_listeners: api.events.listeners(),
        kernel_version: kernel_version(),
        operating_system: of_release(&os_release, "PRETTY_NAME").to_owned(),
        os_version: of_release(&os_release, "VERSION_ID").to_owned(),
        os_type: "linux",
        architecture: std::env::consts::ARCH,
        cpus: thread::available_parallelism().map_or(1, usize::from),
        mem_total: memory(&read("/proc/meminfo")),
        docker_root_dir: told.state_dir,
        http_proxy: "",
        https_proxy: "",
        no_proxy: "",
        name: read("/proc/sys/kernel/hostname"),
        labels: told.labels,
        experimental_build: false,
        server_version: VERSION,
        swarm: Swarm {
            node_id: "",
            node_addr: "",
            local_node_state: "inactive",
            control_available: false,
            error: "",
            remote_managers: None,
        },
        live_restore_enabled: true,
        default_address_pools: told.pools,
        // Before 1.49 nobody asked.
        firewall_backend: (!version.is_before("1.49")).then_some(FirewallBackend { driver: "ebpf" }),
        warnings: (!warnings.is_empty()).then_some(warnings),
    })
    .into_response()
}

/// A field of an os-release(5).
fn of_release<'a>(os_release: &'a str, field: &str) -> &'a str {
    let value = os_release.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix('='));
    value.map_or("", |value| value.trim_matches('"'))
}

/// The machine's memory in bytes, from proc_meminfo(5), which tells it in KiB.
fn memory(meminfo: &str) -> u64 {
    let field = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    field.and_then(|field| field.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::sample;

    #[test]
    fn the_host_is_described_by_its_files() {
        let os_release = "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\nVERSION_ID=\"12\"\n";
        assert_eq!(of_release(os_release, "PRETTY_NAME"), "Debian GNU/Linux 12");
        assert_eq!((of_release(os_release, "VERSION_ID"), of_release("", "ID")), ("12", ""));
        assert_eq!(memory("MemTotal:        2048 kB\nMemFree: 1 kB\n"), 2048 * 1024);
        assert_eq!(memory(""), 0);
    }

    #[test]
    fn the_daemons_id_has_the_form_of_a_uuid() {
        assert_eq!(sample::state().daemon_id(), "05050505-0505-0505-0505-050505050505");
    }
}
