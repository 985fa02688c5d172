//! Names: what a container finds out about its neighbours, and about the world (T76).

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::str::FromStr as _;
use std::sync::{Arc, Mutex};
use std::thread;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType, rdata::A};
use netd_tests::lab::{Container, Family, Lab, Namespace, ask, at, bound, connect, udp, until};

/// The gateways of [`netd_tests::lab::DUAL`].
const GATEWAYS: [(Family, &str); 2] = [(Family::V4, "172.30.0.1"), (Family::V6, "fd00:30::1")];

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(0x6e64, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_str(name).expect("a name"), kind));
    message.to_vec().expect("a message")
}

fn read(answer: &[u8]) -> (ResponseCode, Vec<String>) {
    let message = Message::from_vec(answer).expect("a message");
    assert_eq!(message.metadata.id, 0x6e64);
    (message.metadata.response_code, message.answers.iter().map(|record| record.data.to_string()).collect())
}

/// Asks by UDP.
pub(crate) fn resolve(
    ns: &Namespace,
    server: SocketAddr,
    name: &str,
    kind: RecordType,
) -> (ResponseCode, Vec<String>) {
    let family = if server.is_ipv4() { Family::V4 } else { Family::V6 };
    read(&ask(&udp(ns, family, 0), server, &query(name, kind)))
}

/// Asks by TCP.
fn resolve_by_tcp(ns: &Namespace, server: SocketAddr, name: &str) -> (ResponseCode, Vec<String>) {
    let mut stream = connect(ns, 0, server).expect("connecting to the name server");
    let query = query(name, RecordType::A);
    stream.write_all(&(query.len() as u16).to_be_bytes()).expect("sending");
    stream.write_all(&query).expect("sending");
    read(&message_of(&mut stream))
}

fn message_of(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("a length");
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).expect("a message");
    message
}

/// A name server in the outside that remembers what it was asked.
struct Outside {
    asked: Arc<Mutex<Vec<String>>>,
}

impl Outside {
    /// One that knows `example.test`.
    fn new(ns: &Namespace, address: IpAddr) -> Self {
        let known = |name: &str| {
            if name == "example.test." { ResponseCode::NoError } else { ResponseCode::NXDomain }
        };
        Self::saying(ns, address, known)
    }

    /// One that says so of a name, with an address where it is no error.
    fn saying(ns: &Namespace, address: IpAddr, code: impl Fn(&str) -> ResponseCode + Send + 'static) -> Self {
        let socket = bound(ns, at(address, 53), std::net::UdpSocket::bind);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let record = asked.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                let question = Message::from_vec(&buffer[..length]).expect("a question");
                let name = question.queries[0].name().to_string();
                let mut answer = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
                answer.add_query(question.queries[0].clone());
                answer.metadata.response_code = code(&name);
                if answer.metadata.response_code == ResponseCode::NoError {
                    let data = RData::A(A::new(192, 0, 2, 7));
                    answer.add_answer(Record::from_rdata(question.queries[0].name().clone(), 60, data));
                }
                record.lock().expect("no thread panics with it").push(name);
                socket.send_to(&answer.to_vec().expect("a message"), client).expect("answering");
            }
        });
        Self { asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no thread panics with it").clone()
    }
}

/// Waits until somebody listens: the daemon takes up a new network's names when it hears of it.
fn served(container: &Container, server: SocketAddr) {
    until("the name server listens", || connect(&container.ns, 0, server).is_ok());
}

#[test]
fn t76_names_addresses_and_the_world() {
    let lab = Lab::wired();
    lab.host.resolve_by(&[Family::V4.outside()]);
    lab.host.start(&[]);
    lab.host.netd("network create --ipv6 --subnet 172.30.0.0/24 --subnet fd00:30::/64 dual");
    let (a, b) = (lab.container("a"), lab.container("b"));
    let outside = Outside::new(&lab.outside, Family::V4.outside());
    for (family, gateway) in GATEWAYS {
        let server = at(gateway.parse::<IpAddr>().expect("an address"), 53);
        served(&a, server);
        let ask = |name: &str, kind| resolve(&a.ns, server, name, kind);
        let name = b.ns.name();
        let known = |addresses: &[String]| (ResponseCode::NoError, addresses.to_vec());
        assert_eq!(ask(name, RecordType::A), known(&[b.ipv4.to_string()]));
        assert_eq!(ask(&format!("{name}.dual."), RecordType::A), known(&[b.ipv4.to_string()]));
        assert_eq!(ask(name, RecordType::AAAA), known(&[b.address(Family::V6).to_string()]));
        assert_eq!(ask(name, RecordType::MX), known(&[]), "another type of a known name is empty");
        let reverse = Name::from(b.address(family)).to_string();
        assert_eq!(ask(&reverse, RecordType::PTR), known(&[format!("{name}.dual.")]));
        assert_eq!(resolve_by_tcp(&a.ns, server, name), known(&[b.ipv4.to_string()]));

        assert_eq!(ask("example.test.", RecordType::A), known(&["192.0.2.7".into()]));
        assert_eq!(ask("nosuch.", RecordType::A), (ResponseCode::NXDomain, Vec::new()));
    }
    let asked = outside.asked();
    assert!(asked.iter().all(|name| name == "example.test." || name == "nosuch."), "{asked:?}");

    let names = lab.host.netd("names ls");
    assert!(names.contains(b.ns.name()) && names.contains("172.30.0.1"), "{names}");
    lab.host.netd(&format!("network disconnect dual netns:{}", b.ns.name()));
    let server = at(GATEWAYS[0].1.parse::<IpAddr>().expect("an address"), 53);
    assert_eq!(resolve(&a.ns, server, b.ns.name(), RecordType::A).0, ResponseCode::NXDomain, "it has left");
}

