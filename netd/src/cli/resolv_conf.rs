//! The resolver's configuration that a command of `netd run` sees: its network's name server.

use std::{
    fs,
    io::Write as _,
    net::IpAddr,
    path::{Path, PathBuf},
    process,
};

use anyhow::Context as _;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::client::{Client, escape};
use crate::api::view::Names;

/// Where programs look.
const PATH: &str = "/etc/resolv.conf";

/// A resolv.conf(5), gone when this is dropped; who has it in sight keeps it.
#[derive(Debug)]
pub(super) struct ResolvConf {
    path: PathBuf,
}

impl ResolvConf {
    /// For the endpoints of `network`; `None` if nobody serves its names, or programs have no place to look.
    pub(super) async fn of(client: &Client, network: &str) -> anyhow::Result<Option<Self>> {
        #[derive(serde::Deserialize)]
        struct Inspected {
            #[serde(rename = "Id")]
            id: String,
        }
        let Ok(host) = fs::read_to_string(PATH) else { return Ok(None) };
        let inspected: Inspected =
            client.parse(&client.get(&format!("/networks/{}", escape(network))).await?)?;
        let networks: Vec<Names> = client.parse(&client.get("/netd/names").await?)?;
        let Some(names) = networks.into_iter().find(|names| names.network_id == inspected.id) else {
            return Ok(None);
        };
        let path = std::env::temp_dir().join(format!("netd-run-{}.resolv.conf", process::id()));
        let cannot = || format!("cannot write {}", path.display());
        let mut file = fs::File::create_new(&path).with_context(cannot)?;
        let made = Self { path: path.clone() };
        file.write_all(text(&host, &names.servers).as_bytes()).with_context(cannot)?;
        Ok(Some(made))
    }

    /// Puts it into the sight of the calling thread and its children, and of nobody else.
    pub(super) fn show(&self) -> nix::Result<()> {
        let none: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
        mount(Some(&self.path), Path::new(PATH), none, MsFlags::MS_BIND, none)
    }
}

impl Drop for ResolvConf {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            eprintln!("netd: {} stays: {error}", self.path.display());
        }
    }
}

/// The host's own with other servers. A bare name is asked for as it is: the server knows those of the network.
fn text(host: &str, servers: &[IpAddr]) -> String {
    let kept =
        host.lines().filter(|line| matches!(line.split_whitespace().next(), Some("search" | "domain")));
    let servers = servers.iter().map(|server| format!("nameserver {server}"));
    let lines = servers.chain(kept.map(str::to_owned)).chain(["options ndots:0".to_owned()]);
    lines.map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_are_the_networks_and_the_search_list_the_hosts() {
        let host = "# made by hand\nnameserver 10.0.0.1\nsearch example.org\noptions edns0\n";
        let servers = ["172.17.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        assert_eq!(
            text(host, &servers),
            "nameserver 172.17.0.1\nnameserver fd00::1\nsearch example.org\noptions ndots:0\n"
        );
    }
}
