//! `cargo xtask check`: what is held of every change, short of running it.

use std::{env, process::Command};

use anyhow::Result;

use crate::{
    compiler::{Compiler, DEBIAN_RUSTC},
    process, setup,
};

pub(crate) fn run() -> Result<()> {
    let compiler = setup::for_checks()?;
    process::run(process::cargo().args(["fmt", "--all", "--check"]))?;
    let mut lints = process::cargo();
    lints.args(["clippy", "--workspace", "--exclude=netd-ebpf", "--all-targets", "--", "-Dwarnings"]);
    // Cargo keeps what it builds for clippy apart: the datapath would be built for nobody to load.
    process::run(lints.env("AYA_BUILD_SKIP", "1"))?;
    process::run(&mut datapath_lints(&compiler))?;
    // Advisories are a database that changes by the day and comes over the network: no property of a commit.
    process::run(process::cargo().args(["deny", "check", "bans", "licenses", "sources"]))
}

/// Clippy on netd-ebpf, by its own compiler and for its own target.
fn datapath_lints(compiler: &Compiler) -> Command {
    let mut clippy = match compiler {
        Compiler::Debian => {
            // rust-web-clippy's subcommand, run by the cargo of this xtask: Debian's cargo is not needed.
            let cargo = process::cargo();
            let mut clippy = process::command("/usr/bin/cargo-clippy");
            clippy.env("CARGO", cargo.get_program()).env("RUSTC", DEBIAN_RUSTC).arg("clippy");
            clippy
        }
        Compiler::Nightly(directory) => {
            let mut clippy = process::command(directory.join("bin/cargo-clippy"));
            clippy.env("CARGO", directory.join("bin/cargo")).env("RUSTC", directory.join("bin/rustc"));
            clippy.args(["clippy", "-Zbuild-std=core"]);
            clippy
        }
    };
    clippy
        .current_dir(process::WORKSPACE)
        // As aya-build has it: aya-ebpf chooses the layout of pt_regs by it.
        .env("CARGO_ENCODED_RUSTFLAGS", format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH))
        .args(["--package=netd-ebpf", "--release", "--target=bpfel-unknown-none", "--", "-Dwarnings"]);
    clippy
}
