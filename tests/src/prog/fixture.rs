//! A datapath in network and mount namespaces of the test's own thread, with the interfaces that the FIB asks for:
//!
//! ```text
//! a 172.17.0.2 fd00:17::2 ─ va ┐                      ┌ up0 203.0.113.1 2001:db8::1 ─ default route to .10, ::10
//! b 172.17.0.3 fd00:17::3 ─ vb ┴ br0 172.17.0.1 ::1 ──┘
//! c 172.18.0.2 fd00:18::2 ─ vc ─ br1 172.18.0.1 ::1
//! ```

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::Command,
};

use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use netd::datapath::{
    Datapath, EndpointEntry, FlowView, IfIndex, Mac, NetworkEntry, Options, PortRange, UplinkEntry,
    bridge::{ICC, MASQUERADE},
    endpoint::PEER_IN_OTHER_NETNS,
};
use netd::model::Framing;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
};

use super::packet::{Read, read};

/// What the programs say of a packet.
pub const NEXT: i32 = -1;
pub const DROPPED: i32 = 2;
pub const REDIRECTED: i32 = 7;

/// The gateway's MAC, on every bridge.
pub const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The MAC of up0.
pub const UPLINK: [u8; 6] = [2, 0, 0, 0, 0, 0x10];
/// The MAC of the router behind up0.
pub const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 0x20];

/// A container.
#[derive(Clone, Copy)]
pub struct Container {
    pub slot: u32,
    pub veth: &'static str,
    pub mac: [u8; 6],
    pub ipv4: Ipv4Addr,
    pub ipv6: Ipv6Addr,
}

pub const A: Container = container(1, "va", 17, 2);
pub const B: Container = container(2, "vb", 17, 3);
pub const C: Container = container(3, "vc", 18, 2);

impl Container {
    pub fn address(self, v6: bool) -> IpAddr {
        if v6 { self.ipv6.into() } else { self.ipv4.into() }
    }
}

/// The container of this slot behind this interface, with the last numbers of its addresses.
pub const fn container(slot: u32, veth: &'static str, net: u8, host: u8) -> Container {
    Container {
        slot,
        veth,
        mac: [2, 0, 0, 0, net, host],
        ipv4: Ipv4Addr::new(172, net, 0, host),
        ipv6: Ipv6Addr::new(0xfd00, if net == 17 { 0x17 } else { 0x18 }, 0, 0, 0, 0, 0, host as u16),
    }
}

/// A packet after a program.
pub struct Ran {
    pub verdict: i32,
    pub packet: Vec<u8>,
    /// The mark that it left behind.
    pub mark: u32,
}

pub struct Fixture {
    pub datapath: Datapath,
    pub pins: PathBuf,
    bpffs: PathBuf,
    _directory: tempfile::TempDir,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // A mount point cannot be removed; what is open under it keeps the file system until the thread ends.
        let _ = umount2(&self.bpffs, MntFlags::MNT_DETACH);
    }
}

impl Default for Fixture {
    fn default() -> Self {
        Self::new()
    }
}

