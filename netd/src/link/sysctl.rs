//! Kernel settings under net.*, each in the network namespace of the calling thread.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _, Seek as _, Write as _},
    os::fd::{AsRawFd as _, OwnedFd},
};

use netd_common::nat::PortRange;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::{Doing as _, Error};
use crate::model::PortSet;

/// The settings, as one mount of procfs shows them.
pub struct Tree {
    /// /proc, if absent.
    mount: Option<OwnedFd>,
}

/// What everybody uses.
const SHARED: Tree = Tree { mount: None };

impl Tree {
    /// A mount that nobody else uses, for a namespace that is one of many. A mount remembers each name of each namespace that was
    /// asked for by it and looks through all of them, which with a thousand namespaces takes milliseconds.
    /// <https://github.com/torvalds/linux/blob/v6.18/fs/proc/proc_sysctl.c>, `proc_sys_compare`
    pub fn own() -> Self {
        let mount = || {
            let proc = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_create(&proc)?;
            fsmount(&proc, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        };
        // Who may not mount has the other one still.
        Self { mount: mount().ok() }
    }

    fn path(&self, name: &str) -> String {
        match &self.mount {
            Some(mount) => format!("/proc/self/fd/{}/sys/net/{name}", mount.as_raw_fd()),
            None => format!("/proc/sys/net/{name}"),
        }
    }

    /// Reads a setting, for instance `ipv4/ip_forward`. `None` where the kernel has no such setting.
    pub fn read(&self, name: &str) -> Result<Option<String>, Error> {
        match fs::read_to_string(self.path(name)) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).doing(|| format!("read net/{name}")),
        }
    }

    /// Writes a setting unless it has the value already: some do more than take the value when written.
    pub fn write(&self, name: &str, value: &str) -> Result<(), Error> {
        self.set(name, value).doing(|| format!("set net/{name} to {value}"))
    }

    /// The same, of a setting that the kernel may not have.
    fn write_if_there(&self, name: &str, value: &str) -> Result<(), Error> {
        match self.set(name, value) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.doing(|| format!("set net/{name} to {value}")),
        }
    }

    /// Opens it once: to find it takes longer than to read and write it.
    fn set(&self, name: &str, value: &str) -> io::Result<()> {
        let path = self.path(name);
        let mut file = match fs::File::options().read(true).write(true).open(&path) {
            // What cannot be written may have the value already.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                return if fs::read_to_string(path)?.trim() == value { Ok(()) } else { Err(error) };
            }
            opened => opened?,
        };
        if io::read_to_string(&file)?.trim() == value {
            return Ok(());
        }
        file.rewind()?;
        file.write_all(value.as_bytes())
    }

    /// Whether a link has IPv6.
    pub fn has_ipv6(&self, link: &str) -> Result<bool, Error> {
        Ok(self.read(&disable_ipv6(link))?.as_deref() == Some("0"))
    }

    /// Gives a link IPv6, or takes it away. A kernel without IPv6 has nothing to take away.
    pub fn set_ipv6(&self, link: &str, on: bool) -> Result<(), Error> {
        let name = disable_ipv6(link);
        if on { self.write(&name, "0") } else { self.write_if_there(&name, "1") }
    }

    /// Whether a link's IPv6 addresses of the kernel's choice come of its MAC address (`IN6_ADDR_GEN_MODE_EUI64`).
    pub fn addresses_follow_mac(&self, link: &str) -> Result<bool, Error> {
        Ok(self.read(&format!("ipv6/conf/{link}/addr_gen_mode"))?.as_deref() == Some("0"))
    }
}

fn disable_ipv6(link: &str) -> String {
    format!("ipv6/conf/{link}/disable_ipv6")
}

fn read(name: &str) -> Result<Option<String>, Error> {
    SHARED.read(name)
}

fn write(name: &str, value: &str) -> Result<(), Error> {
    SHARED.write(name, value)
}

/// The ports that the host's own sockets are given.
pub fn local_port_range() -> Result<PortRange, Error> {
    let name = "ipv4/ip_local_port_range";
    let text = read(name)?.unwrap_or_default();
    let mut ports = text.split_whitespace().map(str::parse);
    match (ports.next(), ports.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Ok(PortRange { first, last }),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is `{text}`")))
            .doing(|| format!("read net/{name}")),
    }
}

const RESERVED_PORTS: &str = "ipv4/ip_local_reserved_ports";

/// The ports that the host's own sockets are never given unless they ask for them.
pub fn reserved_ports() -> Result<PortSet, Error> {
    // The kernel writes it all at once or not at all: a second read finds the end.
    let mut text = vec![0; 512 * 1024];
    let read =
        fs::File::open(format!("/proc/sys/net/{RESERVED_PORTS}")).and_then(|mut file| file.read(&mut text));
    let length = read.doing(|| format!("read net/{RESERVED_PORTS}"))?;
    let text = String::from_utf8_lossy(&text[..length]);
    let parsed = text.trim().parse();
    parsed
        .map_err(|reason: String| io::Error::new(io::ErrorKind::InvalidData, reason))
        .doing(|| format!("read net/{RESERVED_PORTS}"))
}

