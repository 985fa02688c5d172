//! Names: a DNS server on each bridge network's gateway address, for endpoints that no engine serves.
//!
//! It knows the network's endpoints by name, forwards the rest to the servers outside, and nothing for an internal network.

mod responder;
mod share;
mod upstream;
mod zone;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_server::Server;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

use self::{responder::Responder, upstream::Upstream};
use crate::{
    engine::Engine,
    model::{Id, Network, State},
};

pub use self::zone::names;

/// The port of name servers (RFC 1035 section 4.2).
const PORT: u16 = 53;
/// How often a server that could not listen tries again.
const RETRY: Duration = Duration::from_secs(5);
/// How long a TCP client may be silent, and how many answers may wait for it (RFC 7766 section 6.2.3).
const IDLE: Duration = Duration::from_secs(10);
const ANSWERS: usize = 32;

/// Serves names for as long as it is polled: on the gateways of the networks there are, as they come and go.
pub async fn serve(engine: Engine, servers: Vec<IpAddr>) {
    let upstream = Upstream::new(&servers);
    let mut events = engine.events();
    let mut retries = tokio::time::interval(RETRY);
    let mut listeners = Listeners::default();
    loop {
        listeners.follow(&engine, &upstream).await;
        tokio::select! {
            // Whatever happened, or how much of it was missed: the state tells.
            _ = events.recv() => {}
            _ = retries.tick() => {}
        }
    }
}

/// The addresses at which a network's names are served.
pub fn addresses(network: &Network) -> Vec<IpAddr> {
    match &network.bridge {
        // An engine resolves for its own containers.
        Some(bridge) if network.engine_id.is_none() => network
            .ipam
            .pools
            .iter()
            .filter_map(|pool| pool.gateway)
            .filter(|gateway| bridge.bears(gateway.is_ipv6()))
            .collect(),
        _ => Vec::new(),
    }
}

#[derive(Default)]
struct Listeners {
    servers: BTreeMap<Id, Served>,
}

struct Served {
    addresses: Vec<IpAddr>,
    /// Why nobody listens; told once.
    server: Result<Server<Responder>, String>,
}

impl Listeners {
    async fn follow(&mut self, engine: &Engine, upstream: &Upstream) {
        let state = engine.state();
        let wanted = wanted(&state);
        let is_current = |id: &Id, served: &Served| wanted.get(id).map(|(_, a)| a) == Some(&served.addresses);
        let stale: Vec<_> =
            self.servers.iter().filter(|(id, served)| !is_current(id, served)).map(|(id, _)| *id).collect();
        for id in stale {
            if let Some(Served { server: Ok(mut server), .. }) = self.servers.remove(&id)
                && let Err(error) = server.shutdown_gracefully().await
            {
                log::warn!("names: {error}");
            }
        }
        for (id, (network, addresses)) in wanted {
            let before = match self.servers.get(&id) {
                Some(Served { server: Ok(_), .. }) => continue,
                Some(Served { server: Err(problem), .. }) => Some(problem.clone()),
                None => None,
            };
            let server = listen(network, &addresses, Responder::new(engine.clone(), id, upstream.clone()));
            let server = server.map_err(|error| error.to_string());
            match &server {
                Ok(_) => log::debug!("names of {} at {addresses:?}", network.name),
                Err(problem) if before.as_ref() != Some(problem) => {
                    log::warn!("the names of network {} are not served: {problem}", network.name);
                }
                Err(_) => {}
            }
            self.servers.insert(id, Served { addresses, server });
        }
    }
}

fn wanted(state: &State) -> BTreeMap<Id, (&Network, Vec<IpAddr>)> {
    let networks = state.networks.values().map(|network| (network.id, (network, addresses(network))));
    networks.filter(|(_, (_, addresses))| !addresses.is_empty()).collect()
}

/// Listens at all addresses, or at none.
fn listen(network: &Network, addresses: &[IpAddr], responder: Responder) -> io::Result<Server<Responder>> {
    let interface = network.bridge.as_ref().map(|bridge| bridge.interface.as_str()).unwrap_or_default();
    let mut sockets = Vec::new();
    for &address in addresses {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{address} port {PORT}: {error}"));
        let udp = socket(address, interface, Type::DGRAM).map_err(named)?;
        let tcp = socket(address, interface, Type::STREAM).map_err(named)?;
        tcp.listen(ANSWERS as i32).map_err(named)?;
        sockets.push((UdpSocket::from_std(udp.into())?, TcpListener::from_std(tcp.into())?));
    }
    let mut server = Server::new(responder);
    for (udp, tcp) in sockets {
        server.register_socket(udp);
        server.register_listener(tcp, IDLE, ANSWERS);
    }
    Ok(server)
}

fn socket(address: IpAddr, interface: &str, kind: Type) -> io::Result<Socket> {
    let (domain, protocol) = (
        if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 },
        if kind == Type::STREAM { Protocol::TCP } else { Protocol::UDP },
    );
    let socket = Socket::new(domain, kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    // A bridge without a port is down, and its addresses are not there yet.
    if address.is_ipv4() {
        socket.set_freebind_v4(true)?;
    } else {
        socket.set_freebind_v6(true)?;
    }
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&at(address, interface)?.into())?;
    Ok(socket)
}

/// The address with the port; a link-local one means its interface's.
fn at(address: IpAddr, interface: &str) -> io::Result<SocketAddr> {
    Ok(match address {
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            let scope = nix::net::if_::if_nametoindex(interface)?;
            std::net::SocketAddrV6::new(address, PORT, 0, scope).into()
        }
        address => SocketAddr::new(address, PORT),
    })
}
