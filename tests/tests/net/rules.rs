//! The host's firewall is the host's: netd neither writes rules nor needs any.

use netd_tests::lab::{Family, Lab, Ping, UdpEcho, UdpStream, ask, at, ping, udp};

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
