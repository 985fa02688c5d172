//! A container on several networks: its default route leads through one of them, and it has an address on each.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpStream, UdpSocket};

use netd_tests::lab::{
    DUAL, Family, Lab, Losses, Namespace, Ping, TcpEcho, UdpEcho, UdpStream, ask, at, connect, ping, udp,
};

/// A lab with a second network, whose name comes behind the first one's, and a container there alone.
fn second_network() -> (Lab, Namespace) {
    let lab = Lab::new();
    lab.host.netd("network create --subnet 172.31.0.0/24 --ipv6 --subnet fd00:31::/64 zone");
    let ns = Namespace::new("box");
    lab.host.netd(&format!("network connect zone netns:{}", ns.name()));
    (lab, ns)
}

/// A container's only address on the second network.
fn on_second(family: Family) -> IpAddr {
    match family {
        Family::V4 => [172, 31, 0, 2].into(),
        Family::V6 => "fd00:31::2".parse().expect("an address"),
    }
}

/// The interface that the default routes lead through.
fn assert_leads_by(ns: &Namespace, interface: &str) {
    for version in ["-4", "-6"] {
        let route = ns.ip(&format!("{version} route show default"));
        assert!(route.contains(&format!("dev {interface} ")), "{route}");
    }
}

fn exchange(stream: &mut TcpStream, datagrams: &UdpSocket) {
    stream.write_all(b"hello").expect("writing");
    stream.read_exact(&mut [0; 5]).expect("an echo");
    datagrams.send(b"hello").expect("sending");
    assert_eq!(datagrams.recv(&mut [0; 16]).expect("an answer"), 5);
}

#[test]
fn what_is_under_way_outlives_a_change_of_the_default_route() {
    let (lab, ns) = second_network();
    for family in Family::BOTH {
        let remote = at(family.outside(), 5300);
        let (tcp, echo) = (TcpEcho::new(&lab.outside, remote), UdpEcho::new(&lab.outside, remote));
        let mut stream = connect(&ns, 0, remote).expect("a connection");
        let datagrams = udp(&ns, family, 5000);
        datagrams.connect(remote).expect("connecting");
        exchange(&mut stream, &datagrams);
        // There is a default route at every moment: sending never fails, and nothing is lost.
        let (far, name) = (UdpEcho::new(&lab.outside, at(family.outside(), 5301)), ns.name());
        let busy = UdpStream::start(&ns, far.address);

        assert_leads_by(&ns, "eth0");
        lab.host.netd(&format!("network connect {DUAL} netns:{name}"));
        assert_leads_by(&ns, "eth1");
        exchange(&mut stream, &datagrams);
        busy.run_on(100);
        lab.host.netd(&format!("network disconnect {DUAL} netns:{name}"));
        assert_leads_by(&ns, "eth0");
        exchange(&mut stream, &datagrams);
        busy.run_on(100);
        let Losses { sent, lost } = busy.stop();
        assert_eq!(lost, 0, "of {sent}");
        assert_eq!((tcp.peers().len(), echo.peers().len()), (1, 3));
        assert!(echo.peers().iter().all(|peer| *peer == echo.peers()[0]), "{:?}", echo.peers());
    }
}

/// A VPN's, for one: whoever may change the container's routes keeps nobody from anything.
#[test]
fn a_default_route_of_the_containers_own_stays() {
    let (lab, ns) = second_network();
    let (ipv4, ipv6) = ("default via 172.31.0.9 dev eth0", "default via fd00:31::9 dev eth0");
    ns.ip(&format!("route replace {ipv4}"));
    ns.ip("-6 route delete default");
    ns.ip(&format!("-6 route add {ipv6}"));
    let stays = |after: &str| {
        let routes = [ns.ip("-4 route show default"), ns.ip("-6 route show default")];
        assert!(routes[0].starts_with(ipv4) && routes[1].starts_with(ipv6), "after {after}: {routes:?}");
    };
    lab.host.kill();
    lab.host.start(&[]);
    stays("a restart");
    lab.host.netd(&format!("network connect {DUAL} netns:{}", ns.name()));
    stays("another network");
    lab.host.netd(&format!("network disconnect {DUAL} netns:{}", ns.name()));
    stays("its end");
    // Whatever has become of one container, the others are served.
    ns.ip("link delete eth0");
    ns.ip("link add eth0 type veth peer name other");
    lab.host.kill();
    lab.host.start(&[]);
    let container = lab.container("b");
    assert!(ping(&container.ns, Family::V4.outside(), Ping::default()));
}

#[test]
fn each_address_is_reached_from_outside() {
    let (lab, ns) = second_network();
    lab.host.netd(&format!("network connect {DUAL} netns:{}", ns.name()));
    assert_leads_by(&ns, "eth1");
    lab.host.netd(&format!("publish zone/{} 8080:80 5300:53/udp", ns.name()));
    for (family, external) in Family::BOTH.into_iter().zip(["203.0.113.9", "2001:db8::9"]) {
        let external: IpAddr = external.parse().expect("an address");
        let (_tcp, _datagrams) =
            (TcpEcho::new(&ns, at(on_second(family), 80)), UdpEcho::new(&ns, at(on_second(family), 53)));
        let mut stream = connect(&lab.outside, 0, at(family.host(), 8080)).expect("a connection");
        stream.write_all(b"hello").expect("writing");
        stream.read_exact(&mut [0; 5]).expect("an echo");
        ask(&udp(&lab.outside, family, 0), at(family.host(), 5300), b"hello");

        lab.host.netd(&format!("nat add {external} zone/{}", ns.name()));
        assert!(ping(&lab.outside, external, Ping::default()), "{external}");
        ask(&udp(&lab.outside, family, 0), at(external, 53), b"hello");
        lab.host.netd(&format!("nat rm {external}"));
    }
}
