//! Ports of the host that lead to endpoints.

mod allocator;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use serde::Deserialize;

use super::{Engine, Writer, external, internal, reserve};
use crate::{
    link::{port, sysctl},
    model::{
        Endpoint, Error, HostPorts, Network, PortSpec, Ports, Protocol, Publication, Reserver, State, request,
    },
    plan::{self, Step},
};

pub(super) use allocator::Cursor;
use allocator::{Allocator, Taken};

/// Endpoint option: ports to publish, as libnetwork tells a driver.
const PORTMAP: &str = "com.docker.network.portmap";

impl Engine {
    /// Publishes ports of an endpoint that is in use. Returns what is published now that was not before.
    ///
    /// # Errors
    /// In Docker's words; nothing has changed then.
    pub async fn publish(&self, request: request::Publish) -> Result<Vec<Publication>, Error> {
        self.act(move |engine, mut writer| async move {
            loop {
                let published = engine.publish_once(&mut writer, &request).await;
                // Somebody who is no more may have had the port.
                if published.is_ok() || !engine.forget_departed(&mut writer).await? {
                    return published;
                }
            }
        })
        .await
    }

    async fn publish_once(
        &self,
        writer: &mut Writer,
        request: &request::Publish,
    ) -> Result<Vec<Publication>, Error> {
        let specs = read(&request.ports)?;
        let state = self.state();
        let endpoint = find(&state, &request.endpoint)?;
        let network = &state.networks[&endpoint.network];
        let added = self.resolve(writer, &state, network, endpoint, specs, Reserver::Netd).await?;
        let mut changed = endpoint.clone();
        changed.publications.extend(added.iter().copied());
        changed.publications.sort_unstable();
        self.put_endpoint(writer, &changed).await?;
        Ok(added)
    }

    /// Ends the publication of ports.
    ///
    /// # Errors
    /// If a port is not published; nothing has changed then.
    pub async fn unpublish(&self, request: request::Publish) -> Result<Vec<Publication>, Error> {
        self.act(move |engine, mut writer| async move {
            let specs = read(&request.ports)?;
            let state = engine.state();
            let endpoint = published_by(&state, &request.endpoint, &specs)?;
            for (spec, text) in specs.iter().zip(&request.ports) {
                if !publishes(endpoint, spec) {
                    let whole = endpoint.publications.iter().find(|publication| publication.holds(spec));
                    let whole = whole.map(|it| format!(" but as part of {}, which ends as a whole", it.host));
                    return Err(Error::not_found(format!(
                        "port {text} is not published by endpoint {}{}",
                        endpoint.name,
                        whole.unwrap_or_default()
                    )));
                }
            }
            let (ending, staying): (Vec<_>, Vec<_>) = endpoint
                .publications
                .iter()
                .copied()
                .partition(|publication| specs.iter().any(|spec| is_meant(endpoint, publication, spec)));
            // A port of the endpoint's own address is open for as long as one of all the host's addresses leads to it: that opened it,
            // which one of a single address does not.
            let is_own = |publication: &Publication| endpoint.has(publication.host.address);
            let opener = |own: &Publication| {
                let opens = |it: &&Publication| it.host.address.is_unspecified() && it.leads_where(own);
                staying.iter().find(opens).filter(|_| is_own(own))
            };
            let (kept, removed): (Vec<_>, Vec<_>) = ending.into_iter().partition(|it| opener(it).is_some());
            if let (Some(own), []) = (kept.first(), &*removed)
                && let Some(opener) = opener(own)
            {
                return Err(Error::conflict(format!(
                    "{} stays open for as long as {} is published",
                    own.host, opener.host
                )));
            }
            let mut changed = endpoint.clone();
            changed.publications = [staying, kept].concat();
            changed.publications.sort_unstable();
            if let Err(error) = engine.put_endpoint(&mut writer, &changed).await
                && !engine.has_departed(&mut writer, changed.id).await?
            {
                return Err(error);
            }
            Ok(removed)
        })
        .await
    }