impl Fixture {
    /// Takes the calling thread into namespaces of its own; they end with the thread and what it opened.
    pub fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("these tests need root");
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let bpffs = directory.path().join("bpf");
        fs::create_dir(&bpffs).unwrap();
        mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), none).unwrap();
        wire();
        let pins = bpffs.join("v1");
        let datapath = Datapath::open(&Self::options(&pins)).unwrap_or_else(|error| panic!("{error}"));
        let fixture = Self { datapath, pins, bpffs, _directory: directory };
        fixture.fill();
        fixture
    }

    pub fn options(pins: &Path) -> Options {
        Options { pins: pins.to_owned(), host_ports: PortRange { first: 32768, last: 60999 }, log_level: 0 }
    }

    /// Has the sockets of the thread's network namespace call the programs.
    pub fn sockets(&self) {
        let groups = self.bpffs.with_file_name("cgroup");
        fs::create_dir(&groups).unwrap();
        mount(Some("cgroup2"), &groups, Some("cgroup2"), MsFlags::empty(), None::<&str>).unwrap();
        let root = fs::File::open(&groups).unwrap();
        umount2(&groups, MntFlags::MNT_DETACH).unwrap();
        self.datapath.attach_sockets(root).unwrap();
    }

    fn fill(&self) {
        self.network(0, "br0", 17, MASQUERADE | ICC);
        self.network(1, "br1", 18, MASQUERADE | ICC);
        for (container, network) in [(A, 0), (B, 0), (C, 1)] {
            self.datapath.put_endpoint(container.slot, &entry(container, network)).unwrap();
        }
        self.uplink("up0", "203.0.113.1", "2001:db8::1");
    }

    pub fn uplink(&self, interface: &str, ipv4: &str, ipv6: &str) {
        self.uplink_of(Framing::Ethernet, interface, ipv4, ipv6);
    }

    /// An uplink whose packets begin in this way.
    pub fn uplink_of(&self, framing: Framing, interface: &str, ipv4: &str, ipv6: &str) {
        let entry = UplinkEntry {
            ipv4: ipv4.parse::<Ipv4Addr>().unwrap().into(),
            ipv6: ipv6.parse::<Ipv6Addr>().unwrap().into(),
            mac: Mac::new(UPLINK),
            ..UplinkEntry::default()
        };
        self.datapath.put_uplink(index(interface), framing, &entry).unwrap();
    }

    /// `tun0`, an uplink without an Ethernet header: 192.0.2.1, 2001:db8:2::1, and the routes to 8.0.0.0/16 and
    /// 2001:db8:86dd::/48.
    pub fn tunnel(&self) {
        ip("tuntap add dev tun0 mode tun");
        ip("link set tun0 up");
        ip("address add 192.0.2.1/24 dev tun0");
        ip("address add 2001:db8:2::1/64 dev tun0 nodad");
        ip("route add 8.0.0.0/16 dev tun0");
        ip("-6 route add 2001:db8:86dd::/48 dev tun0");
        self.uplink_of(Framing::Bare, "tun0", "192.0.2.1", "2001:db8:2::1");
    }

    /// `br2`, a segment of nobody's.
    pub fn segment(&self) {
        ip("link add br2 type bridge");
        self.datapath.attach_segment(index("br2")).unwrap();
    }

    /// Writes a network's entry, with other flags for instance.
    pub fn network(&self, number: u32, bridge: &str, net: u8, flags: u32) {
        let gateway6: Ipv6Addr = format!("fd00:{net}::1").parse().unwrap();
        let entry = NetworkEntry {
            bridge: index(bridge),
            flags,
            gateway4: Ipv4Addr::new(172, net, 0, 1).into(),
            gateway6: gateway6.into(),
            source4: Default::default(),
            source6: Default::default(),
            mac: Mac::new(GATEWAY),
            pad: [0; 2],
        };
        self.datapath.put_network(number, &entry).unwrap();
        self.datapath.put_subnet(format!("172.{net}.0.0/16").parse().unwrap(), number).unwrap();
        self.datapath.put_subnet(format!("fd00:{net}::/64").parse().unwrap(), number).unwrap();
    }

    /// Writes a container's entry anew, with more flags and in a VLAN.
    pub fn endpoint(&self, container: Container, network: u32, flags: u32, vlan: u16) {
        let mut entry = EndpointEntry { vlan, ..entry(container, network) };
        entry.flags |= flags;
        self.datapath.put_endpoint(container.slot, &entry).unwrap();
    }

    /// Runs a program on a packet that arrives on (or leaves by) an interface.
    pub fn run(&self, program: &str, interface: &str, packet: &[u8]) -> Ran {
        self.run_with(program, interface, packet, |_| {})
    }

    /// A container sends a packet.
    pub fn send(&self, container: Container, packet: &[u8]) -> Ran {
        self.run("from_container", container.veth, packet)
    }

    /// A packet arrives at the uplink.
    pub fn arrive(&self, packet: &[u8]) -> Ran {
        self.run("from_uplink", "up0", packet)
    }

    /// The stack lets a packet out by the uplink.
    pub fn leave(&self, packet: &[u8]) -> Ran {
        self.run("to_uplink", "up0", packet)
    }

    /// As `run`, with more of the context set.
    pub fn run_with(
        &self,
        program: &str,
        interface: &str,
        packet: &[u8],
        set: impl FnOnce(&mut Context),
    ) -> Ran {
        let program = SchedClassifier::from_pin(self.pins.join("programs").join(program)).unwrap();
        let mut context = Context::on(index(interface));
        set(&mut context);
        let (mut out, mut after) = (vec![0; packet.len() + 256], Context::default());
        let options = TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ctx_in: Some(bytemuck::bytes_of(&context)),
            ctx_out: Some(bytemuck::bytes_of_mut(&mut after)),
            ..TestRunOptions::new()
        };
        let result = program.test_run(options).unwrap();
        out.truncate(result.data_size_out as usize);
        Ran { verdict: result.return_value as i32, packet: out, mark: after.mark }
    }

    /// Runs a program `repeat` times, each time on what the last left of the packet. The last verdict, and nanoseconds a run.
    pub fn time(&self, program: &str, interface: &str, packet: &[u8], repeat: u32) -> (i32, f64) {
        let program = SchedClassifier::from_pin(self.pins.join("programs").join(program)).unwrap();
        let context = Context::on(index(interface));
        let options = TestRunOptions {
            data_in: Some(packet),
            ctx_in: Some(bytemuck::bytes_of(&context)),
            repeat,
            ..TestRunOptions::new()
        };
        let result = program.test_run(options).unwrap();
        (result.return_value as i32, result.duration.as_nanos() as f64)
    }

    /// Runs a program on a packet and holds that it is passed on as it was, without a flow made for it.
    pub fn assert_passes(&self, program: &str, interface: &str, packet: &[u8]) {
        let before = self.took("flow_created");
        let ran = self.run(program, interface, packet);
        assert_eq!(ran.verdict, NEXT, "{packet:02x?}; {:?}", self.datapath.counters());
        assert_eq!(ran.packet, packet, "the packet was changed");
        assert_eq!(self.took("flow_created"), before, "a flow was made");
    }

    /// Runs a program on a packet and holds that it is dropped and counted, without a flow made for it.
    pub fn assert_drops(&self, program: &str, interface: &str, packet: &[u8], reason: &str) {
        let before = (self.drops(reason), self.dropped(), self.took("flow_created"));
        let ran = self.run(program, interface, packet);
        assert_eq!(ran.verdict, DROPPED, "{reason}: {packet:02x?}; {:?}", self.datapath.counters());
        let after = (self.drops(reason), self.dropped(), self.took("flow_created"));
        assert_eq!(after, (before.0 + 1, before.1 + 1, before.2), "{reason}: {packet:02x?}");
    }

    /// Runs a container's packet and holds that the host's stack gets it as it was, by this path and without a flow.
    pub fn assert_stack(&self, container: Container, packet: &[u8], path: &str) {
        let before = self.took(path);
        self.assert_passes("from_container", container.veth, packet);
        assert_eq!(self.took(path), before + 1, "{path}: {packet:02x?}; {:?}", self.datapath.counters());
    }

    /// Runs a container's packet and holds that it is translated; what leaves.
    pub fn assert_leaves(&self, container: Container, packet: &[u8]) -> Read {
        let before = self.took("masqueraded");
        let ran = self.send(container, packet);
        assert_eq!(ran.verdict, REDIRECTED, "{packet:02x?}; {:?}", self.datapath.counters());
        assert_eq!(self.took("masqueraded"), before + 1);
        read(&ran.packet)
    }

    /// Runs a packet from the outside and holds that it is delivered to this container; what it gets.
    pub fn assert_returns(&self, container: Container, packet: &[u8]) -> Read {
        let before = (self.took("returned"), self.traffic(container).delivered.packets);
        let ran = self.arrive(packet);
        assert_eq!(ran.verdict, REDIRECTED, "{packet:02x?}; {:?}", self.datapath.counters());
        assert_eq!(
            (self.took("returned"), self.traffic(container).delivered.packets),
            (before.0 + 1, before.1 + 1)
        );
        let got = read(&ran.packet);
        assert_eq!(got.macs, [GATEWAY, container.mac]);
        got
    }

    pub fn traffic(&self, container: Container) -> netd::datapath::EndpointTraffic {
        self.datapath.counters().unwrap().endpoints[&container.slot]
    }

    /// The one live flow.
    pub fn flow(&self) -> FlowView {
        let mut flows = self.datapath.flows().unwrap();
        assert_eq!(flows.len(), 1, "{flows:?}");
        flows.remove(0)
    }

    /// Live flows.
    pub fn flows(&self) -> usize {
        self.datapath.flows().unwrap().len()
    }

    /// Dropped packets, whatever the reason.
    pub fn dropped(&self) -> u64 {
        self.datapath.counters().unwrap().drops.iter().map(|(_, count)| count).sum()
    }

    /// A drop counter.
    pub fn drops(&self, reason: &str) -> u64 {
        value(&self.datapath.counters().unwrap().drops, reason)
    }

    /// A path counter.
    pub fn took(&self, path: &str) -> u64 {
        value(&self.datapath.counters().unwrap().paths, path)
    }
}

