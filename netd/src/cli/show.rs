//! What netd knows, as tables for people. They fit 100 columns as far as IPv4 is concerned.

use std::fmt::Write as _;

use ipnet::IpNet;
use serde::de::DeserializeOwned;

use super::{
    client::Client,
    format::{self, bytes, count, duration, indent, table, traffic},
};
use crate::api::view::{Names, Nat, Routes, Station, Stats, Status};

/// Prints what `path` answers: in JSON, or by `render`.
pub(super) async fn print<T: DeserializeOwned>(
    client: &Client,
    path: &str,
    json: bool,
    render: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    let body = client.get(path).await?;
    let text = match json {
        true => indent(&String::from_utf8_lossy(&body)) + "\n",
        false => render(&client.parse(&body)?),
    };
    format::print(&text)?;
    Ok(())
}

/// The name of a mapping or a filtering that is the same for all remotes.
const INDEPENDENT: &str = "endpoint-independent";

pub(super) fn nat(nat: &Nat) -> String {
    let rules = nat.rules.iter().flat_map(|rule| {
        let source = rule.source.to_string();
        // The abbreviations of RFC 4787.
        let behaviour = match [&rule.mapping, &rule.filtering].map(|it| it == INDEPENDENT) {
            [false, _] => "APDM/APDF",
            [true, false] => "EIM/APDF",
            [true, true] => "EIM/EIF",
        };
        let row = move |by: &str, address: &str, to: String, behaviour: &str| {
            [&rule.network, &source, &to, by, address, behaviour].map(ToOwned::to_owned)
        };
        let own = rule.except.iter().map({
            let row = row.clone();
            move |destination| row("any", "its own", destination.to_string(), "-")
        });
        let nowhere = rule.uplinks.is_empty().then(|| row("-", "-", "any".to_owned(), behaviour));
        let somewhere = rule
            .uplinks
            .iter()
            .map(move |uplink| row(&uplink.name, &uplink.address.to_string(), "any".to_owned(), behaviour));
        own.chain(nowhere).chain(somewhere)
    });
    let rules = table(["NETWORK", "SOURCE", "TO", "OUT BY", "MASQUERADED AS", "BEHAVIOUR"], &[], rules);
    let bindings = nat.bindings.iter().map(|binding| {
        let owner = match (&binding.network, &binding.endpoint) {
            (Some(network), Some(endpoint)) => format!("{network}/{endpoint}"),
            _ => "host".to_owned(),
        };
        let remote = binding.remote.map_or_else(|| "any".to_owned(), |remote| remote.to_string());
        [
            binding.protocol.clone(),
            format!("{}\n{owner}", binding.local),
            format!("{}\n{}", binding.external, binding.uplink.as_deref().unwrap_or("-")),
            format!("{remote}\n{}", binding.state),
            format!("{}\n{}", duration(binding.age), duration(binding.idle)),
            traffic(binding.outbound),
            traffic(binding.inbound),
        ]
    });
    let header = ["PROTO", "LOCAL\nENDPOINT", "EXTERNAL\nUPLINK", "REMOTE\nSTATE", "AGE\nIDLE", "OUT", "IN"];
    let number = nat.bindings.len();
    let mut out = format!("Rules\n{rules}\n");
    if !nat.externals.is_empty() {
        let externals = nat.externals.iter().map(|it| {
            let endpoint = it.endpoint.clone().unwrap_or_else(|| "-".to_owned());
            [address(it.external), address(it.internal), it.network.clone(), endpoint]
        });
        let externals = table(["OUTSIDE", "INSIDE", "NETWORK", "ENDPOINT"], &[], externals);
        let _ = write!(out, "One for one\n{externals}\n");
    }
    let _ = writeln!(out, "Bindings: {number}");
    if number > 0 {
        out += &table(header, &[4, 5, 6], bindings);
    }
    out
}

