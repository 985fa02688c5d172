//! `cargo xtask run`: the daemon on this host.

use std::{ffi::OsString, os::unix::process::CommandExt as _};

use anyhow::{Context as _, Result};

use crate::{host, process, setup};

pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    host::require_datapath("run")?;
    setup::for_build()?;
    process::run(process::cargo().args([
        "build",
        "--release",
        "--workspace",
        "--exclude=netd-ebpf",
        "--bin=netd",
    ]))?;
    let netd = process::release_binary("netd")?;
    println!("{}", hints(&netd.display().to_string()));
    // The daemon takes this process's place, so that signals reach it.
    let error = process::command(&netd).arg("daemon").args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {}", netd.display()))
}

fn hints(netd: &str) -> String {
    format!(
        "
The daemon runs here until Ctrl-C; traffic goes on without it. From another terminal, as root:

    alias netd={netd}
    netd run -- ip address          a command in a fresh container: its eth0 is on the network \"bridge\"
    netd run -- ping -c3 1.1.1.1    out of the host, masqueraded past netfilter
    netd nat ls                     the bindings that this made
    netd network ls                 the networks
    netd status                     programs, links, maps and uplinks
    netd daemon --cleanup           after Ctrl-C: removes all that netd made on this host
"
    )
}
