//! What is compared: a direct veth pair, the kernel's bridge with Docker's rules, and netd.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;

use super::{PORT, Route};
use crate::lab::{Container, Family, Host, Lab, Namespace, at};

/// Namespaces, and a path between them.
pub trait Setup {
    /// Its name in the report.
    fn name(&self) -> &'static str;

    /// The routes that it has; `None` is the way between the ends of a direct pair.
    fn routes(&self) -> &'static [Option<Route>];

    /// Who talks to whom.
    fn ends(&self, family: Family, route: Option<Route>) -> Ends<'_>;
}

/// The two ends of a load.
#[derive(Clone, Copy)]
pub struct Ends<'a> {
    /// Where the client is.
    pub client: &'a Namespace,
    /// Where the server is.
    pub server: &'a Namespace,
    /// Where the server listens.
    pub listen: SocketAddr,
    /// Where the client knocks.
    pub dial: SocketAddr,
}

impl<'a> Ends<'a> {
    /// The client knocks where the server listens.
    pub(super) fn plain(client: &'a Namespace, server: &'a Namespace, address: IpAddr) -> Self {
        let address = at(address, PORT);
        Self { client, server, listen: address, dial: address }
    }
}

pub(super) const ROUTES: &[Option<Route>] =
    &[Some(Route::Bridge), Some(Route::Masquerade), Some(Route::Published)];

/// Two namespaces joined by a veth pair: the measure of the others.
pub struct Direct {
    client: Container,
    server: Container,
}

impl Direct {
    /// Makes the pair.
    pub fn new() -> Self {
        let (client, server) = (Namespace::new("client"), Namespace::new("server"));
        client.ip(&format!("link add eth0 type veth peer name eth0 netns {}", server.name()));
        for (ns, host) in [(&client, 1), (&server, 2)] {
            ns.ip(&format!("address add 10.9.0.{host}/24 dev eth0"));
            ns.ip(&format!("address add fd00:9::{host}/64 dev eth0 nodad"));
            ns.ip("link set eth0 up");
        }
        client.await_carrier("eth0");
        server.await_carrier("eth0");
        Self { client: Container::of(client), server: Container::of(server) }
    }
}

impl Default for Direct {
    fn default() -> Self {
        Self::new()
    }
}

impl Setup for Direct {
    fn name(&self) -> &'static str {
        "direct pair"
    }

    fn routes(&self) -> &'static [Option<Route>] {
        &[None]
    }

    fn ends(&self, family: Family, _: Option<Route>) -> Ends<'_> {
        Ends::plain(&self.client.ns, &self.server.ns, self.server.address(family))
    }
}

/// A host with its containers, and the outside.
struct Hosted {
    lab: Lab,
    client: Container,
    server: Container,
}

impl Hosted {
    fn ends(&self, family: Family, route: Option<Route>) -> Ends<'_> {
        let (client, server) = (&self.client.ns, &self.server.ns);
        let published = |client, host| Ends {
            dial: at(host, PORT),
            ..Ends::plain(client, server, self.server.address(family))
        };
        match route {
            Some(Route::Masquerade) => Ends::plain(client, &self.lab.outside, family.outside()),
            Some(Route::Bridge) | None => Ends::plain(client, server, self.server.address(family)),
            Some(Route::Published) => published(&self.lab.outside, family.host()),
            Some(Route::Loopback) => published(&self.lab.host.ns, family.loopback()),
        }
    }
}

/// The kernel's bridge and conntrack, with the rules that dockerd 28 writes for its default bridge.
pub struct Docker(Hosted);

