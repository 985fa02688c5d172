//! The compiler of the datapath, which netd/build.rs asks rustup for by one name.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{host, process, tool::LLVM};

/// The rustup toolchain that netd/build.rs builds with.
const TOOLCHAIN: &str = "netd-ebpf";

/// Where Debian's rustc-web has its compiler.
pub(crate) const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// What compiles the datapath.
pub(crate) enum Compiler {
    /// Debian's rustc-web: a stable release, its core library for eBPF prebuilt.
    Debian,
    /// A nightly in this directory, which builds its core library from rust-src.
    Nightly(PathBuf),
}

impl Compiler {
    /// The newest nightly that has the sources of its core library and an LLVM that bpf-linker can read.
    pub(crate) fn nightly() -> Option<Self> {
        let mut directories = match process::find("rustup") {
            Some(_) => nightlies().unwrap_or_default(),
            None => process::output(process::command("rustc").args(["--print", "sysroot"]))
                .map(|directory| directory.trim().into())
                .into_iter()
                .collect(),
        };
        directories.sort();
        directories.into_iter().rev().find(|directory| builds_for_ebpf(directory)).map(Self::Nightly)
    }

    /// Makes rustup's toolchain [`TOOLCHAIN`] this compiler. Where there is no rustup, netd/build.rs needs no such name.
    pub(crate) fn link(&self) -> Result<()> {
        let Some(rustup) = process::find("rustup") else { return Ok(()) };
        let directory = match self {
            Self::Debian => debian_toolchain()?,
            Self::Nightly(directory) => directory.clone(),
        };
        let linked = host::rustup_home()?.join("toolchains").join(TOOLCHAIN);
        if fs::read_link(&linked).is_ok_and(|target| target == directory) {
            return Ok(());
        }
        let mut link = process::command(rustup);
        link.args(["toolchain", "link", TOOLCHAIN]).arg(directory);
        process::step(&format!("rustup toolchain {TOOLCHAIN}"), link)
    }
}

/// A directory that has the form of a toolchain: Debian's compiler, and the cargo that runs this xtask.
fn debian_toolchain() -> Result<PathBuf> {
    let directory = host::cache()?.join("toolchain");
    let bin = directory.join("bin");
    let (rustc, cargo) = (bin.join("rustc"), bin.join("cargo"));
    let is_made =
        fs::read_link(&rustc).is_ok_and(|target| target == Path::new(DEBIAN_RUSTC)) && cargo.exists();
    if !is_made {
        // rustup takes a directory for a toolchain if it has bin and lib, which may be empty.
        for part in [&bin, &directory.join("lib")] {
            fs::create_dir_all(part).with_context(|| format!("making {}", part.display()))?;
        }
        replace_symlink(Path::new(DEBIAN_RUSTC), &rustc)?;
        replace_symlink(&active_cargo()?, &cargo)?;
    }
    Ok(directory)
}

/// The real cargo behind rustup's proxy.
fn active_cargo() -> Result<PathBuf> {
    let path = process::output(process::command("rustup").args(["which", "cargo"]))
        .context("rustup has no active toolchain; `rustup show` tells why")?;
    Ok(path.trim().into())
}

fn replace_symlink(target: &Path, link: &Path) -> Result<()> {
    match fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => symlink(target, link),
    }
    .with_context(|| format!("linking {} to {}", link.display(), target.display()))
}

/// The directories of rustup's nightlies.
fn nightlies() -> Result<Vec<PathBuf>> {
    let toolchains = fs::read_dir(host::rustup_home()?.join("toolchains"))?;
    let named =
        toolchains.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("nightly"));
    Ok(named.map(|entry| entry.path()).collect())
}

fn builds_for_ebpf(directory: &Path) -> bool {
    let version = process::output(process::command(directory.join("bin/rustc")).arg("-vV"));
    directory.join("lib/rustlib/src/rust/library/core").exists()
        && version.is_some_and(|v| is_readable_nightly(&v))
}

/// Whether `rustc -vV` tells of a nightly whose LLVM is no newer than bpf-linker's.
fn is_readable_nightly(version: &str) -> bool {
    let value = |key| version.lines().find_map(|line| line.strip_prefix(key));
    let llvm = value("LLVM version: ").and_then(|llvm| llvm.split('.').next()?.parse().ok());
    value("release: ").is_some_and(|release| release.ends_with("-nightly"))
        && llvm.is_some_and(|llvm: u32| llvm <= LLVM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nightlies_by_llvm() {
        assert!(is_readable_nightly("rustc 1.97.0-nightly\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n"));
        assert!(!is_readable_nightly("release: 1.99.0-nightly\nLLVM version: 23.1.0\n"), "too new an LLVM");
        assert!(!is_readable_nightly("release: 1.95.0\nLLVM version: 22.1.2\n"), "no nightly");
        assert!(!is_readable_nightly("release: 1.97.0-nightly\n"), "another code generator");
    }
}