    /// The ports that a new endpoint's options ask for.
    pub(super) fn specs(options: &BTreeMap<String, String>) -> Result<Vec<PortSpec>, Error> {
        let mut specs = Vec::new();
        if let Some(json) = options.get(PORTMAP) {
            specs.extend(read_portmap(json)?);
        }
        if let Some(list) = options.get(request::PUBLISH) {
            let texts: Vec<_> = list.split(',').map(|text| text.trim().to_owned()).collect();
            specs.extend(read(&texts).map_err(|error| {
                Error::invalid(format!("invalid {}: {}", request::PUBLISH, error.message))
            })?);
        }
        Ok(specs)
    }

    /// What specs come to for an endpoint: which addresses, and which ports of those that are free.
    pub(super) async fn resolve(
        &self,
        writer: &mut Writer,
        state: &State,
        network: &Network,
        endpoint: &Endpoint,
        specs: Vec<PortSpec>,
        reserved_by: Reserver,
    ) -> Result<Vec<Publication>, Error> {
        let Some(bridge) = network.bridge.clone().filter(|_| !specs.is_empty()) else {
            return Ok(Vec::new());
        };
        if network.internal {
            return Err(Error::forbidden(format!(
                "network {} is internal: nobody outside can reach what would be published",
                network.name
            )));
        }
        for address in specs.iter().filter_map(|spec| spec.address.or(bridge.host_binding)) {
            external::not_external(state, "publish a port of", address)?;
        }
        // An address that has just come is the host's already.
        self.refresh_locals(writer).await?;
        // A runtime names a container's ports anew at each network that the container joins.
        let beside = self.beside(endpoint);
        let is_its_own = |other: &Endpoint| {
            reserved_by == Reserver::Runtime
                && other.container == endpoint.container
                && beside.contains(&other.id)
        };
        let mut allocator = Allocator {
            taken: Taken::of(state, |other| !is_its_own(other)),
            reserved: reserve::published(state),
            cursor: writer.ports.clone(),
            range: sysctl::local_port_range().map(|range| Ports { first: range.first, last: range.last }),
            endpoint: endpoint.clone(),
            bridge,
            reserved_by,
            name_servers: name_servers(state),
        };
        // Whether a port is free is asked of the kernel, port by port.
        let resolved = tokio::task::spawn_blocking(move || {
            let mut publications = Vec::new();
            for spec in specs {
                publications.extend(allocator.resolve(&spec)?);
            }
            Ok::<_, Error>((publications, allocator.cursor))
        });
        let (publications, cursor) = resolved.await.map_err(internal)??;
        writer.ports = cursor;
        Ok(publications)
    }
}

/// Tells of ports that lead to an endpoint from now on, and that somebody has bound while no daemon kept them: he hears nothing any more.
pub(super) async fn warn_of_bound(steps: &[Step]) -> Result<(), Error> {
    let ports: Vec<HostPorts> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Publication { host, from: None, to: Some(row) } if row.reserved_by == Reserver::Netd => {
                Some(*host)
            }
            _ => None,
        })
        .collect();
    let find = move || {
        for host in ports {
            let is_bound = |port: &u16| port::is_in_use(&port::try_bind(host.protocol, host.address, *port));
            if let Some(port) = (host.first..=host.last).find(is_bound) {
                let (at, protocol) = (SocketAddr::new(host.address, port), host.protocol);
                log::warn!(
                    "a process of the host is bound to {at}/{protocol}, which is published: it hears nobody there"
                );
            }
        }
    };
    tokio::task::spawn_blocking(find).await.map_err(internal)
}

/// The addresses at which netd itself answers for names.
fn name_servers(state: &State) -> Vec<IpAddr> {
    let networks = state.networks.values().filter(|network| network.engine_id.is_none());
    networks.flat_map(|network| &network.ipam.pools).filter_map(|pool| pool.gateway).collect()
}

