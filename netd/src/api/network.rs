//! Networks as Docker's JSON has them, field by field in its order, and which of them a filter lets through.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use serde::Serialize;

use super::{error::Refusal, filter::Filters};
use crate::model::{Endpoint, Network, Pool, State};

/// Keys that `GET /networks` filters by.
const KEYS: [&str; 7] = ["dangling", "driver", "id", "label", "name", "scope", "type"];

/// A network, as listed and inspected.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Resource<'a> {
    name: &'a str,
    id: String,
    created: String,
    scope: &'static str,
    driver: &'static str,
    #[serde(rename = "EnableIPv4")]
    enable_ipv4: bool,
    #[serde(rename = "EnableIPv6")]
    enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    ipam: IpamResource<'a>,
    internal: bool,
    attachable: bool,
    ingress: bool,
    config_from: ConfigReference<'a>,
    config_only: bool,
    containers: BTreeMap<String, EndpointResource<'a>>,
    options: &'a BTreeMap<String, String>,
    labels: &'a BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct IpamResource<'a> {
    driver: &'a str,
    options: Option<&'a BTreeMap<String, String>>,
    /// `null` where there are none: Go's nil slice.
    config: Option<Vec<PoolResource<'a>>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct PoolResource<'a> {
    subnet: IpNet,
    #[serde(rename = "IPRange", skip_serializing_if = "Option::is_none")]
    ip_range: Option<IpNet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    auxiliary_addresses: &'a BTreeMap<String, IpAddr>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ConfigReference<'a> {
    network: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct EndpointResource<'a> {
    name: &'a str,
    #[serde(rename = "EndpointID")]
    endpoint_id: String,
    mac_address: String,
    #[serde(rename = "IPv4Address")]
    ipv4_address: String,
    #[serde(rename = "IPv6Address")]
    ipv6_address: String,
}

/// `network` as a list shows it: without its endpoints.
pub(crate) fn listed(network: &Network) -> Resource<'_> {
    let ipam = &network.ipam;
    let mut pools: Vec<_> = ipam.pools.iter().collect();
    if !network.is_predefined() {
        // What was asked for comes first, as Docker has it, and then what a family got that nobody asked about.
        pools.sort_by_key(|pool| !pool.requested);
    }
    Resource {
        name: &network.name,
        id: network.id.to_string(),
        created: network.created.to_string(),
        scope: "local",
        driver: network.driver.name(),
        enable_ipv4: network.enable_ipv4,
        enable_ipv6: network.enable_ipv6,
        ipam: IpamResource {
            driver: &ipam.driver,
            options: ipam.options.as_ref(),
            config: (!pools.is_empty()).then(|| pools.into_iter().map(pool).collect()),
        },
        internal: network.internal,
        attachable: network.attachable,
        ingress: false,
        config_from: ConfigReference { network: network.config_from.as_deref().unwrap_or_default() },
        config_only: network.config_only,
        containers: BTreeMap::new(),
        options: &network.options,
        labels: &network.labels,
    }
}

/// `network` with its endpoints.
///
/// Each is under `ep-` and its id, as Docker has those of no container of its own.
pub(crate) fn inspected<'a>(network: &'a Network, state: &'a State) -> Resource<'a> {
    let containers =
        state.endpoints_of(network.id).map(|it| (format!("ep-{}", it.id), endpoint(it))).collect();
    Resource { containers, ..listed(network) }
}

fn pool(pool: &Pool) -> PoolResource<'_> {
    PoolResource {
        subnet: pool.subnet,
        ip_range: pool.range,
        gateway: pool.gateway.filter(|_| pool.gateway_shown),
        auxiliary_addresses: &pool.auxiliary,
    }
}

