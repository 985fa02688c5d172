//! What is translated.

use std::fmt::Write as _;

use ipnet::IpNet;

use crate::{
    api::view::Nat,
    cli::format::{duration, table, traffic},
};

/// The name of a mapping or a filtering that is the same for all remotes.
const INDEPENDENT: &str = "endpoint-independent";

pub(in crate::cli) fn nat(nat: &Nat) -> String {
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

#[cfg(test)]
mod tests {
    use super::{super::tests::fits, *};
    use crate::api::view::{Binding, External, Rule, RuleUplink, Traffic};

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
}
