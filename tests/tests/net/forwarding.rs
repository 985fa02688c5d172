//! Who forwards because of netd, and who does not.

use netd_tests::lab::{Family, Lab, Namespace, Ping, ping};

/// Two namespaces on interfaces of the host that are none of netd's, and of which the host is the way to each other.
fn neighbours(lab: &Lab) -> [Namespace; 2] {
    [1, 2].map(|number| {
        let neighbour = Namespace::new(&format!("side{number}"));
        let host = &lab.host.ns;
        host.ip(&format!("link add side{number} type veth peer name eth0 netns {}", neighbour.name()));
        host.ip(&format!("address add 10.20{number}.0.1/24 dev side{number}"));
        host.ip(&format!("address add fd20:{number}::1/64 dev side{number} nodad"));
        host.ip(&format!("link set side{number} up"));
        neighbour.ip(&format!("address add 10.20{number}.0.2/24 dev eth0"));
        neighbour.ip(&format!("address add fd20:{number}::2/64 dev eth0 nodad"));
        neighbour.ip("link set eth0 up");
        neighbour.ip(&format!("route add default via 10.20{number}.0.1"));
        neighbour.ip(&format!("-6 route add default via fd20:{number}::1"));
        neighbour.await_carrier("eth0");
        neighbour
    })
}

#[test]
fn t48_the_host_forwards_as_it_is_told() {
    for (before, config, forwards) in [
        ("0", "{}", true),
        ("1", "{}", true),
        ("0", r#"{"ip-forward-no-drop": true}"#, true),
        ("0", r#"{"ip-forward": false}"#, false),
    ] {
        let case = format!("ip_forward {before}, {config}");
        let lab = Lab::wired();
        for family in ["ipv4", "ipv6"] {
            // Whatever this machine's own setting was when the namespace was made.
            lab.host.ns.sysctl(&format!("net.{family}.conf.all.forwarding"), "0");
            lab.host.ns.sysctl(&format!("net.{family}.conf.default.forwarding"), "0");
        }
        if before == "1" {
            lab.host.ns.sysctl("net.ipv4.ip_forward", before);
        }
        let [one, _two] = neighbours(&lab);
        lab.host.configure(config);
        lab.host.start(&[]);
        let expected = if forwards { "1" } else { "0" };
        assert_eq!(lab.host.ns.read_sysctl("net.ipv4.ip_forward"), expected, "{case}");
        let reaches = |from: &Namespace, to: &str| ping(from, to.parse().unwrap(), Ping::default());
        assert_eq!(reaches(&one, "10.202.0.2"), forwards, "{case}: from one side to the other");
        let container = lab.container_on("bridge", "a");
        assert_eq!(ping(&container.ns, Family::V4.outside(), Ping::default()), forwards, "{case}");

        // Of IPv6 nothing is touched before it is needed.
        let forwarding = |link: &str| lab.host.ns.read_sysctl(&format!("net.ipv6.conf.{link}.forwarding"));
        assert_eq!([forwarding("all"), forwarding("up0")], ["0", "0"], "{case}");
        lab.host.netd("network create --ipv6 --subnet 172.30.0.0/24 --subnet fd00:30::/64 dual");
        let container = lab.container("b");
        assert_eq!(ping(&container.ns, Family::V6.outside(), Ping::default()), forwards, "{case}");
        assert_eq!(forwarding("all"), expected, "{case}");
        let advertisements = lab.host.ns.read_sysctl("net.ipv6.conf.up0.accept_ra");
        assert_eq!(advertisements, if forwards { "2" } else { "1" }, "{case}");
    }
}
