//! Which ports of the host an endpoint gets.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::{
    link::{self, port},
    model::{
        Bridge, Endpoint, Error, GatewayMode, HostPorts, PortSet, PortSpec, Ports, Protocol, Publication,
        Reserver, State,
    },
};

/// The port of name servers.
const DOMAIN: u16 = 53;

/// Where the search for a free port goes on, by protocol: behind the port that was given last.
pub(in crate::engine) type Cursor = BTreeMap<Protocol, u16>;

/// Ports that are published.
#[derive(Default)]
pub(super) struct Taken(BTreeMap<(Protocol, IpAddr), PortSet>);

impl Taken {
    /// The ports of the endpoints that are asked about.
    pub(super) fn of(state: &State, endpoints: impl Fn(&Endpoint) -> bool) -> Self {
        let mut taken = Self::default();
        for endpoint in state.endpoints.values().filter(|endpoint| endpoints(endpoint)) {
            endpoint.publications.iter().for_each(|publication| taken.add(&publication.host));
        }
        taken
    }

    fn add(&mut self, host: &HostPorts) {
        self.0.entry((host.protocol, host.address)).or_default().add(host.ports());
    }

    /// Whether a socket at the address could not have the port: one of all addresses is in the way of each, and the other
    /// way round.
    fn has(&self, protocol: Protocol, address: IpAddr, port: u16) -> bool {
        self.0.iter().any(|((its_protocol, its), ports)| {
            let same_family = its.is_ipv4() == address.is_ipv4();
            let meets = *its == address || same_family && (its.is_unspecified() || address.is_unspecified());
            *its_protocol == protocol && meets && ports.has(port)
        })
    }
}

/// Finds ports for one endpoint.
pub(super) struct Allocator {
    pub(super) taken: Taken,
    /// What is kept from the host's own sockets, of all protocols (`ip_local_reserved_ports`).
    pub(super) reserved: PortSet,
    pub(super) cursor: Cursor,
    /// Where any port is taken from.
    pub(super) range: Result<Ports, link::Error>,
    pub(super) endpoint: Endpoint,
    pub(super) bridge: Bridge,
    pub(super) reserved_by: Reserver,
    /// Where netd itself answers for names.
    pub(super) name_servers: Vec<IpAddr>,
}

impl Allocator {
    pub(super) fn resolve(&mut self, spec: &PortSpec) -> Result<Vec<Publication>, Error> {
        let addresses = self.addresses(spec)?;
        let (routed, translated): (Vec<_>, Vec<_>) =
            addresses.into_iter().partition(|address| self.is_routed(*address));
        let mut publications = Vec::new();
        for address in routed {
            // No port of the host's: it is the endpoint's own address that is reached.
            let own = self.own(address).ok_or_else(|| self.no_address(address))?;
            let host = self.host(spec.protocol, own, spec.container);
            let publication =
                Publication { host, container: spec.container.first, reserved_by: self.reserved_by };
            // Nothing is taken from anybody: what is open already stays so, once.
            if !self.endpoint.publications.contains(&publication) {
                self.endpoint.publications.push(publication);
                publications.push(publication);
            }
        }
        if !translated.is_empty() {
            for (ports, container) in self.host_ports(spec, &translated)? {
                if spec.protocol == Protocol::Sctp && ports.first != container {
                    return Err(Error::invalid(format!(
                        "cannot publish {spec} at {ports}: the checksum of SCTP covers its ports, which have to be the same"
                    )));
                }
                self.reserve(spec, ports)?;
                for &address in &translated {
                    let host = self.host(spec.protocol, address, ports);
                    self.taken.add(&host);
                    publications.push(Publication { host, container, reserved_by: self.reserved_by });
                }
            }
        }
        Ok(publications)
    }

    /// The host's own sockets are to have some port left to send from.
    fn reserve(&mut self, spec: &PortSpec, ports: Ports) -> Result<(), Error> {
        self.reserved.add(ports);
        let Ok(range) = &self.range else { return Ok(()) };
        let is_of_range = ports.first <= range.last && range.first <= ports.last;
        if !is_of_range || (range.first..=range.last).any(|port| !self.reserved.has(port)) {
            return Ok(());
        }
        Err(Error::conflict(format!(
            "cannot publish {spec}: it would leave the host's own sockets no port of {range} \
             (net.ipv4.ip_local_port_range)"
        )))
    }

    fn host(&self, protocol: Protocol, address: IpAddr, ports: Ports) -> HostPorts {
        HostPorts { protocol, address, first: ports.first, last: ports.last }
    }

