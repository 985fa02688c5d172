//! `netd cni install` and `uninstall`: where runtimes look for plugins and for the networks to use.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::Args;
use ipnet::IpNet;
use serde_json::{Value, json};

use super::{NAME, config, version::SpecVersion};
use crate::cli;

/// Names under which runtimes find the binary: the first is what a configuration's `type` says.
const LINKS: [&str; 2] = ["netd", NAME];

/// Where the files are.
#[derive(Clone, Debug, Args)]
pub struct Directories {
    /// Where runtimes look for plugins
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    bin_dir: PathBuf,
    /// Where runtimes look for networks
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    conf_dir: PathBuf,
    /// Name of the network
    #[arg(long, default_value = "netd")]
    name: String,
}

/// What `install` writes.
#[derive(Clone, Debug, Args)]
pub struct Install {
    #[command(flatten)]
    directories: Directories,
    /// Subnet of the network, at most one of each family [default: the next one that is free]
    #[arg(long, value_name = "CIDR")]
    subnet: Vec<IpNet>,
    /// The daemon's socket, if it is not the usual one
    #[arg(long, value_name = "URL")]
    socket: Option<String>,
}

impl Directories {
    fn list(&self) -> PathBuf {
        self.conf_dir.join(format!("10-{}.conflist", self.name))
    }
}

/// Links the binary, and writes the list of plugins of one network.
pub fn install(install: &Install) -> anyhow::Result<()> {
    let Install { directories, subnet, socket } = install;
    if config::check_name(&directories.name).is_err() {
        bail!(
            "invalid --name {}: it begins with a letter or digit, and goes on with these and `_.-`",
            directories.name
        );
    }
    for (index, net) in subnet.iter().enumerate() {
        if *net != net.trunc() {
            bail!("invalid --subnet {net}: it should be {}", net.trunc());
        }
        let same_family = |other: &&IpNet| other.addr().is_ipv4() == net.addr().is_ipv4();
        if let Some(other) = subnet[..index].iter().find(same_family) {
            bail!("invalid --subnet {net}: {other} is of that family already");
        }
    }
    if let Some(socket) = socket {
        cli::reach(socket, None).map_err(anyhow::Error::msg).context("invalid --socket")?;
    }
    let binary = std::env::current_exe().context("finding this binary")?;
    let list = directories.list();
    // What is somebody else's is told before anything is written.
    if list.exists() && !is_own_list(&list) {
        bail!("{} is there already, and not netd's", list.display());
    }
    for link in LINKS.map(|name| directories.bin_dir.join(name)) {
        if link.symlink_metadata().is_ok() && !is_own_link(&link) {
            bail!("{} is there already, and not netd's", link.display());
        }
    }
    for directory in [&directories.bin_dir, &directories.conf_dir] {
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    }
    for link in LINKS.map(|name| directories.bin_dir.join(name)) {
        remove(&link)?;
        symlink(&binary, &link).with_context(|| format!("making {}", link.display()))?;
    }
    let mut text = serde_json::to_string_pretty(&content(&directories.name, subnet, socket.as_deref()))?;
    text.push('\n');
    // A runtime that watches the directory must not see half a file.
    let unfinished = list.with_extension("unfinished");
    fs::write(&unfinished, text).with_context(|| format!("writing {}", unfinished.display()))?;
    fs::rename(&unfinished, &list).with_context(|| format!("writing {}", list.display()))
}

/// Removes what `install` made, and nothing else. The links stay as long as another network needs them.
pub fn uninstall(directories: &Directories) -> anyhow::Result<()> {
    let list = directories.list();
    if list.exists() && !is_own_list(&list) {
        bail!("{} is not netd's", list.display());
    }
    // The list first: without it no runtime calls the plugin any more.
    remove(&list)?;
    if has_own_list(&directories.conf_dir)? {
        return Ok(());
    }
    for link in LINKS.map(|name| directories.bin_dir.join(name)) {
        if is_own_link(&link) {
            remove(&link)?;
        }
    }
    Ok(())
}

