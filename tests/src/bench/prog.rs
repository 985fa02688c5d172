//! What each program costs a packet: nanoseconds by BPF_PROG_TEST_RUN, which runs a program over and over on one packet.
//!
//! The packet is what the last run left, so each case is one whose result is again a hit: flows that translate address and port
//! back and forth.

use std::mem::swap;
use std::thread;

use aya::Pod;
use aya::maps::{HashMap, Map, MapData};
use netd_common::addr::{Address, Ipv4, Ipv6};
use netd_common::endpoint::ANY_SOURCE;
use netd_common::nat::Flow;
use netd_common::tuple::Tuple;

use crate::prog::fixture::{A, B, Fixture, GATEWAY, REDIRECTED, ROUTER, UPLINK};
use crate::prog::packet::{ACK, L4, external, frame, out, remote};

/// Rounds that a figure is the median of.
const ROUNDS: usize = 9;
const PAYLOAD: [u8; 64] = [0; 64];
/// The container's port, of those that masquerade changes.
const OWN_PORT: u16 = 40000;

/// What a packet costs.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// What happens to it.
    pub name: &'static str,
    /// Whether it is an IPv6 packet.
    pub v6: bool,
    /// Median, in nanoseconds, over that of a program that returns at once.
    pub nanoseconds: f64,
    /// What it may cost, in nanoseconds over such a program.
    pub budget: f64,
}

/// A name, a budget, and what measures it.
type Case = (&'static str, f64, fn(bool) -> f64);

/// Measures every path, and the program that returns at once, in nanoseconds.
pub fn costs() -> (f64, Vec<Cost>) {
    let empty = in_a_thread(|| {
        let fixture = Fixture::new();
        let for_another_host =
            frame([ROUTER, ROUTER], remote(false), external(false), 57, L4::Udp(53, 5000), &PAYLOAD);
        measure(&fixture, "from_uplink", "up0", &for_another_host, 1_000_000)
    });
    let cases: [Case; 3] = [
        ("known unicast on a bridge", 60.0, bridged),
        ("masquerade out, hit", 130.0, masqueraded),
        ("reply in, hit", 130.0, returned),
    ];
    let cost = |(name, budget, case): Case, v6| {
        let nanoseconds = in_a_thread(move || case(v6)) - empty;
        Cost { name, v6, nanoseconds, budget }
    };
    let costs = cases.into_iter().flat_map(|case| [false, true].map(|v6| cost(case, v6)));
    (empty, costs.collect())
}

/// A fixture is a thread's own namespaces.
fn in_a_thread(run: impl FnOnce() -> f64 + Send + 'static) -> f64 {
    thread::spawn(run).join().expect("a measurement")
}

fn bridged(v6: bool) -> f64 {
    let fixture = Fixture::new();
    let packet = frame([A.mac, B.mac], A.address(v6), B.address(v6), 64, L4::Tcp(5000, 80, ACK), &PAYLOAD);
    measure(&fixture, "from_container", A.veth, &packet, 1_000_000)
}

fn masqueraded(v6: bool) -> f64 {
    let fixture = Fixture::new();
    // Every other run the source is the external address, which the guard would not let the container have.
    fixture.endpoint(A, 0, ANY_SOURCE, 0);
    let packet =
        frame([A.mac, GATEWAY], A.address(v6), remote(v6), 255, L4::Tcp(OWN_PORT, 80, ACK), &PAYLOAD);
    fixture.assert_leaves(A, &packet);
    if v6 {
        translate_back::<Ipv6>(&fixture, "FLOWS6", "FLOW_KEYS6");
    } else {
        translate_back::<Ipv4>(&fixture, "FLOWS4", "FLOW_KEYS4");
    }
    // Each run takes one from the hop limit.
    let rounds = 2000;
    let mut all: Vec<f64> =
        (0..rounds).map(|_| measure_once(&fixture, "from_container", A.veth, &packet, 200)).collect();
    assert!(fixture.took("masqueraded") >= 200 * rounds, "every run was a hit");
    median(&mut all)
}

/// A second flow translates back what the first one does.
fn translate_back<A: Address>(fixture: &Fixture, flows: &str, keys: &str)
where
    Flow<A>: Pod,
    Tuple<A>: Pod,
{
    let first = fixture.array::<Flow<A>>(flows).get(&0, 0).expect("the flow");
    assert!(first.local != first.external && first.local_port != first.external_port, "both are changed");
    add_flow::<A>(fixture, flows, keys, |flow| {
        swap(&mut flow.local, &mut flow.external);
        swap(&mut flow.local_port, &mut flow.external_port);
    });
}

fn returned(v6: bool) -> f64 {
    let fixture = Fixture::new();
    fixture.assert_leaves(A, &out(A, v6, L4::Tcp(OWN_PORT, 80, ACK)));
    let port = fixture.flow().external.port();
    if v6 {
        translate_back::<Ipv6>(&fixture, "FLOWS6", "FLOW_KEYS6");
    } else {
        translate_back::<Ipv4>(&fixture, "FLOWS4", "FLOW_KEYS4");
    }
    // A hop limit of 1 stays.
    let packet = frame([ROUTER, UPLINK], remote(v6), external(v6), 1, L4::Tcp(80, port, ACK), &PAYLOAD);
    let cost = measure(&fixture, "from_uplink", "up0", &packet, 1_000_000);
    assert!(fixture.took("returned") >= 1_000_000 * ROUNDS as u64, "every run was a hit");
    cost
}

/// Adds a flow that is the first one with a `change`.
fn add_flow<A: Address>(fixture: &Fixture, flows: &str, keys: &str, change: impl Fn(&mut Flow<A>))
where
    Flow<A>: Pod,
    Tuple<A>: Pod,
{
    let mut records = fixture.array::<Flow<A>>(flows);
    let mut flow = records.get(&0, 0).expect("the flow");
    change(&mut flow);
    records.set(1, flow, 0).expect("writing a flow");
    let map = MapData::from_pin(fixture.pins.join("maps").join(keys)).expect("the pinned map");
    let mut map: HashMap<_, Tuple<A>, u32> = Map::HashMap(map).try_into().expect("a hash");
    for key in [flow.inbound_key(), flow.outbound_key()] {
        map.insert(key, 1, 0).expect("writing a key");
    }
}

fn measure(fixture: &Fixture, program: &str, interface: &str, packet: &[u8], repeat: u32) -> f64 {
    median(
        &mut (0..ROUNDS)
            .map(|_| measure_once(fixture, program, interface, packet, repeat))
            .collect::<Vec<_>>(),
    )
}

fn measure_once(fixture: &Fixture, program: &str, interface: &str, packet: &[u8], repeat: u32) -> f64 {
    let (verdict, nanoseconds) = fixture.time(program, interface, packet, repeat);
    assert!(program == "from_uplink" || verdict == REDIRECTED, "verdict {verdict}");
    nanoseconds
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
