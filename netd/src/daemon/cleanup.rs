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
    if config.state_dir.join(store::FILE).exists() {
        let _expedited = grace.expedite();
        remove_links(&config.state_dir).await?;
    }
    if let Some(bpffs) = bpffs::find(&config.run_dir) {
        remove_pins(&bpffs::home(&bpffs, &config.state_dir)?)?;
    }
    let own = config.run_dir.join(bpffs::OWN);
    if own.exists() {
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
    remove_file(&config.state_dir.join(store::FILE))?;
    remove_file(&config.state_dir.join(Lock::FILE))?;
    remove_empty(&config.state_dir)?;
    remove_empty(&config.run_dir)?;
    log::info!("all that netd made is removed");
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
