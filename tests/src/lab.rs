//! One host under test and the world around it:
//!
//! ```text
//! container --- eth0 ]--- network ---[ host: netd ]--- up0 ======= eth0 [ outside ]
//!                                      203.0.113.1                  203.0.113.10, .11
//!                                      2001:db8::1                  2001:db8::10, ::11
//! ```
//!
//! The outside knows no way back to a container's address, so what comes back was translated.

mod address;
mod capture;
mod certificates;
mod cni;
mod control_group;
mod craft;
mod daemon;
mod docker;
mod engine;
mod http;
mod image;
mod namespace;
mod offload;
mod ping;
mod podman;
mod socket;
mod transfer;
mod tunnel;
mod udp_stream;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::{Duration, Instant};

pub use address::Family;
pub use capture::{Capture, Icmp, Packet};
pub use certificates::Authority;
pub use cni::{Call, Cni, REFERENCE_PLUGINS};
pub use craft::{Datagram, RawLink, RawSocket};
pub use daemon::{Host, netd_binary};
pub use docker::Docker;
pub use engine::Engine;
pub use http::{Answer, get as http_get, read as http_read, send as http_send};
pub use namespace::Namespace;
pub use offload::set_offloads;
pub use ping::{Ping, checksum, ping};
pub use podman::Podman;
pub use socket::{ask, at, bound, close, connect, connect_from, udp};
pub use transfer::{TcpEcho, UdpEcho, transfer};
pub use tunnel::Tunnel;
pub use udp_stream::{Losses, UdpStream};

/// The host's address on its uplink.
pub const HOST4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The host's IPv6 address on its uplink.
pub const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The remote that containers talk to.
pub const OUTSIDE4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The same remote.
pub const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
/// Another address of the remote.
pub const OUTSIDE4_OTHER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);
/// Another address of the remote.
pub const OUTSIDE6_OTHER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11);
/// A remote behind a router, if the lab has one.
pub const BEHIND4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The same remote.
pub const BEHIND6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);

/// How long the lab waits for what must happen at once: ten seconds. On an emulated machine, where that is no time at all, as many
/// as `NETD_TEST_PATIENCE` said when the tests were compiled.
pub const PATIENCE: Duration = Duration::from_secs(match option_env!("NETD_TEST_PATIENCE") {
    None => 10,
    Some(seconds) => match u64::from_str_radix(seconds, 10) {
        Ok(seconds) => seconds,
        Err(_) => panic!("NETD_TEST_PATIENCE is no number of seconds"),
    },
});

/// The host under test and the outside.
pub struct Lab {
    /// Runs netd.
    pub host: Host,
    /// The remote, and the host's default gateway.
    pub outside: Namespace,
}

impl Lab {
    /// The host and the outside, wired; nothing runs on the host yet.
    pub fn wired() -> Self {
        let outside = Namespace::new("outside");
        let host = Host::new();
        outside.ip(&format!("link add eth0 type veth peer name up0 netns {}", host.ns.name()));
        for address in [OUTSIDE4.to_string() + "/24", OUTSIDE4_OTHER.to_string() + "/24"] {
            outside.ip(&format!("address add {address} dev eth0"));
        }
        // The kernel prefers the IPv6 address that came last.
        for address in [OUTSIDE6_OTHER.to_string() + "/64", OUTSIDE6.to_string() + "/64"] {
            outside.ip(&format!("address add {address} dev eth0 nodad"));
        }
        outside.ip("link set eth0 up");
        host.ns.ip(&format!("address add {HOST4}/24 dev up0"));
        host.ns.ip(&format!("address add {HOST6}/64 dev up0 nodad"));
        host.ns.ip("link set up0 up");
        host.ns.ip(&format!("route add default via {OUTSIDE4}"));
        host.ns.ip(&format!("-6 route add default via {OUTSIDE6}"));
        outside.await_carrier("eth0");
        host.ns.await_carrier("up0");
        Self { host, outside }
    }

    /// The same with netd running on the host, and beside its default network the network [`DUAL`].
    pub fn new() -> Self {
        let lab = Self::wired();
        lab.host.start(&[]);
        lab.host.netd(&format!("network create --ipv6 --subnet 172.30.0.0/24 --subnet fd00:30::/64 {DUAL}"));
        lab
    }

