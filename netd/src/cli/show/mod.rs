//! What netd knows, as tables for people. They fit 100 columns as far as IPv4 is concerned.

mod nat;
mod stats;
mod status;

use serde::de::DeserializeOwned;

pub(super) use self::{nat::nat, stats::stats, status::status};
use super::{
    client::Client,
    format::{self, indent, table},
};
use crate::api::view::{Names, Routes, Station};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::view::{NetworkRoute, UplinkRoute};

    pub(super) fn fits(text: &str) {
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
        }
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
}
