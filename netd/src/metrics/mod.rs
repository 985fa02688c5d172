//! Metrics for Prometheus, out of what netd's own routes tell. Nothing is counted here: the kernel counts.

mod format;

use std::fmt;

use netd_common::{drop::DropReason, limits, stats::Path};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

pub(crate) use format::Format;
use format::without_openmetrics;

use crate::api::view::{Stats, Status, Traffic};

/// Upper bounds of the histogram of draws. A flow for which no port was found counts as one draw more than the last.
const DRAWS: [u32; 6] = [1, 2, 4, 8, 16, limits::PORT_DRAWS];

/// Drop reasons that are a flow which could not be made.
const ALLOCATION_FAILURES: [DropReason; 4] =
    [DropReason::FlowTableFull, DropReason::EndpointQuota, DropReason::PortsExhausted, DropReason::SctpPort];

/// What is counted among the ways of packets, and is none: each has a counter of its own.
const EVENTS: [(Path, &str, &str); 7] = [
    (
        Path::FlowCreated,
        "netd_flows_created",
        "Flows made from within, by what a container or the host sends first",
    ),
    (
        Path::FlowAccepted,
        "netd_flows_accepted",
        "Flows made from without, by who came to a published port or to a container's own address",
    ),
    (Path::FlowEnded, "netd_flows_ended", "Flows expired, taken over, or gone with their endpoint"),
    (Path::BindingCreated, "netd_nat_bindings_created", "External ports bound for whoever the remote is"),
    (
        Path::BindingEnded,
        "netd_nat_bindings_ended",
        "Bindings expired, taken over, or gone with their endpoint",
    ),
    (
        Path::Dialled,
        "netd_host_dials",
        "Connections and datagrams of the host's own sockets to published ports",
    ),
    (Path::BindRefused, "netd_binds_refused", "Sockets of the host that wanted a published port"),
];

/// Writes all metrics.
pub(crate) fn encode(stats: &Stats, status: &Status, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape { stats: stats.clone(), status: status.clone() }));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(match format {
        Format::OpenMetrics => text,
        Format::Prometheus => without_openmetrics(&text),
    })
}

/// What one scrape tells.
#[derive(Debug)]
struct Scrape {
    stats: Stats,
    status: Status,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        build_info(encoder, &self.status)?;
        encoder
            .encode_descriptor(
                "netd_uptime",
                "Time since the daemon was started",
                Some(&Unit::Seconds),
                MetricType::Gauge,
            )?
            .encode_gauge(&self.status.uptime)?;
        self.traffic(encoder)?;
        let is_event = |path: &str| EVENTS.iter().any(|(event, ..)| event.name() == path);
        let paths = self.stats.paths.iter().filter(|(path, _)| !is_event(path));
        counter(
            encoder,
            "netd_packets",
            "Packets by the way they took through the datapath",
            None,
            paths.map(|(path, n)| ([("path", path.as_str())], *n)),
        )?;
        counter(
            encoder,
            "netd_drops",
            "Packets dropped by the datapath, by reason",
            None,
            self.stats.drops.iter().map(|(reason, n)| ([("reason", reason.as_str())], *n)),
        )?;
        self.flows(encoder)?;
        self.kernel(encoder)
    }
}

impl Scrape {
    fn traffic(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let networks = |of: fn(Traffic) -> u64| {
            self.stats.networks.iter().flat_map(move |it| {
                [("sent", it.sent), ("received", it.received)].map(|(direction, traffic)| {
                    ([("network", &*it.network), ("direction", direction)], of(traffic))
                })
            })
        };
        let endpoints = |of: fn(Traffic) -> u64| {
            self.stats.endpoints.iter().flat_map(move |it| {
                [("sent", it.sent), ("received", it.received)].map(|(direction, traffic)| {
                    (
                        [("network", &*it.network), ("endpoint", &*it.endpoint), ("direction", direction)],
                        of(traffic),
                    )
                })
            })
        };
        let help = "by the endpoints of a network, as they see it, those that have left included; a GSO frame counts once";
        counter(
            encoder,
            "netd_network_packets",
            &format!("Packets {help}"),
            None,
            networks(|it| it.packets),
        )?;
        counter(
            encoder,
            "netd_network",
            &format!("Bytes {help}"),
            Some(&Unit::Bytes),
            networks(|it| it.bytes),
        )?;
        let help = "by an endpoint, as it sees it; a GSO frame counts once";
        counter(
            encoder,
            "netd_endpoint_packets",
            &format!("Packets {help}"),
            None,
            endpoints(|it| it.packets),
        )?;
        counter(
            encoder,
            "netd_endpoint",
            &format!("Bytes {help}"),
            Some(&Unit::Bytes),
            endpoints(|it| it.bytes),
        )
    }

