//! `/_ping`, `/version` and `/info`: who answers here.

use std::{fs, thread};

use axum::{
    extract::State,
    http::{Method, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    Api, Networks,
    body::Json,
    version::{NEWEST, OLDEST},
};

/// Of the daemon.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The architecture as Go calls it, which is how Docker's clients know it.
const fn architecture() -> &'static str {
    match std::env::consts::ARCH.as_bytes() {
        b"x86_64" => "amd64",
        b"aarch64" => "arm64",
        _ => std::env::consts::ARCH,
    }
}

pub(crate) async fn ping(method: Method) -> Response {
    let headers = [
        (header::CONTENT_TYPE.as_str(), "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL.as_str(), "no-cache, no-store, must-revalidate"),
        (header::PRAGMA.as_str(), "no-cache"),
        ("builder-version", "2"),
        ("swarm", "inactive"),
    ];
    (headers, if method == Method::HEAD { "" } else { "OK" }).into_response()
}

/// Fields in Docker's order.
pub(crate) async fn version() -> Response {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Version {
        platform: Platform,
        components: [Component; 1],
        version: &'static str,
        api_version: &'static str,
        #[serde(rename = "MinAPIVersion")]
        min_api_version: &'static str,
        git_commit: &'static str,
        go_version: &'static str,
        os: &'static str,
        arch: &'static str,
        kernel_version: String,
    }
    #[derive(serde::Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Platform {
        name: &'static str,
    }
    #[derive(serde::Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Component {
        /// The name that Docker's CLI takes for the daemon's own.
        name: &'static str,
        version: &'static str,
        details: Value,
    }
    let kernel = kernel_version();
    Json(Version {
        platform: Platform { name: "netd" },
        components: [Component {
            name: "Engine",
            version: VERSION,
            details: json!({
                "ApiVersion": NEWEST, "MinAPIVersion": OLDEST, "Os": "linux", "Arch": architecture(),
                "KernelVersion": kernel, "GitCommit": "", "GoVersion": "", "BuildTime": "", "Experimental": "false",
            }),
        }],
        version: VERSION,
        api_version: NEWEST,
        min_api_version: OLDEST,
        git_commit: "",
        go_version: "",
        os: "linux",
        arch: architecture(),
        kernel_version: kernel,
    })
    .into_response()
}

/// The part of Docker's answer that is true of a daemon that has networks and nothing else.
pub(crate) async fn info<E: Networks>(State(api): State<Api<E>>) -> Response {
    let state = api.engine.state();
    let endpoints = state.endpoints.len();
    Json(json!({
        "Containers": endpoints,
        "ContainersRunning": endpoints,
        "ContainersPaused": 0,
        "ContainersStopped": 0,
        "Images": 0,
        "Driver": "",
        "Plugins": {"Volume": [], "Network": ["bridge", "host", "null"], "Authorization": null, "Log": []},
        "IPv4Forwarding": read("/proc/sys/net/ipv4/ip_forward") == "1",
        "Debug": log::max_level() >= log::LevelFilter::Debug,
        "NEventsListener": api.events.listeners(),
        "KernelVersion": kernel_version(),
        "OperatingSystem": operating_system(&read("/etc/os-release")),
        "OSType": "linux",
        "Architecture": std::env::consts::ARCH,
        "NCPU": thread::available_parallelism().map_or(1, usize::from),
        "MemTotal": memory(&read("/proc/meminfo")),
        "Name": read("/proc/sys/kernel/hostname"),
        "Labels": [],
        "ExperimentalBuild": false,
        "ServerVersion": VERSION,
        "Swarm": {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false,
            "Error": "", "RemoteManagers": null},
        "LiveRestoreEnabled": true,
        "FirewallBackend": {"Driver": "ebpf"},
        "Warnings": null,
    }))
    .into_response()
}

/// A file's text without the line feed at its end; empty if it cannot be read.
fn read(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim_end().to_owned()).unwrap_or_default()
}

/// As `uname -r` tells it.
pub(crate) fn kernel_version() -> String {
    read("/proc/sys/kernel/osrelease")
}

/// The name for people in an os-release(5).
fn operating_system(os_release: &str) -> &str {
    os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or("", |name| name.trim_matches('"'))
}

/// The machine's memory in bytes, from proc_meminfo(5), which tells it in KiB.
fn memory(meminfo: &str) -> u64 {
    let field = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    field.and_then(|field| field.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_described_by_its_files() {
        assert_eq!(
            operating_system("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"),
            "Debian GNU/Linux 12"
        );
        assert_eq!(operating_system(""), "");
        assert_eq!(memory("MemTotal:        2048 kB\nMemFree: 1 kB\n"), 2048 * 1024);
        assert_eq!(memory(""), 0);
        assert!(kernel_version().contains('.'));
    }
}