/// Reads specs, and says which one is wrong where there are several.
fn read(texts: &[String]) -> Result<Vec<PortSpec>, Error> {
    if texts.is_empty() {
        return Err(Error::invalid("no port is named"));
    }
    texts.iter().map(|text| text.parse()).collect()
}

/// One entry of libnetwork's port map.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct PortBinding {
    proto: u8,
    port: u16,
    #[serde(rename = "HostIP")]
    host_ip: String,
    host_port: u16,
    host_port_end: u16,
}

fn read_portmap(json: &str) -> Result<Vec<PortSpec>, Error> {
    let invalid = |reason: String| Error::invalid(format!("invalid {PORTMAP}: {reason}"));
    let bindings: Vec<PortBinding> =
        serde_json::from_str(json).map_err(|error| invalid(error.to_string()))?;
    let read = |binding: PortBinding| {
        let protocol = Protocol::of(binding.proto)
            .ok_or_else(|| invalid(format!("protocol {} has no ports", binding.proto)))?;
        if binding.port == 0 {
            return Err(invalid("a container's port is not 0".into()));
        }
        let address = match binding.host_ip.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| Error::invalid(format!("invalid IP address: {text}")))?),
        };
        let last = binding.host_port_end.max(binding.host_port);
        let host = (binding.host_port != 0).then_some(Ports { first: binding.host_port, last });
        PortSpec::new(address, host, Ports { first: binding.port, last: binding.port }, protocol)
    };
    Ok(in_order(bindings.into_iter().map(read).collect::<Result<_, _>>()?))
}

/// Ports that are named before those that may be any of several, which could take them; and ranges, which an engine takes apart and
/// names in any order, as ranges.
fn in_order(mut specs: Vec<PortSpec>) -> Vec<PortSpec> {
    let named = |spec: &PortSpec| spec.host.filter(|host| host.count() == spec.container.count());
    specs.sort_by_key(|spec| match named(spec) {
        Some(host) => (false, Some((spec.protocol, spec.address, host.first, spec.container.first))),
        None => (true, None),
    });
    specs.dedup_by(|next, last| {
        let (Some(host), Some(before)) = (named(next), named(last)) else { return false };
        let is_next = (next.protocol, next.address) == (last.protocol, last.address)
            && before.last.checked_add(1) == Some(host.first)
            && last.container.last.checked_add(1) == Some(next.container.first);
        if is_next {
            last.host = Some(Ports { last: host.last, ..before });
            last.container.last = next.container.last;
        }
        is_next
    });
    specs
}

/// Whether a spec says this publication. Where it is the endpoint's own address that is dialled, the host's half says nothing.
fn is_meant(endpoint: &Endpoint, publication: &Publication, spec: &PortSpec) -> bool {
    let own = PortSpec { address: None, host: None, ..*spec };
    publication.is_meant_by(if endpoint.has(publication.host.address) { &own } else { spec })
}

fn publishes(endpoint: &Endpoint, spec: &PortSpec) -> bool {
    endpoint.publications.iter().any(|publication| is_meant(endpoint, publication, spec))
}

/// The one endpoint of those that `text` names that has published all this; or else the one that [`find`] finds.
fn published_by<'a>(state: &'a State, text: &str, specs: &[PortSpec]) -> Result<&'a Endpoint, Error> {
    let named = named(state, text)?;
    let mut all = named.iter().filter(|endpoint| specs.iter().all(|spec| publishes(endpoint, spec)));
    match (all.next(), all.next()) {
        (Some(endpoint), None) => Ok(endpoint),
        _ => find(state, text),
    }
}