fn endpoint(endpoint: &Endpoint) -> EndpointResource<'_> {
    EndpointResource {
        name: &endpoint.name,
        endpoint_id: endpoint.id.to_string(),
        mac_address: endpoint.mac.to_string(),
        ipv4_address: endpoint.ipv4.map(|address| address.to_string()).unwrap_or_default(),
        ipv6_address: endpoint.ipv6.map(|address| address.to_string()).unwrap_or_default(),
    }
}

/// The networks of `state` that `filters` let through, by name.
pub(crate) fn list<'a>(state: &'a State, filters: &Filters) -> Result<Vec<&'a Network>, Refusal> {
    filters.only(&KEYS)?;
    let dangling = dangling(filters)?;
    let kinds = kinds(filters)?;
    let mut networks: Vec<_> = state
        .networks
        .values()
        .filter(|network| {
            let used = network.is_predefined() || state.endpoints_of(network.id).next().is_some();
            filters.exact("driver", network.driver.name())
                && filters.pattern("name", &network.name)
                && filters.pattern("id", &network.id.to_string())
                && filters.labels("label", &network.labels)
                && filters.exact("scope", "local")
                && dangling.is_none_or(|dangling| dangling != used)
                && kinds.as_ref().is_none_or(|kinds| kinds.contains(&network.is_predefined()))
        })
        .collect();
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(networks)
}

/// Whether unused networks alone are asked for, or used ones alone.
fn dangling(filters: &Filters) -> Result<Option<bool>, Refusal> {
    let Some(values) = filters.values("dangling") else { return Ok(None) };
    let mut values = values.iter().map(String::as_str);
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(Refusal::invalid("got more than one value for filter key \"dangling\"")),
        (Some("1" | "true"), None) => Ok(Some(true)),
        (Some("0" | "false"), None) => Ok(Some(false)),
        _ => Err(Refusal::invalid(
            "invalid value for filter 'dangling', must be \"true\" (or \"1\"), or \"false\" (or \"0\")",
        )),
    }
}