#[test]
fn t76_an_internal_network_asks_nobody_outside() {
    let lab = Lab::wired();
    lab.host.resolve_by(&[Family::V4.outside()]);
    lab.host.start(&[]);
    lab.host.netd("network create --internal --subnet 172.31.0.0/24 inner");
    let (a, b) = (lab.container_on("inner", "a"), lab.container_on("inner", "b"));
    let outside = Outside::new(&lab.outside, Family::V4.outside());
    let server = at("172.31.0.1".parse::<IpAddr>().expect("an address"), 53);
    served(&a, server);
    let known = resolve(&a.ns, server, b.ns.name(), RecordType::A);
    assert_eq!(known, (ResponseCode::NoError, vec![b.ipv4.to_string()]));
    assert_eq!(resolve(&a.ns, server, "example.test.", RecordType::A).0, ResponseCode::NXDomain);
    assert_eq!(outside.asked(), [] as [String; 0]);
}

#[test]
fn a_server_that_has_no_answer_leaves_it_to_the_next() {
    let lab = Lab::wired();
    let (first, second) = (Family::V4.outside(), Family::V4.outside_other());
    lab.host.resolve_by(&[first, second]);
    lab.host.start(&[]);
    let a = lab.container_on("bridge", "a");
    let server = at("172.17.0.1".parse::<IpAddr>().expect("an address"), 53);
    served(&a, server);
    let refused = |name: &str| match name {
        "failed.test." => ResponseCode::ServFail,
        "nosuch.test." => ResponseCode::NXDomain,
        _ => ResponseCode::Refused,
    };
    let _first = Outside::saying(&lab.outside, first, refused);
    let ask = |name: &str| resolve(&a.ns, server, name, RecordType::A);
    let known =
        |name: &str| if name == "unknown.test." { ResponseCode::ServFail } else { ResponseCode::NoError };
    let second = Outside::saying(&lab.outside, second, known);
    for name in ["example.test.", "failed.test."] {
        assert_eq!(ask(name), (ResponseCode::NoError, vec!["192.0.2.7".into()]), "{name}");
    }
    assert_eq!(ask("nosuch.test.").0, ResponseCode::NXDomain, "that is an answer");
    assert_eq!(ask("unknown.test.").0, ResponseCode::Refused, "what the first said");
    assert_eq!(second.asked(), ["example.test.", "failed.test.", "unknown.test."]);
}

#[test]
fn names_are_for_their_network_alone() {
    let lab = Lab::new();
    let (a, stranger) = (lab.container("a"), lab.container_on("bridge", "stranger"));
    let own = at("172.17.0.1".parse::<IpAddr>().expect("an address"), 53);
    served(&stranger, own);
    let unknown = resolve(&stranger.ns, own, a.ns.name(), RecordType::A);
    assert_ne!(unknown.0, ResponseCode::NoError, "a name of another network");
    let other = at(GATEWAYS[0].1.parse::<IpAddr>().expect("an address"), 53);
    served(&a, other);
    let refused = resolve(&stranger.ns, other, a.ns.name(), RecordType::A);
    assert_eq!(refused.0, ResponseCode::Refused, "another network's server");
}

#[test]
fn an_alias_is_everybodys_who_has_it_for_as_long_as_he_has_it() {
    let lab = Lab::new();
    let a = lab.container("a");
    let server = at(GATEWAYS[0].1.parse::<IpAddr>().expect("an address"), 53);
    served(&a, server);
    let [b, c] = ["b", "c"].map(|role| {
        let ns = Namespace::new(role);
        lab.host.netd(&format!("network connect --alias web dual netns:{}", ns.name()));
        Container::of(ns)
    });
    let ask = || {
        let (code, mut addresses) = resolve(&a.ns, server, "web.", RecordType::A);
        addresses.sort();
        (code, addresses)
    };
    assert_eq!(ask(), (ResponseCode::NoError, vec![b.ipv4.to_string(), c.ipv4.to_string()]));
    lab.host.netd(&format!("network disconnect dual netns:{}", b.ns.name()));
    assert_eq!(ask(), (ResponseCode::NoError, vec![c.ipv4.to_string()]));
}

#[test]
fn a_command_of_netd_run_resolves_by_its_network() {
    let lab = Lab::new();
    let shown = lab.host.netd("run --network dual -- cat /etc/resolv.conf");
    assert!(shown.starts_with("nameserver 172.30.0.1\nnameserver fd00:30::1\n"), "{shown}");
    assert!(shown.ends_with("options ndots:0\n"), "{shown}");
    let a = lab.container("a");
    served(&a, at(GATEWAYS[0].1.parse::<IpAddr>().expect("an address"), 53));
    let found = lab.host.netd(&format!("run --network dual -- getent ahostsv4 {}", a.ns.name()));
    assert!(found.starts_with(&a.ipv4.to_string()), "{found}");
}
