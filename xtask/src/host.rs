//! What the machine is, and whether netd can run on it.

use std::{env, fs, path::PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{sys::utsname::uname, unistd::geteuid};

/// The first kernel with tcx, by which netd attaches its programs to interfaces.
const KERNEL_FLOOR: (u32, u32) = (6, 6);

/// The first Debian whose security suite has a Rust compiler with a core library for eBPF.
const DEBIAN_FLOOR: u32 = 12;

pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// Errors unless this process can load eBPF programs here: `command` names the xtask that wants to.
pub(crate) fn require_datapath(command: &str) -> Result<()> {
    let release = uname().context("uname")?.release().to_string_lossy().into_owned();
    let version =
        kernel_version(&release).with_context(|| format!("kernel release {release:?} is no version"))?;
    let (major, minor) = KERNEL_FLOOR;
    ensure!(
        version >= KERNEL_FLOOR,
        "`cargo xtask {command}` needs Linux {major}.{minor} or later, for tcx; this kernel is {release}"
    );
    if !is_root() {
        bail!(
            "`cargo xtask {command}` loads eBPF programs and makes network interfaces, which needs root. Try\n    \
             sudo env PATH=\"$PATH\" HOME=\"$HOME\" cargo xtask {command}"
        );
    }
    Ok(())
}

/// Whether packages can be installed here: Debian of at least [`DEBIAN_FLOOR`], and root.
pub(crate) fn can_install_packages() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    debian_version(&release).is_some_and(|version| version >= DEBIAN_FLOOR) && is_root()
}

/// `$HOME`.
pub(crate) fn home() -> Result<PathBuf> {
    env::home_dir().context("HOME is not set")
}

/// `$CARGO_HOME`, where `cargo install` puts programs under `bin`.
pub(crate) fn cargo_home() -> Result<PathBuf> {
    directory("CARGO_HOME", ".cargo")
}

/// `$RUSTUP_HOME`, where rustup keeps toolchains.
pub(crate) fn rustup_home() -> Result<PathBuf> {
    directory("RUSTUP_HOME", ".rustup")
}

/// netd's own directory in the user's cache.
pub(crate) fn cache() -> Result<PathBuf> {
    Ok(directory("XDG_CACHE_HOME", ".cache")?.join("netd"))
}

fn directory(variable: &str, below_home: &str) -> Result<PathBuf> {
    match env::var_os(variable).filter(|value| !value.is_empty()) {
        Some(value) => Ok(value.into()),
        None => Ok(home()?.join(below_home)),
    }
}

/// `6.18.44-cloud` is (6, 18).
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The version of Debian that an os-release(5) file is of; `None` for other distributions and for Debian's unnumbered testing.
fn debian_version(release: &str) -> Option<u32> {
    let value = |key: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.trim_matches('"'))
    };
    (value("ID")? == "debian").then(|| value("VERSION_ID")?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases() {
        assert_eq!(kernel_version("6.6.0"), Some((6, 6)));
        assert_eq!(kernel_version("6.18.44-cloud"), Some((6, 18)));
        assert_eq!(kernel_version("5.15.0-91-generic"), Some((5, 15)));
        assert_eq!(kernel_version("7.0-rc1"), Some((7, 0)));
        assert_eq!(kernel_version("next"), None);
        assert!(kernel_version("6.10.1") > Some(KERNEL_FLOOR), "6.10 is not 6.1");
    }

    #[test]
    fn distributions() {
        assert_eq!(debian_version("PRETTY_NAME=\"Debian\"\nVERSION_ID=\"12\"\nID=debian\n"), Some(12));
        assert_eq!(debian_version("ID=ubuntu\nVERSION_ID=\"24.04\"\nID_LIKE=debian\n"), None);
        assert_eq!(debian_version("ID=debian\n"), None);
        assert_eq!(debian_version(""), None);
    }
}