/// The endpoint that `text` names. Of a sandbox in several networks it is the endpoint that carries the sandbox's default route.
fn find<'a>(state: &'a State, text: &str) -> Result<&'a Endpoint, Error> {
    let named = named(state, text)?;
    if let [endpoint] = *named {
        return Ok(endpoint);
    }
    let sandbox = named.first().and_then(|endpoint| endpoint.far_end.sandbox());
    let gateway = sandbox.and_then(|sandbox| plan::gateway_endpoint(state, sandbox));
    let is_gateway = |endpoint: &&Endpoint| gateway.is_some_and(|gateway| gateway.id == endpoint.id);
    named.iter().copied().find(is_gateway).ok_or_else(|| {
        Error::invalid(format!("endpoint {text} is in several networks: name it as NETWORK/ENDPOINT"))
    })
}

/// The endpoints that `text` names, one at the least: `NETWORK/ENDPOINT`, or an endpoint's sandbox, name or id.
fn named<'a>(state: &'a State, text: &str) -> Result<Vec<&'a Endpoint>, Error> {
    let found: Vec<_> = match text.split_once('/').filter(|(network, _)| !network.is_empty()) {
        Some((network, endpoint)) if let Ok(network) = state.find_network(network) => {
            state.find_endpoint(network.id, endpoint).into_iter().collect()
        }
        _ => state.networks.keys().filter_map(|&network| state.find_endpoint(network, text)).collect(),
    };
    if found.is_empty() { Err(Error::not_found(format!("endpoint {text} not found"))) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::sample;

    #[test]
    fn an_endpoint_is_found_by_all_its_names() {
        let state = sample::state();
        let endpoint = state.endpoints.values().next().unwrap();
        let id = endpoint.id.to_string();
        for name in ["web", "netns:web", "/run/netns/web", "n1/web", "n1/netns:web", &id] {
            assert_eq!(find(&state, name).unwrap().id, endpoint.id, "{name}");
        }
        for name in ["", "dev/web", "n1/x", "x", "/x"] {
            assert_eq!(find(&state, name).unwrap_err().message, format!("endpoint {name} not found"));
        }
    }

    #[test]
    fn a_fault_in_a_list_of_ports_names_the_option() {
        let options = BTreeMap::from([(request::PUBLISH.to_owned(), "8080:80,".to_owned())]);
        let error = Engine::specs(&options).unwrap_err().message;
        assert_eq!(error, "invalid netd.publish: no port specified: <empty>");
    }

    #[test]
    fn libnetworks_port_map_is_read() {
        let json = r#"[{"Proto":6,"IP":"","Port":80,"HostIP":"","HostPort":8080,"HostPortEnd":8080},
            {"Proto":17,"Port":53,"HostIP":"::1","HostPort":0,"HostPortEnd":0},
            {"Proto":6,"Port":90,"HostIP":"0.0.0.0","HostPort":9000,"HostPortEnd":9010}]"#;
        let specs: Vec<_> = read_portmap(json).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(specs, ["8080:80/tcp", "[::1]::53/udp", "0.0.0.0:9000-9010:90/tcp"]);
        // Whatever the order: named ports first, and as ranges where they are.
        let port = |inner: u16, outer: u16, end: u16| {
            format!(r#"{{"Proto":17,"Port":{inner},"HostPort":{outer},"HostPortEnd":{end}}}"#)
        };
        let ports =
            [(7, 0, 0), (5, 20, 29), (82, 92, 92), (80, 90, 90), (81, 91, 91), (90, 93, 93), (80, 90, 90)];
        let json = ports.map(|(inner, outer, end)| port(inner, outer, end)).join(",");
        let specs: Vec<_> =
            read_portmap(&format!("[{json}]")).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(specs, ["90:80/udp", "90-92:80-82/udp", "93:90/udp", "7/udp", "20-29:5/udp"]);
        for (json, reason) in [
            ("{}", "invalid type"),
            (r#"[{"Proto":1,"Port":80}]"#, "protocol 1 has no ports"),
            (r#"[{"Proto":6}]"#, "not 0"),
            (r#"[{"Proto":6,"Port":80,"HostIP":"x"}]"#, "invalid IP address: x"),
        ] {
            let error = read_portmap(json).unwrap_err().message;
            assert!(error.contains(reason), "{json}: {error}");
        }
    }
}
