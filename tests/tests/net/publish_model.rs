//! Random publishing, unpublishing, connecting and disconnecting, held after each step to a simple model of who reaches whom.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::{env, thread};

use netd_tests::lab::{DUAL, Family, Lab, Namespace, at, bound, connect};
use socket2::SockRef;

/// Where the next sequence of steps comes from; NETD_SEED in the environment for another.
const SEED: u64 = 2_718_281_828;
const STEPS: usize = 40;
const PROBES: usize = 5;
const PORTS: [u16; 3] = [8080, 8081, 8090];
const OTHER: &str = "other";

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % sides as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Says who it is to whoever connects.
struct Name {
    listener: Arc<TcpListener>,
    server: Option<JoinHandle<()>>,
}

impl Name {
    fn new(ns: &Namespace, name: u8) -> Self {
        let listener = bound(ns, Family::V6.any(80), TcpListener::bind);
        let listener = Arc::new(listener);
        let accepting = listener.clone();
        let server = thread::spawn(move || {
            while let Ok((mut stream, _)) = accepting.accept() {
                drop(stream.write_all(&[name]));
            }
        });
        Self { listener, server: Some(server) }
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // Which ends the accept that is under way.
        SockRef::from(&*self.listener).shutdown(Shutdown::Both).expect("a listening socket");
        self.server.take().map(JoinHandle::join);
    }
}

/// Where something is published: at one address of the host, or at all of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    address: IpAddr,
    port: u16,
}

impl Place {
    fn overlaps(&self, other: &Self) -> bool {
        let either = self.address.is_unspecified() || other.address.is_unspecified();
        self.port == other.port
            && self.address.is_ipv4() == other.address.is_ipv4()
            && (self.address == other.address || either)
    }
}

/// What should be so.
#[derive(Default)]
struct Model {
    published: BTreeMap<Place, usize>,
    connected: [bool; 3],
}

impl Model {
    /// Whom a connection to an address of the host comes to.
    fn reached(&self, address: IpAddr, port: u16) -> Option<usize> {
        let any = if address.is_ipv4() { Family::V4.any(0).ip() } else { Family::V6.any(0).ip() };
        let at = |address| self.published.get(&Place { address, port }).copied();
        at(address).or_else(|| at(any))
    }
}

fn gateway(container: usize, family: Family) -> IpAddr {
    let [ipv4, ipv6] =
        if container < 2 { ["172.30.0.1", "fd00:30::1"] } else { ["172.31.0.1", "fd00:31::1"] };
    if family == Family::V4 { ipv4 } else { ipv6 }.parse().expect("an address")
}

/// Who answers, or nobody, who says so at once.
fn probe(from: &Namespace, address: IpAddr, port: u16) -> Option<usize> {
    match connect(from, 0, at(address, port)) {
        Ok(mut stream) => {
            let mut name = [0];
            stream.read_exact(&mut name).expect("a name");
            Some(usize::from(name[0]))
        }
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{address} port {port}: {error}");
            None
        }
    }
}

#[test]
fn whoever_should_be_reached_is_and_nobody_else() {
    let seed = env::var("NETD_SEED").ok().map_or(SEED, |text| text.parse().expect("NETD_SEED is a number"));
    println!("NETD_SEED={seed}");
    let mut dice = Dice(seed);
    let lab = Lab::new();
    lab.host.netd(&format!("network create --ipv6 --subnet 172.31.0.0/24 --subnet fd00:31::/64 {OTHER}"));
    let spaces = [0, 1, 2].map(|n| Namespace::new(&format!("c{n}")));
    let network = |container: usize| if container < 2 { DUAL } else { OTHER };
    let names: Vec<_> = (0..3).map(|n| Name::new(&spaces[n], n as u8)).collect();
    let mut model = Model::default();
    for step in 0..STEPS {
        let container = dice.below(3);
        let name = format!("netns:{}", spaces[container].name());
        let family = dice.pick(&Family::BOTH);
        let address = dice.pick(&[family.any(0).ip(), family.any(0).ip(), family.host(), family.loopback()]);
        let place = Place { address, port: dice.pick(&PORTS) };
        let spec = at(place.address, place.port).to_string() + ":80";
        let what = match dice.below(8) {
            _ if !model.connected[container] => {
                lab.host.netd(&format!("network connect {} {name}", network(container)));
                model.connected[container] = true;
                format!("connect {container}")
            }
            0 => {
                lab.host.netd(&format!("network disconnect {} {name}", network(container)));
                model.connected[container] = false;
                model.published.retain(|_, server| *server != container);
                format!("disconnect {container}")
            }
            1..=3 if !model.published.is_empty() => {
                let published: Vec<_> =
                    model.published.iter().map(|(place, server)| (*place, *server)).collect();
                let (place, server) = dice.pick(&published);
                let spec = at(place.address, place.port).to_string() + ":80";
                lab.host.netd(&format!("unpublish netns:{} {spec}", spaces[server].name()));
                model.published.remove(&place);
                format!("unpublish {server} {spec}")
            }
            _ if model.published.keys().any(|other| other.overlaps(&place)) => {
                let error = lab.host.netd_fails(&format!("publish {name} {spec}"));
                assert!(error.contains("port is already allocated"), "step {step}, publish {spec}: {error}");
                format!("refuse {container} {spec}")
            }
            _ => {
                lab.host.netd(&format!("publish {name} {spec}"));
                model.published.insert(place, container);
                format!("publish {container} {spec}")
            }
        };
        for _ in 0..PROBES {
            let (family, port) = (dice.pick(&Family::BOTH), dice.pick(&PORTS));
            let client = dice.below(5);
            let (from, address) = match client {
                0 => (&lab.outside, family.host()),
                1 => (&lab.host.ns, dice.pick(&[family.host(), family.loopback()])),
                _ if !model.connected[client - 2] => continue,
                _ => {
                    let client = client - 2;
                    (&spaces[client], dice.pick(&[family.host(), gateway(client, family)]))
                }
            };
            assert_eq!(
                probe(from, address, port),
                model.reached(address, port),
                "NETD_SEED={seed}, step {step} ({what}): from {} to {address} port {port}; {:?}",
                from.name(),
                model.published
            );
        }
    }
    drop(names);
}
