//! Room for flows.

use netd::datapath::EndpointEntry;
use netd_common::{
    globals::Globals,
    limits::{FLOWS4, FLOWS6},
};

use crate::{
    fixture::{A, B, C, Container, Fixture, REDIRECTED, entry},
    packet::{L4, back, out, read_error},
};

#[test]
fn an_endpoint_holds_no_more_flows_than_it_may() {
    let fixture = Fixture::new();
    fixture.change_globals(|globals| globals.flows_per_container = [2; 2]);
    for (family, v6) in [false, true].into_iter().enumerate() {
        for own in [5000, 5001] {
            fixture.assert_leaves(A, &out(A, v6, L4::Udp(own, 53)));
        }
        let keys = fixture.keys();
        let ran = fixture.send(A, &out(A, v6, L4::Udp(5002, 53)));
        assert_eq!(ran.verdict, REDIRECTED);
        assert_eq!(read_error(&ran.packet).kind, if v6 { [1, 1] } else { [3, 13] });
        assert_eq!(fixture.drops("endpoint_quota"), family as u64 + 1);
        assert_eq!((fixture.keys(), fixture.held(A)[family]), (keys, 2));
        // The flows that it has go on, and nobody else is the poorer.
        fixture.assert_leaves(A, &out(A, v6, L4::Udp(5000, 53)));
        fixture.assert_returns(A, &back(v6, L4::Udp(53, 5001)));
        fixture.assert_leaves(B, &out(B, v6, L4::Udp(5002, 53)));
    }
}

/// A container has its share however many networks it is in, and no more.
#[test]
fn the_endpoints_of_one_container_share_what_it_may_hold() {
    let fixture = Fixture::new();
    fixture.change_globals(|globals| globals.flows_per_container = [3; 2]);
    let of_one = |slot: Container, network, beside| EndpointEntry {
        sandbox: entry(A, 0).sandbox,
        beside,
        ..entry(slot, network)
    };
    fixture.datapath.put_endpoint(A.slot, &of_one(A, 0, C.slot)).unwrap();
    fixture.datapath.put_endpoint(C.slot, &of_one(C, 1, A.slot)).unwrap();
    for v6 in [false, true] {
        fixture.assert_leaves(A, &out(A, v6, L4::Udp(5000, 53)));
        fixture.assert_leaves(C, &out(C, v6, L4::Udp(5001, 53)));
        fixture.assert_leaves(C, &out(C, v6, L4::Udp(5002, 53)));
        for container in [A, C] {
            let before = fixture.drops("endpoint_quota");
            fixture.send(container, &out(container, v6, L4::Udp(5003, 53)));
            assert_eq!(fixture.drops("endpoint_quota"), before + 1);
        }
        fixture.assert_leaves(B, &out(B, v6, L4::Udp(5003, 53)));
    }
    // Of one that has gone, and whose place has nobody yet, nothing is left to count.
    fixture.datapath.remove_endpoint(C.slot).unwrap();
    for own in [6000, 6001] {
        fixture.assert_leaves(A, &out(A, false, L4::Udp(own, 53)));
    }
    fixture.send(A, &out(A, false, L4::Udp(6002, 53)));
    assert_eq!(fixture.drops("endpoint_quota"), 5);
}

#[test]
fn half_of_the_table_is_the_most_for_one() {
    let fixture = Fixture::new();
    let globals = fixture.array::<Globals>("GLOBALS").get(&0, 0).unwrap();
    assert_eq!(globals.flows_per_container, [FLOWS4 / 2, FLOWS6 / 2]);
}

#[test]
fn a_full_table_takes_no_new_flow_and_loses_none() {
    let fixture = Fixture::new();
    for (family, v6, capacity) in [(0, false, FLOWS4), (1, true, FLOWS6)] {
        fixture.assert_leaves(A, &out(A, v6, L4::Udp(5000, 53)));
        // As if every other record were somebody's.
        fixture.array::<u64>("FLOWS_DRAWN").set(family, u64::from(capacity), 0).unwrap();
        let ran = fixture.send(A, &out(A, v6, L4::Udp(5001, 53)));
        assert_eq!(ran.verdict, REDIRECTED);
        assert_eq!(read_error(&ran.packet).kind, if v6 { [1, 1] } else { [3, 13] });
        assert_eq!(fixture.drops("flow_table_full"), u64::from(family) + 1);
        assert_eq!(fixture.held(A)[family as usize], 1);
        fixture.assert_leaves(A, &out(A, v6, L4::Udp(5000, 53)));
        fixture.assert_returns(A, &back(v6, L4::Udp(53, 5000)));

        // The record of a flow that ends is the next one's.
        fixture.age(301);
        assert_eq!(fixture.datapath.sweep().unwrap(), 1);
        fixture.assert_leaves(A, &out(A, v6, L4::Udp(5001, 53)));
        assert_eq!(fixture.drawn(family), u64::from(capacity));
        fixture.age(301);
        assert_eq!(fixture.datapath.sweep().unwrap(), 1);
    }
}