/// Whether predefined networks are asked for, others, or both.
fn kinds(filters: &Filters) -> Result<Option<BTreeSet<bool>>, Refusal> {
    filters
        .values("type")
        .map(|values| {
            values
                .iter()
                .map(|value| match value.as_str() {
                    "builtin" => Ok(true),
                    "custom" => Ok(false),
                    // Docker calls this a fault of its own.
                    other => Err(Refusal::internal(format!("invalid filter: 'type'='{other}'"))),
                })
                .collect()
        })
        .transpose()
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use serde_json::json;

    use super::*;
    use crate::api::sample;

    fn names(filters: &serde_json::Value) -> Result<Vec<String>, Refusal> {
        let filters = Filters::parse(&filters.to_string())?;
        Ok(list(&sample::state(), &filters)?.iter().map(|network| network.name.clone()).collect())
    }

    #[test]
    fn the_default_network_is_golden() {
        let state = sample::state();
        let json = serde_json::to_string(&listed(state.network_named("bridge").unwrap())).unwrap();
        assert_eq!(
            json,
            concat!(
                r#"{"Name":"bridge","Id":"0101010101010101010101010101010101010101010101010101010101010101","#,
                r#""Created":"2025-06-01T10:00:00.123456789Z","Scope":"local","Driver":"bridge","#,
                r#""EnableIPv4":true,"EnableIPv6":false,"IPAM":{"Driver":"default","Options":null,"#,
                r#""Config":[{"Subnet":"172.17.0.0/16","Gateway":"172.17.0.1"}]},"#,
                r#""Internal":false,"Attachable":false,"Ingress":false,"ConfigFrom":{"Network":""},"#,
                r#""ConfigOnly":false,"Containers":{},"#,
                r#""Options":{"com.docker.network.bridge.name":"netd0"},"Labels":{}}"#,
            )
        );
    }

    #[test]
    fn an_inspected_network_is_golden() {
        let state = sample::state();
        let json = serde_json::to_string(&inspected(state.network_named("n1").unwrap(), &state)).unwrap();
        assert_eq!(
            json,
            concat!(
                r#"{"Name":"n1","Id":"0202020202020202020202020202020202020202020202020202020202020202","#,
                r#""Created":"2025-06-01T10:00:00.123456789Z","Scope":"local","Driver":"bridge","#,
                r#""EnableIPv4":true,"EnableIPv6":true,"IPAM":{"Driver":"default","Options":{},"#,
                r#""Config":[{"Subnet":"10.5.0.0/16","IPRange":"10.5.1.0/24","Gateway":"10.5.0.1","#,
                r#""AuxiliaryAddresses":{"h":"10.5.0.9"}},{"Subnet":"fd00:5::/64"}]},"#,
                r#""Internal":true,"Attachable":true,"Ingress":false,"ConfigFrom":{"Network":""},"#,
                r#""ConfigOnly":false,"Containers":{"#,
                r#""ep-0909090909090909090909090909090909090909090909090909090909090909":{"Name":"web","#,
                r#""EndpointID":"0909090909090909090909090909090909090909090909090909090909090909","#,
                r#""MacAddress":"02:42:0a:05:01:02","IPv4Address":"10.5.1.2/16","IPv6Address":"fd00:5::2/64"}},"#,
                r#""Options":{},"Labels":{"in":"out"}}"#,
            )
        );
    }

    #[test]
    fn a_network_without_addresses_is_golden() {
        let state = sample::state();
        let json = serde_json::to_value(listed(state.network_named("host").unwrap())).unwrap();
        assert_eq!(json["IPAM"].to_string(), r#"{"Config":null,"Driver":"default","Options":null}"#);
        assert_eq!(json["Driver"], "host");
    }

    #[test]
    fn filters_let_through_what_they_name() {
        for (filters, let_through) in [
            (json!({}), &["bridge", "dev", "host", "n1", "none"][..]),
            (json!({"name": ["n"]}), &["n1", "none"]),
            (json!({"name": {"^dev$": true}}), &["dev"]),
            (json!({"id": ["0202"]}), &["n1"]),
            (json!({"driver": ["bridge"]}), &["bridge", "dev", "n1"]),
            (json!({"driver": ["brid"]}), &[]),
            (json!({"driver": ["host", "null"]}), &["host", "none"]),
            (json!({"type": ["custom"]}), &["dev", "n1"]),
            (json!({"type": ["builtin"]}), &["bridge", "host", "none"]),
            (json!({"type": ["custom", "builtin"]}), &["bridge", "dev", "host", "n1", "none"]),
            (json!({"label": ["in"]}), &["n1"]),
            (json!({"label": ["in=out"]}), &["n1"]),
            (json!({"label": ["in=x"]}), &[]),
            (json!({"scope": ["local"]}), &["bridge", "dev", "host", "n1", "none"]),
            (json!({"scope": ["swarm"]}), &[]),
            (json!({"dangling": ["true"]}), &["dev"]),
            (json!({"dangling": ["0"]}), &["bridge", "host", "n1", "none"]),
            (json!({"driver": ["bridge"], "name": ["^d"]}), &["dev"]),
        ] {
            assert_eq!(names(&filters).unwrap(), let_through, "{filters}");
        }
    }

    #[test]
    fn bad_filters_are_refused_in_dockers_words() {
        let refused = |filters: serde_json::Value| names(&filters).unwrap_err();
        assert_eq!(refused(json!({"foo": ["bar"]})), Refusal::invalid("invalid filter 'foo'"));
        assert_eq!(
            refused(json!({"type": ["x"]})),
            Refusal {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                message: "invalid filter: 'type'='x'".into()
            }
        );
        assert!(
            refused(json!({"dangling": ["maybe"]}))
                .message
                .starts_with("invalid value for filter 'dangling'")
        );
        assert!(refused(json!({"dangling": ["1", "0"]})).message.starts_with("got more than one value"));
    }
}