    fn flows(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let family = |ipv4: u64, ipv6: u64| [([("family", "ipv4")], ipv4), ([("family", "ipv6")], ipv6)];
        gauge(
            encoder,
            "netd_flows",
            "Flows that are translated now",
            None,
            family(self.status.flows.ipv4, self.status.flows.ipv6),
        )?;
        gauge(
            encoder,
            "netd_nat_bindings",
            "External ports that are bound for whoever the remote is",
            None,
            family(self.status.bindings.ipv4, self.status.bindings.ipv6),
        )?;
        gauge(
            encoder,
            "netd_flow_table_capacity",
            "Flows and bindings that there is room for",
            None,
            family(limits::FLOWS4.into(), limits::FLOWS6.into()),
        )?;
        for (event, name, help) in EVENTS {
            let n = self.stats.paths.get(event.name()).copied().unwrap_or_default();
            encoder
                .encode_descriptor(name, help, None, MetricType::Counter)?
                .encode_counter::<NoLabelSet, _, f64>(&n, None)?;
        }
        counter(
            encoder,
            "netd_flow_allocation_failures",
            "New flows refused for want of a record, a port, or by the endpoint's quota",
            None,
            ALLOCATION_FAILURES.map(DropReason::name).map(|reason| {
                ([("reason", reason)], self.stats.drops.get(reason).copied().unwrap_or_default())
            }),
        )?;
        let mut metric = encoder.encode_descriptor(
            "netd_flow_allocation_draws",
            "Ports tried for a new flow until a free one was found",
            None,
            MetricType::Histogram,
        )?;
        let draws = &self.stats.draws;
        let sum = draws.iter().zip(0u64..).map(|(flows, draws)| flows * draws).sum::<u64>();
        metric.encode_histogram::<NoLabelSet>(sum as f64, draws.iter().sum(), &buckets(draws), None)
    }

    fn kernel(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let maps = &self.status.maps;
        let entries = maps.iter().filter_map(|map| Some(([("map", &*map.name)], map.entries?)));
        gauge(encoder, "netd_map_entries", "Entries in use", None, entries)?;
        let room = maps.iter().map(|map| ([("map", &*map.name)], u64::from(map.max_entries)));
        gauge(encoder, "netd_map_max_entries", "Entries that a map has room for", None, room)?;
        let uplinks = self.status.uplinks.iter().flat_map(|uplink| {
            let families = [("ipv4", uplink.ipv4.is_some()), ("ipv6", uplink.ipv6.is_some())];
            families.map(|(family, has)| ([("interface", &*uplink.name), ("family", family)], u64::from(has)))
        });
        gauge(encoder, "netd_uplink", "Whether an uplink has an address to masquerade with", None, uplinks)
    }
}

/// The flows of `draws`, indexed by the number of draws, in the histogram's buckets; each flow in one.
fn buckets(draws: &[u64]) -> Vec<(f64, u64)> {
    let mut from = 0;
    let mut buckets: Vec<(f64, u64)> = DRAWS
        .iter()
        .map(|&bound| {
            let to = draws.len().min(bound as usize + 1);
            let flows = draws[from.min(to)..to].iter().sum();
            from = to;
            (f64::from(bound), flows)
        })
        .collect();
    buckets.push((f64::INFINITY, draws[from..].iter().sum()));
    buckets
}

