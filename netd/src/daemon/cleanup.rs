//! `netd daemon --cleanup`: the host as if there had never been a netd.

use std::{collections::BTreeMap, fs, io, os::unix::net::UnixStream, path::Path};

use anyhow::Context as _;
use nix::mount::{MntFlags, umount2};

use super::{bpffs, open_store};
use crate::{
    config::{Config, Host, PluginSocket},
    datapath::Datapath,
    engine::{release, stop_forwarding},
    link::{Grace, Links},
    plan::{self, Touched},
    store::{self, Lock},
};

/// Removes links, pins, sockets and state, each if it is there. The caller holds the lock, so no daemon runs.
pub(super) async fn run(config: &Config) -> anyhow::Result<()> {
    let grace = Grace::new(&config.run_dir);
    let state = config.state_dir.join(store::FILE);
    let is_known = state.exists();
    if is_known {
        let _expedited = grace.expedite();
        remove_links(&config.state_dir).await?;
    }
    let mut was_running = false;
    if let Some(bpffs) = bpffs::find(&config.run_dir) {
        let home = bpffs::home(&bpffs, &config.state_dir)?;
        was_running = home.exists();
        remove_pins(&home)?;
    }
    let own = config.run_dir.join(bpffs::OWN);
    // Another daemon, of another namespace, may have its pins there as well.
    if own.exists() && !has_directories(&own)? {
        // Not mounted, or mounted in a namespace that is no more: the directory is all there is.
        if let Err(error) = umount2(&own, MntFlags::empty())
            && error != nix::errno::Errno::EINVAL
        {
            return Err(error).with_context(|| format!("unmounting {}", own.display()));
        }
        remove_empty(&own)?;
    }
    for host in &config.hosts {
        if let Host::Unix(path) = host {
            remove_file(path)?;
        }
    }
    if let PluginSocket::At(path) | PluginSocket::Default(path) = &config.plugin
        && UnixStream::connect(path).is_err()
    {
        // Nobody listens there: another daemon's is another daemon's.
        remove_file(path)?;
    }
    remove_file(&state)?;
    remove_file(&config.state_dir.join(Lock::FILE))?;
    remove_empty(&config.state_dir)?;
    remove_empty(&config.run_dir)?;
    if was_running && !is_known {
        log::warn!(
            "{} is not there, and nothing else says which links and settings of the host are netd's: they stay, and its programs are \
             removed. `ip link` shows the links, `sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding` whether the host forwards",
            state.display()
        );
    } else {
        log::info!("all that netd made is removed");
    }
    Ok(())
}

async fn remove_links(state_dir: &Path) -> anyhow::Result<()> {
    let (_store, stored) = open_store(state_dir)?;
    let links = Links::here()?;
    release(&stored.state.reserved)?;
    stop_forwarding(&stored.state.forwards)?;
    let mut names = stored.journal;
    let world = plan::desired(&stored.state, &Touched::all(&stored.state));
    let (adopted, made): (BTreeMap<_, _>, BTreeMap<_, _>) =
        world.bridges.into_iter().partition(|(_, bridge)| bridge.adopted);
    names.extend(world.veths.into_keys().chain(made.into_keys()));
    for name in names {
        links.delete(&name).await?;
    }
    for (name, bridge) in adopted {
        if links.device(&name).await?.is_some() {
            links.set_bridge(&name, &bridge, &bridge.released()).await?;
        }
    }
    Ok(())
}

/// Removes the pins of every version of the map layouts.
fn remove_pins(home: &Path) -> anyhow::Result<()> {
    let versions = match fs::read_dir(home) {
        Ok(versions) => versions,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", home.display())),
    };
    for version in versions {
        Datapath::remove_pins(&version?.path())?;
    }
    remove_empty(home)
}

fn remove_file(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn has_directories(path: &Path) -> anyhow::Result<bool> {
    let entries = fs::read_dir(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(entries.filter_map(Result::ok).any(|entry| entry.path().is_dir()))
}

/// Removes a directory unless something of somebody else's is in it, or somebody has mounted something there.
fn remove_empty(path: &Path) -> anyhow::Result<()> {
    use io::ErrorKind::{DirectoryNotEmpty, NotFound, ResourceBusy};
    match fs::remove_dir(path) {
        Err(error) if !matches!(error.kind(), NotFound | DirectoryNotEmpty | ResourceBusy) => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}
