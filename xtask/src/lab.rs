//! `cargo xtask bench` and `cargo xtask demo`: the programs of netd-tests that build a lab of namespaces.

use std::{ffi::OsString, os::unix::process::CommandExt as _};

use anyhow::{Context as _, Result};

use crate::{host, process, setup};

pub(crate) fn run(program: &str, arguments: &[OsString]) -> Result<()> {
    host::require_datapath(program)?;
    setup::for_tests()?;
    let mut build = process::cargo();
    build.args(["build", "--release", "--workspace", "--exclude=netd-ebpf", "--bin=netd", "--bin", program]);
    process::run(&mut build)?;
    let path = process::release_binary(program)?;
    // The program takes this process's place, so that Ctrl-C reaches it and it can clean up.
    let error = process::command(&path).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {}", path.display()))
}