    /// The addresses of the host that are meant. All of them are two: one for each family that the endpoint has.
    fn addresses(&self, spec: &PortSpec) -> Result<Vec<IpAddr>, Error> {
        let default =
            self.bridge.host_binding.filter(|address| *address != IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        if let Some(address) = spec.address.or(default) {
            return match self.own(address) {
                Some(_) => Ok(vec![address]),
                None => Err(self.no_address(address)),
            };
        }
        let all = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        Ok(all.into_iter().filter(|address| self.own(*address).is_some()).collect())
    }

    /// The endpoint's address of the same family.
    fn own(&self, address: IpAddr) -> Option<IpAddr> {
        match address {
            IpAddr::V4(_) => self.endpoint.ipv4.map(|net| net.addr().into()),
            IpAddr::V6(_) => self.endpoint.ipv6.map(|net| net.addr().into()),
        }
    }

    fn no_address(&self, address: IpAddr) -> Error {
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        let name = &self.endpoint.name;
        Error::invalid(format!("cannot publish a port of {address}: endpoint {name} has no {family} address"))
    }

    fn is_routed(&self, address: IpAddr) -> bool {
        let mode = if address.is_ipv4() { self.bridge.gateway_mode4 } else { self.bridge.gateway_mode6 };
        matches!(mode, GatewayMode::Routed | GatewayMode::Isolated)
    }

    /// The host's ports for a spec, the same at all addresses, and the container's port behind the first of each.
    fn host_ports(&mut self, spec: &PortSpec, addresses: &[IpAddr]) -> Result<Vec<(Ports, u16)>, Error> {
        let protocol = spec.protocol;
        let container = spec.container;
        match spec.host {
            Some(ports) if ports.count() == container.count() => {
                for (port, inner) in (ports.first..=ports.last).zip(container.first..=container.last) {
                    for &address in addresses {
                        self.is_free(protocol, address, port, inner)?;
                    }
                }
                Ok(vec![(ports, container.first)])
            }
            Some(choice) => {
                let free = (choice.first..=choice.last)
                    .find(|&port| self.is_free_at_all(protocol, addresses, port, container.first));
                let port = free.ok_or_else(all_allocated)?;
                Ok(vec![(Ports { first: port, last: port }, container.first)])
            }
            None => self.any_ports(protocol, addresses, container),
        }
    }

    /// Free ports in the order of their numbers, from behind those that were given last: in one piece if there is one.
    fn any_ports(
        &mut self,
        protocol: Protocol,
        addresses: &[IpAddr],
        container: Ports,
    ) -> Result<Vec<(Ports, u16)>, Error> {
        let range = *self.range.as_ref().map_err(|error| Error::internal(error.to_string()))?;
        let start =
            self.cursor.get(&protocol).copied().filter(|port| (range.first..=range.last).contains(port));
        let after = start.map_or(0, |port| u32::from(port - range.first) + 1);
        let count = range.count();
        let nth = |n: u32| range.first + ((after + n) % count) as u16;
        let mut found: Vec<(Ports, u16)> = Vec::new();
        let mut inner = container.first;
        for port in (0..count).map(nth) {
            if !self.is_free_at_all(protocol, addresses, port, inner) {
                continue;
            }
            match found.last_mut() {
                Some((ports, _)) if ports.last.checked_add(1) == Some(port) => ports.last = port,
                _ => found.push((Ports { first: port, last: port }, inner)),
            }
            if inner == container.last {
                self.cursor.insert(protocol, port);
                return Ok(found);
            }
            inner += 1;
        }
        Err(all_allocated())
    }

    fn is_free_at_all(&self, protocol: Protocol, addresses: &[IpAddr], port: u16, inner: u16) -> bool {
        addresses.iter().all(|&address| self.is_free(protocol, address, port, inner).is_ok())
    }

    fn is_free(&self, protocol: Protocol, address: IpAddr, port: u16, inner: u16) -> Result<(), Error> {
        let shown = |address: IpAddr, port: u16| SocketAddr::new(address, port);
        if self.taken.has(protocol, address, port) {
            let bind = shown(address, port);
            return Err(Error::conflict(format!("Bind for {bind} failed: port is already allocated")));
        }
        let bound = port::try_bind(protocol, address, port);
        if self.reserved_by == Reserver::Runtime && port::is_in_use(&bound) {
            // The socket may be the runtime's own, of a container that runs and changes networks.
            return Ok(());
        }
        if bound.is_err() && port == DOMAIN && address.is_unspecified() {
            // The servers of names are in nobody's way: they are asked at their addresses, whatever is published.
            let is_free = port::is_free_beside(protocol, address, port, &self.name_servers);
            if is_free.is_ok_and(|is_free| is_free) {
                return Ok(());
            }
        }
        bound.map_err(|error| {
            let host = shown(address, port);
            let own = self.own(address).map(|own| shown(own, inner).to_string()).unwrap_or_default();
            Error::conflict(format!(
                "failed to bind host port for {host}:{own}/{protocol}: {}",
                reason(&error)
            ))
        })
    }
}

fn all_allocated() -> Error {
    Error::conflict("all ports are allocated")
}

/// The kernel's reason as Go puts it.
fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => "address already in use".into(),
        Some(libc::EADDRNOTAVAIL) => "cannot assign requested address".into(),
        Some(libc::EACCES) => "permission denied".into(),
        _ => error.to_string(),
    }
}
