//! Connections of the host's own that a published port has led to a container, once it does so no more.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use netd_tests::lab::{Container, DUAL, Family, Lab, PATIENCE, at, bound, connect};
use socket2::{Domain, Socket, Type};

/// The kinds of errors that a client and a server hear when both are told.
const TOLD: [io::ErrorKind; 2] = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset];

/// A server in a container, and the host that dials it.
struct Served<'a> {
    lab: &'a Lab,
    listener: TcpListener,
}

impl<'a> Served<'a> {
    fn new(lab: &'a Lab, container: &Container, address: SocketAddr) -> Self {
        Self { lab, listener: bound(&container.ns, address, TcpListener::bind) }
    }

    /// Both ends of a new connection, the client's first.
    fn dial(&self, to: SocketAddr) -> [TcpStream; 2] {
        let client = connect(&self.lab.host.ns, 0, to).unwrap_or_else(|e| panic!("connecting to {to}: {e}"));
        [client, self.accepted()]
    }

    /// The same from a socket of IPv6 that dials IPv4.
    fn dial_mapped(&self, to: SocketAddr) -> [TcpStream; 2] {
        let IpAddr::V4(address) = to.ip() else { panic!("{to} is of IPv6") };
        let socket = self.lab.host.ns.enter(|| Socket::new(Domain::IPV6, Type::STREAM, None));
        let socket = socket.expect("a socket");
        socket.set_only_v6(false).expect("a socket of both families");
        socket.connect(&at(address.to_ipv6_mapped(), to.port()).into()).expect("connecting");
        let client = TcpStream::from(socket);
        client.set_read_timeout(Some(PATIENCE)).expect("a socket's timeout");
        [client, self.accepted()]
    }

    fn accepted(&self) -> TcpStream {
        let (server, _) = self.listener.accept().expect("a connection");
        server.set_read_timeout(Some(PATIENCE)).expect("a socket's timeout");
        server
    }
}

fn heard(stream: &mut TcpStream) -> io::ErrorKind {
    stream.read(&mut [0; 1]).expect_err("the connection is no more").kind()
}

#[test]
fn nat48_both_ends_of_a_connection_are_told_that_its_port_is_published_no_more() {
    let lab = Lab::new();
    let a = lab.container("a");
    let netd = |verb: &str, specs: &str| lab.host.netd(&format!("{verb} netns:{} {specs}", a.ns.name()));
    for family in Family::BOTH {
        let served = Served::new(&lab, &a, family.any(80));
        netd("publish", "8080-8082:80-82 8090:80");
        let all = [family.loopback(), family.host(), a.gateway(family)];
        let mut ended = Vec::from(all.map(|address| served.dial(at(address, 8080))));
        if family == Family::V4 {
            ended.push(served.dial_mapped(at(family.loopback(), 8080)));
        }
        // By another port, and by none.
        let mut kept = [served.dial(at(family.loopback(), 8090)), served.dial(at(a.address(family), 80))];
        netd("unpublish", "8080-8082:80-82");
        for ends in &mut ended {
            assert_eq!(ends.each_mut().map(heard), TOLD, "{family:?}");
        }
        for [client, server] in &mut kept {
            client.write_all(b"hello").expect("sending");
            server.read_exact(&mut [0; 5]).expect("what was sent");
            server.write_all(b"hello").expect("sending");
            client.read_exact(&mut [0; 5]).expect("the answer");
        }
        netd("unpublish", "8090:80");
        assert_eq!(kept[0].each_mut().map(heard), TOLD, "{family:?}");
    }
}

#[test]
fn nat48_a_connection_ends_with_its_endpoint() {
    let lab = Lab::new();
    for family in Family::BOTH {
        let a = lab.container("a");
        lab.host.netd(&format!("publish netns:{} 8080:80", a.ns.name()));
        let served = Served::new(&lab, &a, family.any(80));
        let [mut client, _server] = served.dial(at(family.loopback(), 8080));
        lab.host.netd(&format!("network disconnect {DUAL} netns:{}", a.ns.name()));
        assert_eq!(heard(&mut client), TOLD[0], "{family:?}");
    }
}
