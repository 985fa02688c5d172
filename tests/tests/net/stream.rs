//! 200 MB each way, compared byte by byte.

use netd_tests::lab::{Family, Lab, at, set_offloads, transfer};

const BYTES: usize = 200_000_000;

/// With offloads the kernel hands over super-frames whose checksums are not written yet; without, each packet is
/// whole, and its receiver checks what netd wrote.
fn masqueraded(family: Family) {
    let lab = Lab::new();
    let a = lab.container("a");
    for on in [true, false] {
        set_offloads(&a.ns, "eth0", on);
        set_offloads(&lab.outside, "eth0", on);
        set_offloads(&lab.host.ns, "up0", on);
        transfer(&a.ns, &lab.outside, at(family.outside(), 5001), BYTES);
    }
}

fn bridged(family: Family) {
    let lab = Lab::new();
    let (a, b) = (lab.container("a"), lab.container("b"));
    for on in [true, false] {
        set_offloads(&a.ns, "eth0", on);
        set_offloads(&b.ns, "eth0", on);
        transfer(&a.ns, &b.ns, at(b.address(family), 5001), BYTES);
    }
}

#[test]
fn ipv4_masqueraded() {
    masqueraded(Family::V4);
}

#[test]
fn ipv6_masqueraded() {
    masqueraded(Family::V6);
}

#[test]
fn ipv4_bridged() {
    bridged(Family::V4);
}

#[test]
fn ipv6_bridged() {
    bridged(Family::V6);
}