fn value(counters: &[(&'static str, u64)], name: &str) -> u64 {
    counters.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no counter {name}")).1
}

pub fn entry(container: Container, network: u32) -> EndpointEntry {
    EndpointEntry {
        port: index(container.veth),
        network,
        flags: PEER_IN_OTHER_NETNS,
        ipv4: container.ipv4.into(),
        ipv6: container.ipv6.into(),
        mac: Mac::new(container.mac),
        vlan: 0,
        sandbox: container.slot + 1,
        beside: container.slot,
    }
}

/// The kernel's `struct __sk_buff`, as far as a test run may set it.
/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/bpf.h>
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Context {
    len_to_type: [u32; 2],
    pub mark: u32,
    queue_mapping_to_ingress_ifindex: [u32; 7],
    ifindex: u32,
    tc_index_to_wire_len: [u32; 30],
    pub gso_segs: u32,
    socket: [u32; 2],
    pub gso_size: u32,
    rest: [u32; 3],
}

impl Context {
    /// Of a packet that arrives on (or leaves by) an interface.
    pub fn on(interface: IfIndex) -> Self {
        Self { ifindex: interface.0, ..Self::default() }
    }
}

fn wire() {
    let bridge = |name: &str, net: u8| {
        ip(&format!("link add {name} address 02:00:00:00:00:01 type bridge"));
        ip(&format!("addr add 172.{net}.0.1/16 dev {name}"));
        ip(&format!("addr add fd00:{net}::1/64 dev {name} nodad"));
        ip(&format!("link set {name} up"));
    };
    bridge("br0", 17);
    bridge("br1", 18);
    for (veth, bridge) in [("va", "br0"), ("vb", "br0"), ("vc", "br1")] {
        ip(&format!("link add {veth} type veth peer name {veth}p"));
        ip(&format!("link set {veth} master {bridge} up"));
        ip(&format!("link set {veth}p up"));
    }
    ip("link add up0 address 02:00:00:00:00:10 type veth peer name up0p");
    ip("link set up0p up");
    ip("link set up0 up");
    ip("addr add 203.0.113.1/24 dev up0");
    ip("addr add 2001:db8::1/64 dev up0 nodad");
    ip("route add default via 203.0.113.10");
    ip("-6 route add default via 2001:db8::10");
    // Nobody asks for it: a test run sends nothing.
    ip("neighbour add 203.0.113.10 lladdr 02:00:00:00:00:20 dev up0");
    ip("neighbour add 2001:db8::10 lladdr 02:00:00:00:00:20 dev up0");
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
}

pub fn index(interface: &str) -> IfIndex {
    IfIndex(if_nametoindex(interface).unwrap())
}

/// Runs `ip` with these words, in the thread's namespace.
pub fn ip(words: &str) {
    let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}
