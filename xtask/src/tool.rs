//! Programs that cargo builds from source.

use std::{env, path::Path};

use anyhow::{Result, ensure};

use crate::process;

/// The LLVM that bpf-linker is built on: no older than the one in the compiler of the datapath.
pub(crate) const LLVM: u32 = 22;

/// A program in the registry of Rust crates, pinned.
pub(crate) struct Tool {
    name: &'static str,
    version: &'static str,
    options: &'static [&'static str],
}

/// Links the compiler's bitcode to one eBPF object.
pub(crate) const BPF_LINKER: Tool = Tool {
    name: "bpf-linker",
    version: "0.13.0",
    options: &["--no-default-features", "--features", "llvm-22"],
};

/// Holds dependencies to deny.toml. Built without optimisation: its work takes a second, its release build minutes.
pub(crate) const CARGO_DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2", options: &["--debug"] };

impl Tool {
    /// Whether this version is installed, or a newer one.
    pub(crate) fn is_installed(&self) -> bool {
        let wanted = version(self.version);
        process::output(process::command(self.name).arg("--version"))
            .is_some_and(|output| output.split_whitespace().last().and_then(version) >= wanted)
    }

    /// Builds and installs it.
    pub(crate) fn install(&self) -> Result<()> {
        let mut install = process::cargo();
        install
            .args(["install", self.name, "--version", self.version, "--locked", "--force"])
            .args(self.options);
        if self.name == BPF_LINKER.name && env::var_os("LLVM_PREFIX").is_none() {
            let llvm = format!("/usr/lib/llvm-{LLVM}");
            ensure!(
                Path::new(&llvm).join("bin/llvm-config").exists(),
                "bpf-linker {} is missing and is built on LLVM {LLVM}, which is not in {llvm}. \
                 Install its development files (and zlib's and zstd's), set LLVM_PREFIX to where they are, and try again",
                self.version
            );
            install.env("LLVM_PREFIX", llvm);
        }
        process::step(&format!("{} {} (built from source)", self.name, self.version), install)
    }
}

/// `0.13.0` is (0, 13, 0).
fn version(text: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = text.splitn(3, '.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(version("0.13.0"), Some((0, 13, 0)));
        assert!(version("0.9.15") < version("0.13.0"));
        assert_eq!(version("0.13"), None);
        assert_eq!(version("linker"), None);
    }
}
