//! Debian packages.

use anyhow::{Context as _, Result};

use crate::{process, services::Quiet};

/// What compiles and links the datapath: a stable Rust with a prebuilt core library for eBPF, and the LLVM that bpf-linker is built on.
pub(crate) const COMPILER: &[&str] =
    &["rustc-web", "libstd-rust-web-dev-bpf", "llvm-22-dev", "libpolly-22-dev", "libzstd-dev", "zlib1g-dev"];

/// The linter of [`COMPILER`].
pub(crate) const LINTER: &str = "rust-web-clippy";

/// Programs that the tests run, each with the package that has it.
pub(crate) const TEST_PROGRAMS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("ethtool", "ethtool"),
    ("ping", "iputils-ping"),
    ("traceroute", "traceroute"),
    ("/usr/lib/cni/host-local", "containernetworking-plugins"),
    ("docker", "docker.io"),
    ("dockerd", "docker.io"),
    ("busybox", "busybox-static"),
    ("podman", "podman"),
    ("crun", "crun"),
];

/// Those of `packages` that are not installed; all of them where there is no dpkg.
pub(crate) fn missing(packages: &[&'static str]) -> Vec<&'static str> {
    let mut query = process::command("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status} ${Package}\n"]).args(packages);
    // dpkg-query exits with 1 if it does not know one of the packages, and still lists the others.
    let listed = query.output().map(|output| output.stdout).unwrap_or_default();
    let listed = String::from_utf8_lossy(&listed);
    let installed: Vec<_> = listed.lines().filter_map(|line| line.strip_prefix("installed ")).collect();
    packages.iter().copied().filter(|package| !installed.contains(package)).collect()
}

/// The packages of those programs that are not on the path.
pub(crate) fn missing_programs(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    programs
        .iter()
        .filter(|(program, _)| process::find(program).is_none())
        .map(|&(_, package)| package)
        .collect()
}

/// Installs `packages`, removing none and starting no service.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let quiet = Quiet::new()?;
    process::step("Debian's package lists", apt_get(&["update"]))?;
    let mut install = apt_get(&["install", "--yes", "--no-install-recommends", "--no-remove"]);
    install.args(packages);
    process::step(&format!("Debian packages {}", packages.join(" ")), install).context(
        "cannot install what is missing. It is all in Debian 12 with its security suite; a Rust of Debian's own \
         (rustc, rustup) conflicts with rustc-web and would have to be removed first",
    )?;
    quiet.end()
}

fn apt_get(arguments: &[&str]) -> std::process::Command {
    let mut apt = process::command("apt-get");
    // A fresh machine is often still installing its own updates.
    apt.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=300"]).args(arguments);
    apt
}
