//! The description of the API, in the format of OpenAPI.

use axum::response::{IntoResponse, Response};

use super::error::JSON;

/// The description; its paths are those of the routes without a version.
pub(crate) const DESCRIPTION: &str = include_str!("../../../docs/openapi.json");

/// `GET /netd/openapi.json`
pub(crate) async fn describe() -> Response {
    ([JSON], DESCRIPTION).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::{
        api::{docker, own},
        engine::Engine,
        model::request,
    };

    fn description() -> Value {
        serde_json::from_str(DESCRIPTION).unwrap()
    }

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let served: BTreeSet<(String, String)> = docker::<Engine>()
            .into_iter()
            .chain(own())
            .map(|route| (route.path.to_owned(), route.method.as_str().to_ascii_lowercase()))
            .collect();
        let description = description();
        let paths = description["paths"].as_object().unwrap();
        let described: BTreeSet<(String, String)> = paths
            .iter()
            .flat_map(|(path, methods)| {
                methods.as_object().unwrap().keys().map(|method| (path.clone(), method.clone()))
            })
            .collect();
        let missing: Vec<_> = served.difference(&described).collect();
        let idle: Vec<_> = described.difference(&served).collect();
        assert!(missing.is_empty(), "docs/openapi.json does not describe {missing:?}");
        assert!(idle.is_empty(), "docs/openapi.json describes what is not served: {idle:?}");
    }

    #[test]
    fn operations_have_names_of_their_own_and_what_they_refer_to_is_there() {
        let description = description();
        let operations = description["paths"].as_object().unwrap().values();
        let operations = operations.flat_map(|methods| methods.as_object().unwrap().values());
        let names: Vec<_> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
        let mut waiting = vec![&description];
        while let Some(value) = waiting.pop() {
            match value {
                Value::Object(fields) => {
                    if let Some(target) = fields.get("$ref") {
                        let target = target.as_str().unwrap();
                        assert!(description.pointer(&target[1..]).is_some(), "{target}");
                    }
                    waiting.extend(fields.values());
                }
                Value::Array(values) => waiting.extend(values),
                _ => {}
            }
        }
    }

    /// The fields of a request, as the description has them.
    fn described(pointer: &str) -> BTreeSet<String> {
        let description = description();
        let properties = description.pointer(&format!("/components/schemas/{pointer}/properties"));
        properties
            .and_then(Value::as_object)
            .unwrap_or_else(|| panic!("no {pointer}"))
            .keys()
            .cloned()
            .collect()
    }

    /// The fields of a request that says all there is to say.
    fn fields(request: impl serde::Serialize) -> BTreeSet<String> {
        serde_json::to_value(request).unwrap().as_object().unwrap().keys().cloned().collect()
    }

    #[test]
    fn every_field_of_a_request_is_described_and_no_other() {
        let some = || Some([("k".to_owned(), "v".to_owned())].into());
        let text = || "x".to_owned();
        let pool = request::PoolRequest {
            subnet: text(),
            ip_range: text(),
            gateway: text(),
            auxiliary_addresses: some().unwrap(),
        };
        let ipam = request::IpamRequest { driver: text(), options: some(), config: vec![pool.clone()] };
        let create = request::NetworkCreate {
            driver: Some(text()),
            enable_ipv4: Some(true),
            enable_ipv6: Some(true),
            ipam: Some(ipam.clone()),
            config_from: Some(request::ConfigFrom::default()),
            ..request::NetworkCreate::default()
        };
        assert_eq!(fields(create), described("NetworkCreate"));
        assert_eq!(fields(ipam), described("NetworkCreate/properties/IPAM"));
        assert_eq!(fields(pool), described("NetworkCreate/properties/IPAM/properties/Config/items"));
        let addresses = request::EndpointAddresses {
            ipv4_address: text(),
            ipv6_address: text(),
            link_local_ips: vec![text()],
        };
        let config = request::EndpointConfig {
            ipam_config: Some(addresses.clone()),
            ..request::EndpointConfig::default()
        };
        let connect = request::NetworkConnect {
            endpoint_config: Some(config.clone()),
            ..request::NetworkConnect::default()
        };
        assert_eq!(fields(connect), described("NetworkConnect"));
        assert_eq!(fields(config), described("NetworkConnect/properties/EndpointConfig"));
        let pointer = "NetworkConnect/properties/EndpointConfig/properties/IPAMConfig";
        assert_eq!(fields(addresses), described(pointer));
        assert_eq!(fields(request::NetworkDisconnect::default()), described("NetworkDisconnect"));
    }
}