    /// A network behind the outside, which is a router to it then: the namespace at its far end. The router's link
    /// there takes packets up to `mtu` bytes, and those who send to it have to be told so.
    pub fn behind(&self, mtu: u32) -> Namespace {
        let behind = Namespace::new("behind");
        self.outside.ip(&format!("link add eth1 mtu {mtu} type veth peer name eth0 netns {}", behind.name()));
        self.outside.ip("address add 198.51.100.1/24 dev eth1");
        self.outside.ip("address add 2001:db8:1::1/64 dev eth1 nodad");
        self.outside.ip("link set eth1 up");
        self.outside.sysctl("net.ipv4.ip_forward", "1");
        self.outside.sysctl("net.ipv6.conf.all.forwarding", "1");
        behind.ip(&format!("address add {BEHIND4}/24 dev eth0"));
        behind.ip(&format!("address add {BEHIND6}/64 dev eth0 nodad"));
        behind.ip("link set eth0 up");
        behind.ip(&format!("route add default via 198.51.100.1 mtu {mtu} advmss 1460"));
        behind.ip(&format!("-6 route add default via 2001:db8:1::1 mtu {mtu} advmss 1440"));
        self.outside.await_carrier("eth1");
        behind.await_carrier("eth0");
        behind
    }

    /// Makes the host's uplink take packets up to `mtu` bytes. The outside sends no larger ones, but offers to
    /// receive some, so that those who send to it have to be told.
    pub fn narrow_uplink(&self, mtu: u32) {
        self.host.ns.ip(&format!("link set up0 mtu {mtu}"));
        self.outside
            .ip(&format!("route change 203.0.113.0/24 dev eth0 src {OUTSIDE4} mtu {mtu} advmss 1460"));
        self.outside.ip(&format!(
            "-6 route change 2001:db8::/64 dev eth0 proto kernel metric 256 mtu {mtu} advmss 1440"
        ));
    }

    /// A new container on [`DUAL`].
    pub fn container(&self, role: &str) -> Container {
        self.container_on(DUAL, role)
    }

    /// A new container on a network.
    pub fn container_on(&self, network: &str, role: &str) -> Container {
        let ns = Namespace::new(role);
        self.host.netd(&format!("network connect {network} netns:{}", ns.name()));
        Container::of(ns)
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

/// The network of both families that [`Lab::new`] makes: 172.30.0.0/24 and fd00:30::/64.
pub const DUAL: &str = "dual";

/// A namespace with an `eth0` on one of the host's networks.
pub struct Container {
    /// Its network namespace.
    pub ns: Namespace,
    /// Its address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address, if its network has that family.
    pub ipv6: Option<Ipv6Addr>,
}

impl Container {
    /// A namespace whose `eth0` has its addresses.
    pub fn of(ns: Namespace) -> Self {
        let addresses = address::global(&ns, "eth0");
        let ipv4 = addresses.iter().find_map(|a| match a {
            IpAddr::V4(ipv4) => Some(*ipv4),
            IpAddr::V6(_) => None,
        });
        let ipv6 = addresses.iter().find_map(|a| match a {
            IpAddr::V4(_) => None,
            IpAddr::V6(ipv6) => Some(*ipv6),
        });
        let ipv4 = ipv4.unwrap_or_else(|| panic!("{} has no IPv4 address on eth0: {addresses:?}", ns.name()));
        Self { ns, ipv4, ipv6 }
    }

    /// Its gateway of a family, by its default route.
    pub fn gateway(&self, family: Family) -> IpAddr {
        let version = if family == Family::V4 { "-4" } else { "-6" };
        let json = self.ns.ip(&format!("-json {version} route show default"));
        let routes: serde_json::Value = serde_json::from_str(&json).expect("ip -json");
        let gateway = routes[0]["gateway"].as_str().unwrap_or_else(|| panic!("no default route: {json}"));
        gateway.parse().expect("an address of ip -json")
    }

    /// Its address of a family.
    pub fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.ipv4.into(),
            Family::V6 => self.ipv6.expect("the container's network has no IPv6").into(),
        }
    }
}

/// Waits until something is so, and panics if it is not within [`PATIENCE`].
pub fn until(what: &str, is_so: impl FnMut() -> bool) {
    assert!(comes_true(PATIENCE, is_so), "not within {PATIENCE:?}: {what}");
}

/// Waits until something is so, or has not become so for as long as `patience` lasts.
fn comes_true(patience: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !is_so() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}
