//! Who may speak to whom: the verdict table of the reference's section 1.3, and its cases by their number.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use netd_tests::lab::{
    Capture, Family, HOST4, HOST6, Lab, Namespace, TcpEcho, UdpEcho, ask, at, connect, udp, until,
};
use netd_tests::lab::{PATIENCE, Ping, ping};
use serde_json::Value;

/// How a network of the table is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Nat,
    Trusted,
    Unprotected,
    Routed,
    Internal,
    Isolated,
}

/// A network with two containers, each with servers on ports 80, which is published, and 81, which is not.
struct Net {
    name: String,
    mode: Mode,
    icc: bool,
    ends: [End; 2],
}

struct End {
    ns: Namespace,
    ipv4: Ipv4Addr,
    ipv6: IpAddr,
    servers: Vec<UdpEcho>,
}

impl End {
    fn address(&self, family: Family) -> IpAddr {
        if family == Family::V4 { self.ipv4.into() } else { self.ipv6 }
    }
}

impl Net {
    fn new(lab: &Lab, number: usize, mode: Mode, icc: bool) -> Self {
        let name = format!("{}{}", format!("{mode:?}").to_lowercase(), if icc { "" } else { "-noicc" });
        let option = |mode: &str| {
            let prefix = "-o com.docker.network.bridge.gateway_mode_ipv";
            format!("{prefix}4={mode} {prefix}6={mode}")
        };
        let mut flags = match mode {
            Mode::Nat => String::new(),
            Mode::Trusted => "-o com.docker.network.bridge.trusted_host_interfaces=absent0:up0".into(),
            Mode::Unprotected => option("nat-unprotected"),
            Mode::Routed => option("routed"),
            Mode::Internal => "--internal".into(),
            Mode::Isolated => format!("--internal {}", option("isolated")),
        };
        if !icc {
            flags += " -o com.docker.network.bridge.enable_icc=false";
        }
        let subnets = format!("--subnet 10.9.{number}.0/24 --subnet fd09:{number}::/64");
        lab.host.netd(&format!("network create --ipv6 {subnets} {flags} {name}"));
        let ends = ["a", "b"].map(|role| {
            let ns = Namespace::new(role);
            lab.host.netd(&format!("network connect {name} netns:{}", ns.name()));
            let text = ns.ip("-oneline address show dev eth0 scope global");
            let mut addresses =
                text.split_whitespace().filter_map(|word| word.split_once('/')?.0.parse().ok());
            let mut address = |is_wanted: fn(&IpAddr) -> bool| {
                addresses.find(is_wanted).unwrap_or_else(|| panic!("an address: {text}"))
            };
            let IpAddr::V4(ipv4) = address(IpAddr::is_ipv4) else { unreachable!("an IPv4 address") };
            let ipv6 = address(IpAddr::is_ipv6);
            if mode != Mode::Internal && mode != Mode::Isolated {
                lab.host.netd(&format!("publish netns:{} 80/udp 80/tcp", ns.name()));
            }
            let mut servers = Vec::new();
            for address in [ipv4.into(), ipv6] {
                servers.extend([80, 81].map(|port| UdpEcho::new(&ns, at(address, port))));
            }
            End { ns, ipv4, ipv6, servers }
        });
        let net = Self { name, mode, icc, ends };
        net.break_out(lab, number);
        net
    }

    /// Whoever is root in a container of a network without a way out makes one for himself.
    fn break_out(&self, lab: &Lab, number: usize) {
        if !self.is_closed() {
            return;
        }
        let links: Value =
            serde_json::from_str(&lab.host.ns.ip("-json link show type bridge")).expect("ip -json");
        let network = inspect(lab, &self.name);
        let id = network["Id"].as_str().expect("an id");
        let bridge = format!("br-{}", &id[..12]);
        let link = links.as_array().expect("a list").iter().find(|link| link["ifname"] == *bridge);
        let mac = link.expect("the bridge")["address"].as_str().expect("a MAC").to_owned();
        // An isolated network has no gateway, but the bridge has a MAC.
        let last = if self.mode == Mode::Isolated { 99 } else { 1 };
        for end in &self.ends {
            for (version, gateway) in
                [("-4", format!("10.9.{number}.{last}")), ("-6", format!("fd09:{number}::{last}"))]
            {
                if self.mode == Mode::Isolated {
                    end.ns.ip(&format!(
                        "{version} neigh replace {gateway} lladdr {mac} nud permanent dev eth0"
                    ));
                }
                end.ns.ip(&format!("{version} route add default via {gateway} dev eth0"));
            }
        }
    }

