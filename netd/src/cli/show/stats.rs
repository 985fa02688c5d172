//! What was counted.

use std::fmt::Write as _;

use crate::{
    api::view::Stats,
    cli::format::{bytes, count, table},
};

pub(in crate::cli) fn stats(stats: &Stats, all: bool) -> String {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::api::view::{EndpointStats, NetworkStats, Traffic};

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
}
