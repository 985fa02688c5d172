//! `cargo xtask test`: every test of the workspace.

use std::{env, num::NonZero, thread};

use anyhow::Result;

use crate::{host, process, setup};

/// Tests at once, at most: more of them only wait for the kernel's one lock on network devices, and time each other out.
const THREADS: usize = 4;

pub(crate) fn run() -> Result<()> {
    host::require_datapath("test")?;
    setup::for_tests()?;
    // The tests in namespaces start the real daemon, which `cargo test` alone does not build. The tests with it: by itself it
    // would be built with fewer features of what it depends on, and all of that, the datapath too, once more for the tests.
    process::run(process::cargo().args([
        "build",
        "--workspace",
        "--exclude=netd-ebpf",
        "--bins",
        "--tests",
    ]))?;
    // Documentation first: there is little to run in it, and what is printed last should tell of the real tests.
    for targets in ["--doc", "--tests"] {
        let mut test = process::cargo();
        test.args(["test", "--workspace", "--exclude=netd-ebpf", "--no-fail-fast", targets]);
        if env::var_os("RUST_TEST_THREADS").is_none() {
            let cores = thread::available_parallelism().map_or(1, NonZero::get);
            test.env("RUST_TEST_THREADS", cores.min(THREADS).to_string());
        }
        process::run(&mut test)?;
    }
    Ok(())
}