/// An address without the length of all of it.
fn address(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

pub(super) fn fdb(stations: &[Station]) -> String {
    let rows = stations
        .iter()
        .map(|it| [it.network.clone(), it.mac.clone(), it.endpoint.clone(), it.interface.clone()]);
    table(["NETWORK", "MAC", "ENDPOINT", "PORT"], &[], rows)
}

pub(super) fn routes(routes: &Routes) -> String {
    let inside = routes.networks.iter().map(|route| {
        let gateway = route.gateway.map_or_else(|| "-".to_owned(), |gateway| gateway.to_string());
        [route.destination.to_string(), route.interface.clone(), gateway, route.network.clone()]
    });
    let outside = routes.uplinks.iter().map(|route| {
        let gateway = route.gateway.map_or_else(|| "on link".to_owned(), |gateway| gateway.to_string());
        [route.destination.to_string(), route.interface.clone(), gateway, route.metric.to_string()]
    });
    format!(
        "Networks\n{}\nUplinks\n{}",
        table(["DESTINATION", "BRIDGE", "GATEWAY", "NETWORK"], &[], inside),
        table(["DESTINATION", "UPLINK", "NEXT HOP", "METRIC"], &[3], outside)
    )
}

pub(super) fn names(networks: &[Names]) -> String {
    let text = |address: Option<String>| address.unwrap_or_else(|| "-".into());
    let servers = networks.iter().map(|it| {
        let servers = it.servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        [it.network.clone(), servers, if it.forwards { "forwarded" } else { "refused" }.into()]
    });
    let names = networks.iter().flat_map(|it| {
        it.names.iter().map(|named| {
            [
                it.network.clone(),
                named.names.join(", "),
                text(named.ipv4.map(|ipv4| ipv4.to_string())),
                text(named.ipv6.map(|ipv6| ipv6.to_string())),
            ]
        })
    });
    format!(
        "Servers\n{}\nNames\n{}",
        table(["NETWORK", "SERVER", "OTHER NAMES"], &[], servers),
        table(["NETWORK", "NAME", "IPV4", "IPV6"], &[], names)
    )
}

pub(super) fn stats(stats: &Stats, all: bool) -> String {
    let networks = stats.networks.iter().map(|it| (it.network.clone(), String::new(), it.sent, it.received));
    let endpoints =
        stats.endpoints.iter().map(|it| (it.network.clone(), it.endpoint.clone(), it.sent, it.received));
    let mut rows: Vec<_> = networks.chain(endpoints).collect();
    // A network stands before its endpoints.
    rows.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    let traffic = rows.into_iter().map(|(network, endpoint, sent, received)| {
        [
            network,
            endpoint,
            count(sent.packets),
            bytes(sent.bytes),
            count(received.packets),
            bytes(received.bytes),
        ]
    });
    let mut out = table(["NETWORK", "ENDPOINT", "SENT", "", "RECEIVED", ""], &[2, 3, 4, 5], traffic);
    for (title, counters) in [("PATH", &stats.paths), ("DROPPED BECAUSE", &stats.drops)] {
        let mut rows = counters.iter().filter(|(_, n)| all || **n > 0).peekable();
        if rows.peek().is_some() {
            let rows = rows.map(|(name, n)| [name.clone(), n.to_string()]);
            let _ = write!(out, "\n{}", table([title, "PACKETS"], &[1], rows));
        }
    }
    out
}

pub(super) fn status(status: &Status) -> String {
    let features =
        status.features.iter().map(|(name, found)| format!("{name}: {}", if *found { "yes" } else { "no" }));
    let facts = [
        ("Version", format!("{}, map ABI {}", status.version, status.abi)),
        ("Kernel", status.kernel.clone()),
        ("Features", features.collect::<Vec<_>>().join(", ")),
        ("Uptime", duration(status.uptime)),
        ("Pins", status.pins.clone()),
        ("Networks", status.networks.to_string()),
        ("Endpoints", status.endpoints.to_string()),
        ("Flows", format!("{} IPv4, {} IPv6", status.flows.ipv4, status.flows.ipv6)),
        ("Bindings", format!("{} IPv4, {} IPv6", status.bindings.ipv4, status.bindings.ipv6)),
    ];
    let mut out = String::new();
    for (name, value) in facts {
        let _ = writeln!(out, "{:<11}{value}", format!("{name}:"));
    }
    let or_none = |address: Option<String>| address.unwrap_or_else(|| "-".into());
    let uplinks = status.uplinks.iter().map(|uplink| {
        [
            uplink.name.clone(),
            or_none(uplink.ipv4.map(|ipv4| ipv4.to_string())),
            or_none(uplink.ipv6.map(|ipv6| ipv6.to_string())),
            uplink.mtu.to_string(),
            if uplink.up { "up" } else { "down" }.to_owned(),
        ]
    });
    let programs = status.programs.iter().map(|program| {
        let links = status.links.iter().filter(|link| link.program == program.name);
        let links: Vec<_> = links.map(|link| link.interface.as_str()).collect();
        [
            program.name.clone(),
            program.id.to_string(),
            program.tag.clone(),
            program.verified_instructions.to_string(),
            bytes(program.jited_bytes.into()),
            attached(&links),
        ]
    });
    let maps = status.maps.iter().map(|map| {
        let fill =
            map.entries.map(|entries| (entries, 100.0 * entries as f64 / f64::from(map.max_entries.max(1))));
        [
            map.name.clone(),
            map.id.to_string(),
            map.kind.clone(),
            format!("{}+{}", map.key_size, map.value_size),
            fill.map_or_else(|| "-".into(), |(entries, _)| entries.to_string()),
            map.max_entries.to_string(),
            fill.map_or_else(|| "-".into(), |(_, percent)| format!("{percent:.1}%")),
        ]
    });
    let _ = write!(
        out,
        "\n{}\n{}\n{}",
        table(["UPLINK", "IPV4", "IPV6", "MTU", "STATE"], &[3], uplinks),
        table(["PROGRAM", "ID", "TAG", "VERIFIED", "CODE", "ATTACHED TO"], &[1, 3, 4], programs),
        table(["MAP", "ID", "KIND", "BYTES", "ENTRIES", "ROOM", "FILL"], &[1, 3, 4, 5, 6], maps),
    );
    out
}

/// The names of interfaces, as many as a line takes.
fn attached(names: &[&str]) -> String {
    const SHOWN: usize = 3;
    match names {
        [] => "-".into(),
        [first @ .., _] if first.len() < SHOWN => names.join(" "),
        _ => format!("{} and {} more", names[..SHOWN].join(" "), names.len() - SHOWN),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::api::view::{
        Binding, EndpointStats, External, FlowCounts, Map, NetworkRoute, NetworkStats, Program, Rule,
        RuleUplink, Traffic, Uplink, UplinkRoute,
    };

    fn fits(text: &str) {
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
        }
    }

    #[test]
    fn the_nat_table_is_golden() {
        let rule = |uplinks| Rule {
            network: "bridge".into(),
            source: "172.17.0.0/16".parse().unwrap(),
            uplinks,
            except: Vec::new(),
            mapping: "address-and-port-dependent".into(),
            filtering: "address-and-port-dependent".into(),
        };
        let binding = |protocol: &str, endpoint: Option<&str>| Binding {
            protocol: protocol.into(),
            local: "172.17.0.2:40000".parse().unwrap(),
            external: "192.0.2.1:40000".parse().unwrap(),
            remote: endpoint.and_then(|_| "198.51.100.7:443".parse().ok()),
            state: "established".into(),
            accepted: false,
            age: 75.0,
            idle: 0.2,
            network: endpoint.map(|_| "bridge".into()),
            endpoint: endpoint.map(Into::into),
            uplink: Some("eth0".into()),
            outbound: Traffic { packets: 12, bytes: 3400 },
            inbound: Traffic { packets: 1_000_000, bytes: 1_500_000_000 },
        };
        let external = |external: &str, internal: &str, endpoint: Option<&str>| External {
            external: external.parse().unwrap(),
            internal: internal.parse().unwrap(),
            network: "bridge".into(),
            endpoint: endpoint.map(Into::into),
        };
        let mut masqueraded =
            rule(vec![RuleUplink { name: "eth0".into(), address: "192.0.2.1".parse().unwrap() }]);
        masqueraded.except.push("10.8.0.0/16".parse().unwrap());
        masqueraded.mapping = INDEPENDENT.into();
        masqueraded.filtering = INDEPENDENT.into();
        let text = nat(&Nat {
            rules: vec![masqueraded, rule(Vec::new())],
            externals: vec![
                external("203.0.113.9/32", "172.17.0.2/32", Some("web")),
                external("2001:db8:1::/64", "fd00:17::/64", None),
            ],
            bindings: vec![binding("tcp", Some("web")), binding("udp", None)],
        });
        assert_eq!(
            text,
            "\
Rules
NETWORK  SOURCE         TO           OUT BY  MASQUERADED AS  BEHAVIOUR
bridge   172.17.0.0/16  10.8.0.0/16  any     its own         -
bridge   172.17.0.0/16  any          eth0    192.0.2.1       EIM/EIF
bridge   172.17.0.0/16  any          -       -               APDM/APDF

One for one
OUTSIDE          INSIDE        NETWORK  ENDPOINT
203.0.113.9      172.17.0.2    bridge   web
2001:db8:1::/64  fd00:17::/64  bridge   -

Bindings: 2
PROTO  LOCAL             EXTERNAL         REMOTE              AGE     OUT      IN
       ENDPOINT          UPLINK           STATE              IDLE
tcp    172.17.0.2:40000  192.0.2.1:40000  198.51.100.7:443  1m15s      12    1.0M
       bridge/web        eth0             established          0s  3.4 kB  1.5 GB
udp    172.17.0.2:40000  192.0.2.1:40000  any               1m15s      12    1.0M
       host              eth0             established          0s  3.4 kB  1.5 GB
"
        );
        assert_eq!(
            nat(&Nat::default()),
            "Rules\nNETWORK  SOURCE  TO  OUT BY  MASQUERADED AS  BEHAVIOUR\n\nBindings: 0\n"
        );
    }

    #[test]
    fn the_widest_ipv4_binding_fits() {
        let far = "255.255.255.255:65535".parse().unwrap();
        let binding = Binding {
            protocol: "icmpv6".into(),
            local: far,
            external: far,
            remote: Some(far),
            state: "established".into(),
            accepted: false,
            age: 86_399.0,
            idle: 86_399.0,
            network: Some("bridge".into()),
            endpoint: Some("a-container".into()),
            uplink: Some("eth0".into()),
            outbound: Traffic { packets: 999, bytes: 999 },
            inbound: Traffic { packets: 999, bytes: 999_000 },
        };
        fits(&nat(&Nat { bindings: vec![binding], ..Nat::default() }));
    }

    #[test]
    fn counters_that_are_zero_are_shown_on_demand() {
        let traffic = |n| Traffic { packets: n, bytes: 1000 * n };
        let sample = Stats {
            networks: vec![NetworkStats { network: "n1".into(), sent: traffic(3), received: traffic(4) }],
            endpoints: vec![EndpointStats {
                network: "n1".into(),
                endpoint: "web".into(),
                sent: traffic(3),
                received: traffic(4),
            }],
            paths: BTreeMap::from([("bridged".into(), 7), ("flooded".into(), 0)]),
            drops: BTreeMap::from([("icc".into(), 0)]),
            draws: Vec::new(),
        };
        let short = "\
NETWORK  ENDPOINT  SENT          RECEIVED
n1                    3  3.0 kB         4  4.0 kB
n1       web          3  3.0 kB         4  4.0 kB

PATH     PACKETS
bridged        7
";
        assert_eq!(stats(&sample, false), short);
        let long = stats(&sample, true);
        assert!(
            long.contains("flooded        0\n") && long.contains("DROPPED BECAUSE  PACKETS\nicc"),
            "{long}"
        );
    }

    #[test]
    fn routes_are_inside_and_outside() {
        let text = routes(&Routes {
            networks: vec![NetworkRoute {
                network: "bridge".into(),
                destination: "172.17.0.0/16".parse().unwrap(),
                interface: "netd0".into(),
                gateway: Some("172.17.0.1".parse().unwrap()),
            }],
            uplinks: vec![UplinkRoute {
                destination: "0.0.0.0/0".parse().unwrap(),
                interface: "eth0".into(),
                gateway: None,
                metric: 100,
            }],
        });
        assert_eq!(
            text,
            "\
Networks
DESTINATION    BRIDGE  GATEWAY     NETWORK
172.17.0.0/16  netd0   172.17.0.1  bridge

Uplinks
DESTINATION  UPLINK  NEXT HOP  METRIC
0.0.0.0/0    eth0    on link      100
"
        );
    }

    #[test]
    fn the_status_fits() {
        let map = |name: &str, entries| Map {
            id: 123,
            name: name.into(),
            kind: "percpuarray".into(),
            key_size: 4,
            value_size: 168,
            max_entries: 131_072,
            entries,
        };
        let text = status(&Status {
            version: "0.1.0".into(),
            abi: 1,
            kernel: "6.12.41+deb13-amd64".into(),
            pins: "/sys/fs/bpf/netd-0123456789abcdef/v1".into(),
            flows: FlowCounts { ipv4: 3, ipv6: 0 },
            bindings: FlowCounts { ipv4: 2, ipv6: 0 },
            uplinks: vec![Uplink {
                name: "eth0".into(),
                index: 2,
                ipv4: Some([192, 0, 2, 1].into()),
                ipv6: None,
                mtu: 1500,
                up: true,
            }],
            programs: vec![Program {
                name: "from_container".into(),
                id: 1234,
                tag: "0123456789abcdef".into(),
                verified_instructions: 12_345,
                jited_bytes: 6789,
            }],
            maps: vec![map("FLOWS4", Some(65_536)), map("DRAWS", None)],
            features: BTreeMap::from([("fib_lookup_source".into(), true)]),
            ..Status::default()
        });
        fits(&text);
        for line in ["Flows:     3 IPv4, 0 IPv6", "Features:  fib_lookup_source: yes"] {
            assert!(text.lines().any(|it| it == line), "{text}");
        }
        assert!(text.contains("50.0%"), "{text}");
    }

    #[test]
    fn many_ports_are_counted() {
        assert_eq!(attached(&[]), "-");
        assert_eq!(attached(&["a", "b", "c"]), "a b c");
        assert_eq!(attached(&["a", "b", "c", "d", "e"]), "a b c and 2 more");
    }
}
