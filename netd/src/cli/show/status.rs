//! What the daemon has in the kernel.

use std::fmt::Write as _;

use crate::{
    api::view::Status,
    cli::format::{bytes, duration, table},
};

pub(in crate::cli) fn status(status: &Status) -> String {
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

    use super::{super::tests::fits, *};
    use crate::api::view::{FlowCounts, Map, Program, Uplink};

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