fn build_info(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> fmt::Result {
    let abi = status.abi.to_string();
    let labels = [("version", &*status.version), ("abi", &*abi), ("kernel", &*status.kernel)];
    encoder
        .encode_descriptor(
            "netd_build",
            "The daemon, its maps' layout, and the kernel under it",
            None,
            MetricType::Info,
        )?
        .encode_info(&labels)
}

fn counter<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    series: impl IntoIterator<Item = (L, u64)>,
) -> fmt::Result {
    family(encoder, name, help, unit, MetricType::Counter, series, |mut metric, value| {
        metric.encode_counter::<NoLabelSet, _, f64>(&value, None)
    })
}

fn gauge<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    series: impl IntoIterator<Item = (L, u64)>,
) -> fmt::Result {
    family(encoder, name, help, unit, MetricType::Gauge, series, |mut metric, value| {
        metric.encode_gauge(&value)
    })
}

fn family<L: EncodeLabelSet, V>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    kind: MetricType,
    series: impl IntoIterator<Item = (L, V)>,
    write: impl Fn(MetricEncoder<'_>, V) -> fmt::Result,
) -> fmt::Result {
    let mut series = series.into_iter().peekable();
    if series.peek().is_none() {
        return Ok(());
    }
    let mut metric = encoder.encode_descriptor(name, help, unit, kind)?;
    series.try_for_each(|(labels, value)| write(metric.encode_family(&labels)?, value))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::api::view::{EndpointStats, FlowCounts, Map, NetworkStats, Uplink};

    #[test]
    fn what_is_counted_is_explained() {
        let text = include_str!("../../../docs/counters.md");
        let reasons = DropReason::ALL.iter().map(|reason| reason.name());
        for name in reasons.chain(Path::ALL.iter().map(|path| path.name())) {
            assert!(text.contains(&format!("`{name}`")), "docs/counters.md does not say what {name} is");
        }
    }

    fn sample() -> (Stats, Status) {
        let (sent, received) = (Traffic { packets: 5, bytes: 500 }, Traffic { packets: 2, bytes: 200 });
        let stats = Stats {
            networks: vec![NetworkStats { network: "bridge".into(), sent, received }],
            endpoints: vec![EndpointStats {
                network: "bridge".into(),
                endpoint: "we\"b".into(),
                sent,
                received,
            }],
            paths: BTreeMap::from([
                ("bridged".into(), 7),
                ("flow_created".into(), 4),
                ("flow_ended".into(), 3),
            ]),
            drops: BTreeMap::from([("icc".into(), 1), ("ports_exhausted".into(), 2)]),
            draws: vec![0, 10, 0, 1, 1],
        };
        let status = Status {
            version: "0.1.0".into(),
            abi: 1,
            kernel: "6.12.0".into(),
            uptime: 1.5,
            flows: FlowCounts { ipv4: 1, ipv6: 0 },
            bindings: FlowCounts { ipv4: 0, ipv6: 2 },
            uplinks: vec![Uplink {
                name: "eth0".into(),
                index: 2,
                ipv4: Some([192, 0, 2, 1].into()),
                ipv6: None,
                mtu: 1500,
                up: true,
            }],
            maps: vec![Map {
                name: "FDB".into(),
                kind: "hash".into(),
                key_size: 12,
                value_size: 4,
                max_entries: 16384,
                entries: Some(1),
                id: 1,
            }],
            ..Status::default()
        };
        (stats, status)
    }

    #[test]
    fn the_text_is_golden() {
        let (stats, status) = sample();
        let text = encode(&stats, &status, Format::Prometheus).unwrap();
        assert_eq!(text, include_str!("metrics.golden"));
    }

    #[test]
    fn openmetrics_has_its_types_and_its_end() {
        let (stats, status) = sample();
        let text = encode(&stats, &status, Format::OpenMetrics).unwrap();
        assert!(
            text.contains("# TYPE netd_drops counter\n")
                && text.contains("netd_drops_total{reason=\"icc\"} 1\n")
        );
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn each_flow_is_in_one_bucket() {
        let draws: Vec<u64> = (0..=40).map(|_| 1).collect();
        let buckets = buckets(&draws);
        let flows: Vec<_> = buckets.iter().map(|(_, flows)| *flows).collect();
        assert_eq!(flows, [2, 1, 2, 4, 8, 16, 8]);
        assert_eq!(super::buckets(&[]).iter().map(|(_, flows)| flows).sum::<u64>(), 0);
    }
}