/// Reserves these ports and no others.
pub fn reserve_ports(ports: &PortSet) -> Result<(), Error> {
    /// The kernel takes less than a page at once, and adds what comes later by the same descriptor.
    const CHUNK: usize = 4000;
    let mut chunks = vec![String::new()];
    for range in ports.ranges() {
        let text = range.to_string();
        match chunks.last_mut() {
            Some(chunk) if chunk.len() + text.len() < CHUNK => {
                if !chunk.is_empty() {
                    chunk.push(',');
                }
                chunk.push_str(&text);
            }
            _ => chunks.push(text),
        }
    }
    let write = || {
        let mut file = fs::File::options().write(true).open(format!("/proc/sys/net/{RESERVED_PORTS}"))?;
        chunks.iter().try_for_each(|chunk| file.write_all(format!("{chunk}\n").as_bytes()))
    };
    write().doing(|| format!("set net/{RESERVED_PORTS}"))
}

const FORWARD_IPV4: &str = "ipv4/ip_forward";
/// Present links, and future ones.
const FORWARD_IPV6: [&str; 2] = ["ipv6/conf/all/forwarding", "ipv6/conf/default/forwarding"];

/// Whether IPv4 is forwarded.
pub fn forwards_ipv4() -> Result<bool, Error> {
    Ok(read(FORWARD_IPV4)?.as_deref() != Some("0"))
}

/// Whether IPv6 is forwarded, or there is none.
pub fn forwards_ipv6() -> Result<bool, Error> {
    Ok(read(FORWARD_IPV6[0])?.is_none_or(|value| value != "0"))
}

/// The links that forward IPv4, by a setting of each; `default` stands for those to come.
pub fn links_forwarding_ipv4() -> Result<BTreeSet<String>, Error> {
    links_forwarding("ipv4")
}

/// The links that forward IPv6, by a setting of each; `default` stands for those to come.
pub fn links_forwarding_ipv6() -> Result<BTreeSet<String>, Error> {
    links_forwarding("ipv6")
}

fn links_forwarding(family: &str) -> Result<BTreeSet<String>, Error> {
    let list = || -> io::Result<Vec<_>> { fs::read_dir(format!("/proc/sys/net/{family}/conf"))?.collect() };
    let mut forwarding = BTreeSet::new();
    for entry in list().doing(|| format!("list net/{family}/conf"))? {
        let link = entry.file_name().to_string_lossy().into_owned();
        if link != "all" && read(&forwarding_of(family, &link))?.is_some_and(|value| value != "0") {
            forwarding.insert(link);
        }
    }
    Ok(forwarding)
}

fn forwarding_of(family: &str, link: &str) -> String {
    format!("{family}/conf/{link}/forwarding")
}

/// Switches IPv4 forwarding on, for present and future links.
pub fn forward_ipv4() -> Result<(), Error> {
    write(FORWARD_IPV4, "1")
}

/// Switches IPv6 forwarding on, for present and future links.
pub fn forward_ipv6() -> Result<(), Error> {
    FORWARD_IPV6.into_iter().try_for_each(|name| write(name, "1"))
}

/// Switches IPv4 forwarding off, for present and future links but those that are named.
pub fn stop_forwarding_ipv4(but: &BTreeSet<String>) -> Result<(), Error> {
    write(FORWARD_IPV4, "0")?;
    forward_still("ipv4", but)
}

/// Switches IPv6 forwarding off, for present and future links but those that are named.
pub fn stop_forwarding_ipv6(but: &BTreeSet<String>) -> Result<(), Error> {
    FORWARD_IPV6.into_iter().try_for_each(|name| write(name, "0"))?;
    forward_still("ipv6", but)
}

fn forward_still(family: &str, links: &BTreeSet<String>) -> Result<(), Error> {
    links.iter().try_for_each(|link| SHARED.write_if_there(&forwarding_of(family, link), "1"))
}

/// Whether a link takes router advertisements, and would not on a host that forwards: a router takes none.
pub fn heeds_routers(link: &str) -> Result<bool, Error> {
    Ok(read(&accept_ra(link))?.as_deref() == Some("1"))
}

/// Has a link take router advertisements whether the host forwards or not.
pub fn always_heed_routers(link: &str) -> Result<(), Error> {
    write(&accept_ra(link), "2")
}

/// Undoes [`always_heed_routers`], if the link is there and nobody has changed it since.
pub fn heed_routers_as_before(link: &str) -> Result<(), Error> {
    if read(&accept_ra(link))?.as_deref() == Some("2") { write(&accept_ra(link), "1") } else { Ok(()) }
}

fn accept_ra(link: &str) -> String {
    format!("ipv6/conf/{link}/accept_ra")
}

/// Gives a link of the host's IPv6, or takes it away, as [`Tree::set_ipv6`] does.
pub fn set_ipv6(link: &str, on: bool) -> Result<(), Error> {
    SHARED.set_ipv6(link, on)
}

/// Makes a link deaf to router advertisements: a container could send them.
pub fn refuse_router_advertisements(link: &str) -> Result<(), Error> {
    SHARED.write_if_there(&accept_ra(link), "0")
}

/// Has a link keep its IPv6 addresses while it is down, as those of IPv4 stay: the kernel would forget them.
pub fn keep_addresses(link: &str) -> Result<(), Error> {
    SHARED.write_if_there(&format!("ipv6/conf/{link}/keep_addr_on_down"), "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_may_be_so_already() {
        // The kernel lets nobody write this one.
        let name = "ipv4/conf/lo/mc_forwarding";
        for tree in [SHARED, Tree::own()] {
            assert_eq!(tree.read(name).unwrap().as_deref(), Some("0"));
            tree.write(name, "0").unwrap();
            assert_eq!(tree.write(name, "1").unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        }
    }
}
