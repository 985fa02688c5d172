//! The host's firewall is the host's: netd neither writes rules nor needs any.

use std::io::{Read as _, Write as _};

use netd_tests::lab::{Family, Lab, Ping, TcpEcho, UdpEcho, UdpStream, ask, at, connect, ping, udp};

fn nft(lab: &Lab, arguments: &str) -> String {
    let output = lab.host.command("nft").args(arguments.split(' ')).output().expect("running nft");
    assert!(output.status.success(), "nft {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn flushing_all_rules_changes_nothing() {
    let lab = Lab::new();
    let (a, b) = (lab.container("a"), lab.container("b"));
    assert_eq!(nft(&lab, "list ruleset"), "", "netd writes no rule");

    let _outside = Family::BOTH.map(|family| UdpEcho::new(&lab.outside, at(family.outside(), 5300)));
    let _beside = Family::BOTH.map(|family| UdpEcho::new(&b.ns, at(b.address(family), 5300)));
    let remotes = Family::BOTH.map(|family| [family.outside(), b.address(family)]).concat();
    let streams: Vec<_> = remotes.iter().map(|remote| UdpStream::start(&a.ns, at(*remote, 5300))).collect();
    let goes_on = || {
        streams.iter().for_each(|stream| stream.run_on(2000));
        for remote in &remotes {
            assert!(ping(&a.ns, *remote, Ping::default()), "{remote}");
            let family = if remote.is_ipv4() { Family::V4 } else { Family::V6 };
            ask(&udp(&a.ns, family, 0), at(*remote, 5300), b"a new flow");
        }
    };
    goes_on();
    // What a host with Docker, or a careful administrator, has.
    nft(&lab, "add table inet careful");
    nft(&lab, "add chain inet careful forward { type filter hook forward priority 0 ; policy drop ; }");
    goes_on();
    nft(&lab, "flush ruleset");
    goes_on();
    for stream in streams {
        let losses = stream.stop();
        assert_eq!(losses.lost, 0, "{losses:?}");
    }
    assert_eq!(nft(&lab, "list ruleset"), "", "nor does it write one afterwards");
}

#[test]
fn a_port_that_the_hosts_rules_lead_elsewhere_answers_containers_too() {
    let lab = Lab::new();
    let a = lab.container("a");
    for (family, table) in Family::BOTH.into_iter().zip(["ip", "ip6"]) {
        let remote = at(family.outside(), 5300);
        let (_udp, _tcp) = (UdpEcho::new(&lab.outside, remote), TcpEcho::new(&lab.outside, remote));
        let port = at(family.host(), 9090);
        // What an engine does for a port of a container on a bridge of its own.
        nft(&lab, &format!("add table {table} engine"));
        nft(&lab, &format!("add chain {table} engine led {{ type nat hook prerouting priority -100 ; }}"));
        for protocol in ["tcp", "udp"] {
            let host = family.host();
            nft(
                &lab,
                &format!(
                    "add rule {table} engine led {table} daddr {host} {protocol} dport 9090 dnat to {remote}"
                ),
            );
        }
        assert_eq!(ask(&udp(&a.ns, family, 0), port, b"hello"), b"hello");
        let mut stream = connect(&a.ns, 0, port).expect("connecting to the host's port");
        stream.write_all(b"hello").expect("sending");
        stream.read_exact(&mut [0; 5]).expect("the echo");
        // And the remote itself, as ever.
        assert_eq!(ask(&udp(&a.ns, family, 0), remote, b"hello"), b"hello");
        connect(&a.ns, 0, remote).expect("connecting to the remote");
    }
}
