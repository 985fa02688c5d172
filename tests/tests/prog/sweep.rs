//! The end of flows.

use std::time::Duration;

use crate::{
    fixture::{A, B, C, Container, Fixture, entry},
    packet::{ACK, L4, SYN, back, out},
};

#[test]
fn what_is_expired_ends_and_nothing_else() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        fixture.assert_leaves(A, &out(A, v6, L4::Echo(true, 7)));
        fixture.assert_leaves(A, &out(A, v6, L4::Udp(5000, 53)));
        fixture.assert_leaves(A, &out(A, v6, L4::Tcp(5000, 80, SYN)));
        fixture.assert_leaves(A, &out(A, v6, L4::Tcp(5001, 80, SYN)));
        fixture.assert_returns(A, &back(v6, L4::Tcp(80, 5001, SYN | ACK)));
    }
    // By state: echo 60 s, opening TCP 240 s, UDP 300 s, established TCP 7440 s. Each step ends one kind, of both families.
    let mut age = 0;
    for (until, left) in [(50, 8), (70, 6), (230, 6), (250, 4), (290, 4), (310, 2), (7430, 2), (7450, 0)] {
        fixture.age(until - age);
        age = until;
        let before = fixture.flows();
        assert_eq!(fixture.datapath.sweep().unwrap() as usize, before - left, "at {until} s");
        assert_eq!(fixture.flows(), left, "at {until} s");
        assert_eq!(fixture.keys(), [left; 2], "two keys for each flow, at {until} s");
        assert_eq!(fixture.held(A), [left as u64 / 2; 2]);
    }
    assert_eq!(fixture.took("flow_ended"), 8);
}

#[test]
fn a_packet_in_time_keeps_a_flow() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        for own in [5000, 5001, 5002] {
            fixture.assert_leaves(A, &out(A, v6, L4::Udp(own, 53)));
        }
    }
    fixture.age(299);
    for v6 in [false, true] {
        fixture.assert_leaves(A, &out(A, v6, L4::Udp(5000, 53)));
        fixture.assert_returns(A, &back(v6, L4::Udp(53, 5001)));
    }
    fixture.age(2);
    assert_eq!(fixture.datapath.sweep().unwrap(), 2);
    let flows = fixture.datapath.flows().unwrap();
    let mut ports: Vec<_> = flows.iter().map(|flow| flow.local.port()).collect();
    ports.sort_unstable();
    assert_eq!(ports, [5000, 5000, 5001, 5001]);
    assert!(flows.iter().all(|flow| (1..4).contains(&flow.idle.as_secs())), "{flows:?}");
    assert!(flows.iter().all(|flow| flow.age < Duration::from_secs(60)), "{flows:?}");
}

#[test]
fn a_record_is_used_again() {
    let fixture = Fixture::new();
    for round in 0..5 {
        for v6 in [false, true] {
            fixture.assert_leaves(A, &out(A, v6, L4::Udp(5000 + round, 53)));
        }
        assert_eq!((fixture.drawn(0), fixture.drawn(1)), (1, 1));
        let flow = &fixture.datapath.flows().unwrap()[0];
        assert_eq!(
            (flow.local.port(), flow.outbound.packets),
            (5000 + round, 1),
            "nothing of the last one is left"
        );
        fixture.age(301);
        assert_eq!(fixture.datapath.sweep().unwrap(), 2);
        // What comes late is nobody's.
        fixture.assert_passes("from_uplink", "up0", &back(false, L4::Udp(53, 5000 + round)));
    }
    assert_eq!(fixture.keys(), [0, 0]);
}

#[test]
fn an_endpoint_takes_its_flows_with_it_and_no_others() {
    let fixture = Fixture::new();
    let open = |container| {
        for v6 in [false, true] {
            for own in 0..10 {
                fixture.assert_leaves(container, &out(container, v6, L4::Udp(6000 + own, 53)));
            }
        }
    };
    open(A);
    open(B);
    open(C);
    fixture.datapath.remove_endpoint(B.slot).unwrap();
    let counters = fixture.datapath.counters().unwrap();
    assert!(!counters.endpoints.contains_key(&B.slot));
    assert_eq!(fixture.took("flow_ended"), 20);
    assert_eq!((fixture.held(A), fixture.held(B), fixture.held(C)), ([10; 2], [0; 2], [10; 2]));
    assert_eq!(fixture.keys(), [40, 40]);
    assert!(fixture.datapath.flows().unwrap().iter().all(|flow| flow.endpoint != Some(B.slot)));
    // Whoever has the slot next begins at zero.
    fixture.datapath.put_endpoint(B.slot, &entry(B, 0)).unwrap();
    assert_eq!(fixture.traffic(B).sent.packets, 0);
    assert_eq!(fixture.drawn(0), 30);
    open(B);
    assert_eq!(fixture.drawn(0), 30);
}

#[test]
fn every_slot_can_be_swept() {
    // The order is handed to the kernel as a frame, in which a slot must never look like an ethertype.
    let fixture = Fixture::new();
    for slot in [0, 8, 0x0608, 0x3fff] {
        let container = Container { slot, ..B };
        fixture.datapath.put_endpoint(slot, &entry(container, 0)).unwrap();
        fixture.assert_leaves(container, &out(container, false, L4::Udp(6000, 53)));
        fixture.datapath.remove_endpoint(slot).unwrap_or_else(|error| panic!("slot {slot}: {error}"));
        assert_eq!((fixture.flows(), fixture.held(container)), (0, [0, 0]));
    }
}