fn content(name: &str, subnets: &[IpNet], socket: Option<&str>) -> Value {
    let mut plugin = json!({
        "type": LINKS[0],
        "isGateway": true,
        "ipMasq": true,
        "capabilities": {
            "portMappings": true,
            "bandwidth": true,
            "ips": true,
            "mac": true,
            "ipRanges": true,
            "dns": true,
            "aliases": true,
        },
    });
    if !subnets.is_empty() {
        let ranges: Vec<_> = subnets.iter().map(|subnet| json!([{"subnet": subnet.trunc()}])).collect();
        plugin["ipam"] = json!({"type": LINKS[0], "ranges": ranges});
    }
    if let Some(socket) = socket {
        plugin["socket"] = socket.into();
    }
    // Runtimes of today know 1.0.0; those that know more choose from the list.
    let versions = [SpecVersion::V0_4_0, SpecVersion::V1_0_0, SpecVersion::V1_1_0].map(SpecVersion::text);
    json!({
        "cniVersion": SpecVersion::V1_0_0.text(),
        "cniVersions": versions,
        "name": name,
        "plugins": [plugin],
    })
}

/// Whether a file is a list whose first plugin is netd.
fn is_own_list(path: &Path) -> bool {
    let Ok(text) = fs::read(path) else { return false };
    let value: Value = serde_json::from_slice(&text).unwrap_or_default();
    value["plugins"][0]["type"].as_str().is_some_and(|kind| LINKS.contains(&kind))
}

/// Whether there is a network of netd's in a directory.
fn has_own_list(directory: &Path) -> anyhow::Result<bool> {
    let reading = || format!("reading {}", directory.display());
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries.with_context(reading)?,
    };
    for entry in entries {
        if is_own_list(&entry.with_context(reading)?.path()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a file is a link to a netd, wherever that is.
fn is_own_link(path: &Path) -> bool {
    fs::read_link(path).is_ok_and(|target| target.file_name().is_some_and(|name| name == LINKS[0]))
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_links_stay_for_the_other_networks() {
        let directory = tempfile::tempdir().unwrap();
        let directories = |name: &str| Directories {
            bin_dir: directory.path().join("bin"),
            conf_dir: directory.path().join("conf"),
            name: name.into(),
        };
        let links = LINKS.map(|name| directory.path().join("bin").join(name));
        for made in ["bin", "conf"] {
            fs::create_dir(directory.path().join(made)).unwrap();
        }
        for name in ["n1", "n2"] {
            fs::write(directories(name).list(), content(name, &[], None).to_string()).unwrap();
        }
        for link in &links {
            symlink("/nowhere/netd", link).unwrap();
        }
        let are_there = || links.iter().all(|link| link.symlink_metadata().is_ok());
        for name in ["n3", "n1"] {
            uninstall(&directories(name)).unwrap();
            assert!(!directories(name).list().exists() && are_there());
        }
        // As often as one likes, and where only the links are left.
        fs::remove_file(directories("n2").list()).unwrap();
        for _ in 0..2 {
            uninstall(&directories("n2")).unwrap();
        }
        assert!(links.iter().all(|link| link.symlink_metadata().is_err()));
    }

    #[test]
    fn what_is_somebody_else_s_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let directories = Directories {
            bin_dir: directory.path().join("bin"),
            conf_dir: directory.path().join("conf"),
            name: "n1".into(),
        };
        fs::create_dir_all(&directories.bin_dir).unwrap();
        fs::create_dir_all(&directories.conf_dir).unwrap();
        let (other, list) = (directories.bin_dir.join("bridge"), directories.list());
        fs::write(&other, "x").unwrap();
        fs::write(&list, r#"{"name": "n1", "plugins": [{"type": "bridge"}]}"#).unwrap();
        let request = Install { directories: directories.clone(), subnet: Vec::new(), socket: None };
        let error = install(&request).unwrap_err().to_string();
        assert!(error.ends_with("not netd's"), "{error}");
        assert!(uninstall(&directories).unwrap_err().to_string().ends_with("not netd's"));
        assert!(list.exists() && other.exists());
        fs::remove_file(&list).unwrap();
        fs::write(directories.bin_dir.join("netd"), "x").unwrap();
        assert!(install(&request).unwrap_err().to_string().ends_with("not netd's"));
        assert!(!list.exists());
    }
}
