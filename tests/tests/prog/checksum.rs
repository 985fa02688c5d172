//! Packets whose sum the receiving device has told (CHECKSUM_COMPLETE): the sum has to stay right, or the kernel drops the
//! packet in the container. The kernel's own test run holds it against the packet, and fails with EBADMSG if they differ.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::programs::ProgramInfo;

use crate::{
    fixture::{A, Context, Fixture, GATEWAY, ROUTER, UPLINK, index},
    packet::{L3, L4, SYN, back, external, icmp_error, leaving, out, read, remote},
};

/// Since 6.16, like the checksum flag for IPv6 addresses that it came with.
/// <https://github.com/torvalds/linux/blob/v6.18/net/bpf/test_run.c>
const BPF_F_TEST_SKB_CHECKSUM_COMPLETE: u32 = 1 << 2;
const BPF_PROG_TEST_RUN: i64 = 10;

/// `union bpf_attr`, as BPF_PROG_TEST_RUN has it.
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Order {
    program: u32,
    verdict: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    pad: u32,
}

/// Runs a program on a packet with a sum; the packet after it.
fn run(fixture: &Fixture, program: &str, interface: &str, packet: &[u8]) -> io::Result<Vec<u8>> {
    let info = ProgramInfo::from_pin(fixture.pins.join("programs").join(program)).unwrap();
    let program = info.fd().unwrap();
    let context = Context::on(index(interface));
    let mut after = vec![0; packet.len() + 256];
    let mut order = Order {
        program: program.as_fd().as_raw_fd() as u32,
        data_size_in: packet.len() as u32,
        data_size_out: after.len() as u32,
        data_in: packet.as_ptr() as u64,
        data_out: after.as_mut_ptr() as u64,
        context_size_in: size_of::<Context>() as u32,
        context_in: (&raw const context) as u64,
        flags: BPF_F_TEST_SKB_CHECKSUM_COMPLETE,
        ..Order::default()
    };
    // SAFETY: the order and what it points to outlive the call, with the sizes that it says.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut order, size_of::<Order>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    after.truncate(order.data_size_out as usize);
    Ok(after)
}

#[test]
fn the_devices_sum_stays_right() {
    let fixture = Fixture::new();
    let features = fixture.datapath.status().unwrap().features;
    if !features.contains(&("ipv6_checksum_flag", true)) {
        // A kernel that cannot hold it against the packet says so, and this test has nothing to hold.
        let error = run(&fixture, "from_container", A.veth, &out(A, false, L4::Udp(5000, 53))).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        return;
    }
    for v6 in [false, true] {
        // With the port kept, and with the port changed.
        for sent in [
            L4::Udp(5000, 53),
            L4::Udp(40000, 53),
            L4::Tcp(5000, 80, SYN),
            L4::Tcp(40000, 80, SYN),
            L4::Echo(true, 7),
        ] {
            let left = run(&fixture, "from_container", A.veth, &out(A, v6, sent))
                .unwrap_or_else(|error| panic!("out, {sent:?}, v6 {v6}: {error}"));
            let port = read(&left).ports[0];
            let by_stack = leaving(A.address(v6), remote(v6), sent);
            run(&fixture, "to_uplink", "up0", &by_stack)
                .unwrap_or_else(|error| panic!("by the stack, {sent:?}, v6 {v6}: {error}"));

            let reply = back(
                v6,
                match sent.reply() {
                    L4::Udp(from, _) => L4::Udp(from, port),
                    L4::Tcp(from, _, flags) => L4::Tcp(from, port, flags),
                    other => other,
                },
            );
            let got = run(&fixture, "from_uplink", "up0", &reply)
                .unwrap_or_else(|error| panic!("in, {sent:?}, v6 {v6}: {error}"));
            assert_eq!(read(&got).destination, A.address(v6));

            let kind = if v6 { [2, 0] } else { [3, 4] };
            let error = icmp_error([ROUTER, UPLINK], remote(v6), external(v6), kind, 1280, &left[L3..]);
            let got_error = run(&fixture, "from_uplink", "up0", &error)
                .unwrap_or_else(|error| panic!("error in, {sent:?}, v6 {v6}: {error}"));
            assert_eq!(read(&got_error).destination, A.address(v6));

            let error = icmp_error([A.mac, GATEWAY], A.address(v6), remote(v6), kind, 1280, &got[L3..]);
            let left = run(&fixture, "from_container", A.veth, &error)
                .unwrap_or_else(|error| panic!("error out, {sent:?}, v6 {v6}: {error}"));
            assert_eq!(read(&left).source, external(v6));
        }
    }
}
