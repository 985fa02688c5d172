//! Builds the datapath (`netd-ebpf`) for the kernel's virtual machine, so that the daemon carries it as bytes.

use std::{env, path::Path, process::Command};

use anyhow::Context as _;
use aya_build::{Package, Toolchain};

/// What `cargo xtask setup` links into rustup: Debian's rustc-web, which needs no nightly and no build-std, or a nightly.
const LINKED: &str = "netd-ebpf";

/// The core library of Debian's libstd-rust-web-dev-bpf, and the compiler it is for.
const DEBIAN_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-changed=../netd-common");
    // Cargo runs a build script in its package's directory.
    let package = Package { name: "netd-ebpf", root_dir: "../netd-ebpf", ..Default::default() };
    aya_build::build_ebpf([package], toolchain())
        .context("building netd-ebpf; `cargo xtask setup` installs what it needs")
}

fn toolchain() -> Toolchain<'static> {
    match Command::new("rustup").args(["run", LINKED, "rustc", "--version"]).output() {
        Ok(output) if output.status.success() => return Toolchain::Custom(LINKED),
        Ok(_) => {}
        // Without rustup, aya-build runs the first cargo on the path, which is told here of a compiler other than its own.
        Err(_) if Path::new(DEBIAN_CORE).exists() => {
            // SAFETY: a build script has one thread, and nothing has started another yet.
            unsafe { env::set_var("CARGO_BUILD_RUSTC", DEBIAN_RUSTC) };
        }
        Err(_) => {}
    }
    Toolchain::Nightly
}
