//! `/_ping` and `/version`: who answers here.

use std::fs;

use axum::{
    http::{Method, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
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

/// A file's text without the line feed at its end; empty if it cannot be read.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim_end().to_owned()).unwrap_or_default()
}

/// As `uname -r` tells it.
pub(crate) fn kernel_version() -> String {
    read("/proc/sys/kernel/osrelease")
}