    fn is_closed(&self) -> bool {
        matches!(self.mode, Mode::Internal | Mode::Isolated)
    }
}

fn inspect(lab: &Lab, network: &str) -> Value {
    let json = lab.host.netd(&format!("network inspect {network}"));
    let mut networks: Vec<Value> = serde_json::from_str(&json).expect("JSON");
    networks.remove(0)
}

/// Who asks.
enum From<'a> {
    Neighbour(&'a Net),
    Other(&'a Net),
    Outside(&'a Namespace),
    Host(&'a Namespace),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    Ping,
    Published,
    Unpublished,
}

/// The table: why what is asked is dropped, if it is.
fn verdict(from: &From, to: &Net, probe: Probe) -> Option<&'static str> {
    match from {
        From::Neighbour(net) => (!net.icc).then_some("icc"),
        From::Host(_) => None,
        From::Other(net) if net.is_closed() => Some("internal"),
        _ if to.is_closed() => Some("internal"),
        _ if to.mode == Mode::Routed => (probe == Probe::Unpublished).then_some("unpublished"),
        From::Other(_) => Some("isolated"),
        From::Outside(_) => match (to.mode, probe) {
            (Mode::Unprotected, _) | (Mode::Trusted, Probe::Published) => None,
            _ => Some("direct_access"),
        },
    }
}

/// How many packets were dropped, by reason.
fn drops(lab: &Lab) -> Value {
    let (_, stats) = lab.host.get("/netd/stats").expect("the daemon answers");
    serde_json::from_str::<Value>(&stats).expect("JSON")["drops"].take()
}

fn dropped(lab: &Lab, reason: &str) -> u64 {
    drops(lab)[reason].as_u64().unwrap_or_else(|| panic!("no such reason: {reason}"))
}

/// What was asked and ought to be dropped: how often for each reason, and who must hear nothing.
#[derive(Default)]
struct Denied {
    reasons: BTreeMap<&'static str, u64>,
    silent: Vec<(String, UdpSocket)>,
}

impl Denied {
    /// Each of them was dropped, for its own reason, and none was answered.
    fn hold(self, lab: &Lab, before: &Value, to: &str) {
        for (reason, times) in self.reasons {
            let before = before[reason].as_u64().expect("a number");
            let what = format!("{times} packets to {to} are dropped as {reason}");
            until(&what, || dropped(lab, reason) >= before + times);
        }
        for (case, socket) in self.silent {
            socket.set_nonblocking(true).expect("a socket's mode");
            let answer = socket.recv_from(&mut [0; 16]);
            assert!(answer.is_err(), "{case}: answered by {answer:?}");
        }
    }
}

/// Asks, and holds the answer against the table; or leaves it to `denied` that there is none.
fn check(denied: &mut Denied, from: &From, to: &Net, family: Family, probe: Probe) {
    let (asker, name) = match from {
        From::Neighbour(net) | From::Other(net) => (&net.ends[0].ns, net.name.as_str()),
        From::Outside(ns) => (*ns, "outside"),
        From::Host(ns) => (*ns, "host"),
    };
    let (server, case) = (&to.ends[1], format!("{name} to {}, {family:?}, {probe:?}", to.name));
    let address = server.address(family);
    let reason = verdict(from, to, probe);
    if let Some(reason) = reason {
        *denied.reasons.entry(reason).or_default() += 1;
    }
    if probe == Probe::Ping {
        let patience = reason.map_or(PATIENCE, |_| Duration::from_millis(1));
        let answered = ping(asker, address, Ping { patience, ..Ping::default() });
        assert_eq!(answered, reason.is_none(), "{case}");
        return;
    }
    let to = at(address, if probe == Probe::Published { 80 } else { 81 });
    let socket = udp(asker, family, 0);
    if reason.is_some() {
        socket.send_to(b"hello", to).unwrap_or_else(|e| panic!("{case}: {e}"));
        denied.silent.push((case, socket));
        return;
    }
    assert_eq!(ask(&socket, to, b"hello"), b"hello", "{case}");
    source_is_kept(from, server, to, &socket, &case);
}

/// T65: nobody on the way has put another address in the place of the sender's.
fn source_is_kept(from: &From, server: &End, asked: SocketAddr, socket: &UdpSocket, case: &str) {
    let (From::Neighbour(net) | From::Other(net)) = from else { return };
    let family = if asked.is_ipv4() { Family::V4 } else { Family::V6 };
    let wanted = at(net.ends[0].address(family), socket.local_addr().expect("a port").port());
    let seen = server.servers.iter().find(|it| it.address == asked).expect("a server").peers();
    assert_eq!(seen.last(), Some(&wanted), "{case}");
}

/// The outside knows the way to the containers' own addresses.
fn route(lab: &Lab) {
    lab.outside.ip(&format!("route add 10.9.0.0/16 via {HOST4}"));
    lab.outside.ip(&format!("-6 route add fd09::/16 via {HOST6}"));
}

#[test]
fn t38_t39_t41_t56_the_verdict_table() {
    let lab = Lab::wired();
    lab.host.start(&[]);
    route(&lab);
    let modes = [Mode::Nat, Mode::Trusted, Mode::Unprotected, Mode::Routed, Mode::Internal, Mode::Isolated];
    let mut nets = Vec::new();
    for mode in modes {
        for icc in [true, false] {
            nets.push(Net::new(&lab, nets.len() + 1, mode, icc));
        }
    }
    let mut checked = 0;
    for to in &nets {
        let (before, mut denied) = (drops(&lab), Denied::default());
        for from in &nets {
            let from = if std::ptr::eq(from, to) { From::Neighbour(from) } else { From::Other(from) };
            // Whether a network's own endpoints hear each other is no matter to the others.
            if matches!(from, From::Other(net) if !net.icc) {
                continue;
            }
            checked += all(&mut denied, &from, to);
        }
        checked += all(&mut denied, &From::Outside(&lab.outside), to);
        if to.mode == Mode::Isolated {
            for family in Family::BOTH {
                let way = lab.host.ns.ip(&format!("route get {}", to.ends[1].address(family)));
                assert!(way.contains("dev up0"), "the host has no address there: {way}");
            }
        } else {
            checked += all(&mut denied, &From::Host(&lab.host.ns), to);
        }
        denied.hold(&lab, &before, &to.name);
    }
    // Of each network of six modes, heard by its like and without: itself, five or six others, the outside, the host.
    assert_eq!(checked, 6 * (6 * (6 + 1 + 1) + 6 * (7 + 1 + 1)) - 2 * 6);
}

fn all(denied: &mut Denied, from: &From, to: &Net) -> usize {
    for family in Family::BOTH {
        for probe in [Probe::Ping, Probe::Published, Probe::Unpublished] {
            check(denied, from, to, family, probe);
        }
    }
    6
}

fn create(lab: &Lab, mode: &str, net: u8, name: &str) {
    let subnets = format!("--subnet 10.9.{net}.0/24 --subnet fd09:{net}::/64");
    let prefix = "-o com.docker.network.bridge.gateway_mode_ipv";
    lab.host.netd(&format!("network create --ipv6 {subnets} {prefix}4={mode} {prefix}6={mode} {name}"));
}

fn echoes(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 4];
    stream.write_all(b"ping").is_ok() && stream.read_exact(&mut answer).is_ok() && &answer == b"ping"
}

#[test]
fn t56_t59_a_routed_network_is_what_it_is_called() {
    let lab = Lab::wired();
    lab.host.start(&[]);
    route(&lab);
    create(&lab, "routed", 1, "routed");
    create(&lab, "nat", 2, "other");
    let (web, other) = (lab.container_on("routed", "web"), lab.container_on("other", "other"));
    let said = lab.host.netd(&format!("publish netns:{} 8080:80", web.ns.name()));
    assert_eq!(said, "- -> 80/tcp\n- -> 80/tcp\n");
    let again = lab.host.netd(&format!("publish netns:{} 80 8081:80", web.ns.name()));
    assert_eq!(again, "", "it is open already");
    for family in Family::BOTH {
        let server = TcpEcho::new(&web.ns, at(web.address(family), 80));
        for asker in [&lab.outside, &other.ns] {
            let mut stream = connect(asker, 0, at(web.address(family), 80)).expect("a published port");
            assert!(echoes(&mut stream));
            let seen = server.peers();
            let own = stream.local_addr().expect("a connected socket");
            assert_eq!(seen.last().map(SocketAddr::port), Some(own.port()));
        }
        assert_eq!(server.peers()[1].ip(), other.address(family), "its own address");
        // Not masqueraded, and the host's port is nobody's.
        let mut outside = Capture::new(&lab.outside, "eth0");
        let _echo = UdpEcho::new(&lab.outside, at(family.outside(), 53));
        assert_eq!(ask(&udp(&web.ns, family, 5000), at(family.outside(), 53), b"hello"), b"hello");
        let left = outside.expect("a datagram", |packet| packet.ports() == Some((5000, 53)));
        assert_eq!(left.source, web.address(family));
        let refused = connect(&lab.outside, 0, at(family.host(), 8080)).expect_err("no port of the host's");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    let rules = lab.host.netd_json("nat ls")["rules"].to_string();
    assert!(rules.contains("10.9.2.0/24") && !rules.contains("10.9.1.0/24"), "{rules}");
    let table = lab.host.netd("publish ls");
    assert!(!table.contains(":80") && table.matches("80/tcp").count() == 2, "{table}");
    lab.host.netd(&format!("unpublish netns:{} 8080:80", web.ns.name()));
    let before = dropped(&lab, "unpublished");
    let socket = udp(&lab.outside, Family::V4, 0);
    socket.send_to(b"hello", at(web.ipv4, 80)).expect("sending");
    until("it is dropped", || dropped(&lab, "unpublished") > before);
}

#[test]
fn a_mode_of_one_family_is_none_of_the_other() {
    let lab = Lab::wired();
    lab.host.start(&[]);
    route(&lab);
    let subnets = "--subnet 10.9.1.0/24 --subnet fd09:1::/64";
    let option = "-o com.docker.network.bridge.gateway_mode_ipv6=routed";
    lab.host.netd(&format!("network create --ipv6 {subnets} {option} mixed"));
    let web = lab.container_on("mixed", "web");
    let said = lab.host.netd(&format!("publish netns:{} 8080:80", web.ns.name()));
    assert_eq!(said, "- -> 80/tcp\n0.0.0.0:8080 -> 80/tcp\n");
    let _servers = Family::BOTH.map(|family| TcpEcho::new(&web.ns, at(web.address(family), 80)));
    assert!(echoes(&mut connect(&lab.outside, 0, at(HOST4, 8080)).expect("a published port")));
    assert!(echoes(&mut connect(&lab.outside, 0, at(web.address(Family::V6), 80)).expect("a routed port")));
    assert!(!ping(
        &lab.outside,
        web.ipv4.into(),
        Ping { patience: Duration::from_millis(50), ..Ping::default() }
    ));
    assert!(ping(&lab.outside, web.address(Family::V6), Ping::default()));
    // The container's own port is open for as long as any port of the host's leads to it.
    lab.host.netd(&format!("publish netns:{} 8081:80", web.ns.name()));
    let said = lab.host.netd(&format!("unpublish netns:{} 8081:80", web.ns.name()));
    assert_eq!(said, "0.0.0.0:8081 -> 80/tcp\n");
    assert!(echoes(&mut connect(&lab.outside, 0, at(web.address(Family::V6), 80)).expect("a routed port")));
    let stays = lab.host.netd_fails(&format!("unpublish netns:{} [::]:8080:80", web.ns.name()));
    assert!(stays.contains(":80 stays open for as long as 0.0.0.0:8080 is published"), "{stays}");
    // One of a single address opens none.
    lab.host.netd(&format!("publish netns:{} 127.0.0.1:8082:80 {HOST4}:8083:80", web.ns.name()));
    let said = lab.host.netd(&format!("unpublish netns:{} 8080:80", web.ns.name()));
    assert_eq!(said, "0.0.0.0:8080 -> 80/tcp\n- -> 80/tcp\n");
    let before = dropped(&lab, "unpublished");
    let own = at(web.address(Family::V6), 80);
    let dialled = lab.outside.enter(|| TcpStream::connect_timeout(&own, Duration::from_millis(50)));
    dialled.expect_err("nobody opens it any more");
    until("it is dropped", || dropped(&lab, "unpublished") > before);
    lab.host.netd(&format!("unpublish netns:{} 8082:80 8083:80", web.ns.name()));
    assert_eq!(lab.host.netd("publish ls").lines().count(), 1, "the head alone");
}

#[test]
fn changes_disturb_nobody_else_and_leave_nothing_stale() {
    let lab = Lab::wired();
    lab.host.start(&[]);
    route(&lab);
    create(&lab, "routed", 1, "routed");
    create(&lab, "nat-unprotected", 2, "open");
    create(&lab, "nat", 3, "nat");
    let [web, open, nat] = ["routed", "open", "nat"].map(|network| lab.container_on(network, network));
    lab.host.netd(&format!("publish netns:{} 80 81", web.ns.name()));
    lab.host.netd(&format!("publish netns:{} 9000:80", nat.ns.name()));
    for family in Family::BOTH {
        let _servers = [(&web, 80), (&web, 81), (&open, 80)]
            .map(|(container, port)| TcpEcho::new(&container.ns, at(container.address(family), port)));
        let _outside = TcpEcho::new(&lab.outside, at(family.outside(), 80));
        let mut streams = [
            (&lab.outside, web.address(family), 80),
            (&nat.ns, web.address(family), 80),
            (&lab.outside, open.address(family), 80),
            (&nat.ns, family.outside(), 80),
            (&lab.outside, web.address(family), 81),
            (&nat.ns, web.address(family), 81),
        ]
        .map(|(from, to, port)| connect(from, 0, at(to, port)).unwrap_or_else(|e| panic!("{to}: {e}")));
        create(&lab, "routed", 4, "new");
        lab.host.netd(&format!("unpublish netns:{} 9000:80", nat.ns.name()));
        lab.host.netd(&format!("publish netns:{} 9000:80", nat.ns.name()));
        lab.host.netd("network rm new");
        lab.host.netd(&format!("unpublish netns:{} 81", web.ns.name()));
        let (kept, ended) = streams.split_at_mut(4);
        assert!(kept.iter_mut().all(echoes), "{family:?}");
        for stream in ended {
            let before = dropped(&lab, "unpublished");
            stream.write_all(b"stale").expect("the kernel takes it");
            until("nothing leads to a port that is not published", || dropped(&lab, "unpublished") > before);
        }
        lab.host.netd(&format!("publish netns:{} 81", web.ns.name()));
    }
}

#[test]
fn modes_that_cannot_be_are_refused() {
    let lab = Lab::wired();
    lab.host.start(&[]);
    let mode = "com.docker.network.bridge.gateway_mode_ipv4";
    let said = lab.host.netd_fails(&format!("network create -o {mode}=bogus n"));
    assert!(
        said.contains(&format!("failed to parse {mode} value: bogus (unknown gateway mode bogus)")),
        "{said}"
    );
    let said = lab.host.netd_fails(&format!("network create -o {mode}=isolated n"));
    assert!(said.contains("gateway mode 'isolated' can only be used for an internal network"), "{said}");
    // Who has no use for a gateway is given none.
    lab.host.netd(&format!("network create --internal --subnet 10.9.1.0/24 -o {mode}=isolated n"));
    let network = inspect(&lab, "n");
    assert!(network["IPAM"]["Config"][0].get("Gateway").is_none(), "{network}");
    let a = lab.container_on("n", "a");
    assert_eq!(a.ipv4.to_string(), "10.9.1.1");
    let addresses = lab.host.ns.ip("-oneline -4 address show");
    assert!(!addresses.contains("10.9.1."), "{addresses}");
}
