//! What the daemon needs of the host.

use anyhow::{Context as _, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The first kernel with tcx.
const FLOOR: (u32, u32) = (6, 6);

/// Refuses to run without root, in one message.
pub(super) fn check_root() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the daemon changes links and loads programs into the kernel: it must run as root");
    }
    Ok(())
}

/// Refuses to run on a kernel that is too old, in one message.
pub(super) fn check_version() -> anyhow::Result<()> {
    let name = nix::sys::utsname::uname().context("asking for the kernel's version")?;
    let release = name.release().to_string_lossy();
    let version = version(&release).with_context(|| format!("reading the kernel's version `{release}`"))?;
    if version < FLOOR {
        let (major, minor) = FLOOR;
        bail!("this kernel is {release}: netd needs {major}.{minor} or later, for programs at tcx");
    }
    Ok(())
}

/// Lets the daemon have as many files open as it may allow itself: each connection is one.
pub(super) fn allow_many_files() -> anyhow::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("asking how many files may be open")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("setting how many files may be open")
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        assert_eq!(version("6.18.44-fc-v769"), Some((6, 18)));
        assert_eq!(version("6.6-rc1"), Some((6, 6)));
        assert_eq!(version("5.10.0"), Some((5, 10)));
        assert_eq!(version("linux"), None);
        assert!(version("6.5.13").unwrap() < FLOOR && version("10.0.1").unwrap() > FLOOR);
    }
}