impl Docker {
    /// Makes the host and its containers.
    pub fn new() -> Self {
        let lab = Lab::wired();
        let host = &lab.host;
        host.ns.ip("link add docker0 type bridge");
        host.ns.ip("address add 172.17.0.1/16 dev docker0");
        host.ns.ip("address add fd00:17::1/64 dev docker0 nodad");
        host.ns.ip("link set docker0 up");
        host.ns.sysctl("net.ipv4.ip_forward", "1");
        host.ns.sysctl("net.ipv6.conf.all.forwarding", "1");
        // A host whose kernel does not have br_netfilter built in does not load it for Docker's defaults.
        for key in ["net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"] {
            if host.ns.has_sysctl(key) {
                host.ns.sysctl(key, "0");
            }
        }
        let container = |host_part: u8| {
            let (ns, port) = (Namespace::new("container"), format!("veth{host_part}"));
            ns.ip(&format!("link add eth0 type veth peer name {port} netns {}", host.ns.name()));
            ns.ip(&format!("address add 172.17.0.{host_part}/16 dev eth0"));
            ns.ip(&format!("address add fd00:17::{host_part}/64 dev eth0 nodad"));
            ns.ip("link set eth0 up");
            ns.ip("route add default via 172.17.0.1");
            ns.ip("-6 route add default via fd00:17::1");
            host.ns.ip(&format!("link set dev {port} master docker0 up"));
            ns.await_carrier("eth0");
            Container::of(ns)
        };
        let (client, server) = (container(2), container(3));
        restore(
            host,
            "iptables-restore",
            &rules("172.17.0.0/16", "127.0.0.0/8", &["172.17.0.2", "172.17.0.3"], "172.17.0.3"),
        );
        let containers = &["fd00:17::2", "fd00:17::3"];
        restore(host, "ip6tables-restore", &rules("fd00:17::/64", "::1/128", containers, "[fd00:17::3]"));
        Self(Hosted { lab, client, server })
    }
}

impl Default for Docker {
    fn default() -> Self {
        Self::new()
    }
}

/// The rules of one family, as moby v28's `libnetwork/drivers/bridge/internal/iptabler` writes them for a network of
/// gateway mode `nat` with `icc` and masquerade on, and one port of `server` published without a proxy.
/// <https://github.com/moby/moby/tree/v28.2.2/libnetwork/drivers/bridge/internal/iptabler>
fn rules(subnet: &str, loopback: &str, containers: &[&str], server: &str) -> String {
    let direct_access: String = containers
        .iter()
        .map(|address| format!("-A PREROUTING -d {address} ! -i docker0 -j DROP\n"))
        .collect();
    let address = server.trim_matches(['[', ']']);
    let per_protocol = |rule: &dyn Fn(&str) -> String| ["tcp", "udp"].map(rule).concat();
    let translate = per_protocol(&|protocol| {
        format!(
            "-A DOCKER ! -i docker0 -p {protocol} -m {protocol} --dport {PORT} -j DNAT --to-destination {server}:{PORT}\n"
        )
    });
    let accept = per_protocol(&|protocol| {
        format!(
            "-A DOCKER -d {address} ! -i docker0 -o docker0 -p {protocol} -m {protocol} --dport {PORT} -j ACCEPT\n"
        )
    });
    format!(
        "*raw
{direct_access}COMMIT
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d {loopback} -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s {subnet} ! -o docker0 -j MASQUERADE
{translate}COMMIT
*filter
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-BRIDGE - [0:0]
:DOCKER-CT - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
{accept}-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-BRIDGE -o docker0 -j DOCKER
-A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1
-A DOCKER-FORWARD -j DOCKER-BRIDGE
-A DOCKER-FORWARD -i docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
COMMIT
"
    )
}

fn restore(host: &Host, program: &str, rules: &str) {
    let mut child =
        host.command(program).stdin(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("{program}: {e}"));
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(rules.as_bytes()).unwrap_or_else(|e| panic!("{program}: {e}"));
    drop(input);
    let status = child.wait().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(status.success(), "{program}: {status}");
}

impl Setup for Docker {
    fn name(&self) -> &'static str {
        "kernel, Docker's rules"
    }

    fn routes(&self) -> &'static [Option<Route>] {
        ROUTES
    }

    fn ends(&self, family: Family, route: Option<Route>) -> Ends<'_> {
        self.0.ends(family, route)
    }
}

/// netd.
pub struct Netd(Hosted);

impl Netd {
    /// Makes the host, starts netd there and attaches its containers.
    pub fn new() -> Self {
        let lab = Lab::new();
        let (client, server) = (lab.container("client"), lab.container("server"));
        lab.host.netd(&format!("publish netns:{} {PORT}:{PORT} {PORT}:{PORT}/udp", server.ns.name()));
        Self(Hosted { lab, client, server })
    }
}

impl Default for Netd {
    fn default() -> Self {
        Self::new()
    }
}

impl Setup for Netd {
    fn name(&self) -> &'static str {
        "netd"
    }

    fn routes(&self) -> &'static [Option<Route>] {
        &[Some(Route::Bridge), Some(Route::Masquerade), Some(Route::Published), Some(Route::Loopback)]
    }

    fn ends(&self, family: Family, route: Option<Route>) -> Ends<'_> {
        self.0.ends(family, route)
    }
}
