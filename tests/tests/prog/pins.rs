//! What outlives the daemon, and what the next one makes of it.

use std::{
    fs,
    net::UdpSocket,
    os::unix::fs::{MetadataExt as _, symlink},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use aya::programs::{
    SchedClassifier, TcAttachType,
    links::{FdLink, PinnedLink},
};
use netd::datapath::{Datapath, Error, Mac, Options, PortRange};
use netd::model::{HostPorts, Local, Protocol, Reserver};
use netd_common::{drop::DropReason, globals::Globals, limits};

use crate::{
    fixture::{A, B, Fixture, entry, index},
    packet::{ACK, L4, SYN, back, frame, out},
};

/// The program that is attached to an interface.
fn attached(interface: &str, direction: TcAttachType) -> u32 {
    let (_, programs) = SchedClassifier::query_tcx(interface, direction).unwrap();
    assert_eq!(programs.len(), 1, "{interface}");
    programs[0].id()
}

fn all_attached() -> [u32; 3] {
    [
        attached("va", TcAttachType::Ingress),
        attached("up0", TcAttachType::Ingress),
        attached("up0", TcAttachType::Egress),
    ]
}

/// Waits until no program is attached: the kernel takes a link apart a moment after its last pin is gone.
fn await_detached() {
    let deadline = Instant::now() + Duration::from_secs(10);
    for (interface, direction) in
        [("va", TcAttachType::Ingress), ("up0", TcAttachType::Ingress), ("up0", TcAttachType::Egress)]
    {
        while !SchedClassifier::query_tcx(interface, direction).unwrap().1.is_empty() {
            assert!(Instant::now() < deadline, "{interface} still has a program");
            thread::yield_now();
        }
    }
}

fn program(datapath: &Datapath, name: &str) -> u32 {
    let status = datapath.status().unwrap();
    status.programs.iter().find(|program| program.name == name).unwrap().id
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn the_next_daemon_takes_over_what_is_pinned() {
    let fixture = Fixture::new();
    fixture.datapath.attach_port(index("va")).unwrap();
    fixture.datapath.attach_port(index("va")).unwrap();
    for v6 in [false, true] {
        fixture.assert_leaves(A, &out(A, v6, L4::Tcp(40000, 80, SYN)));
    }
    let ports = |datapath: &Datapath| {
        datapath.flows().unwrap().iter().map(|flow| flow.external.port()).collect::<Vec<_>>()
    };
    let (before, observed) = (ports(&fixture.datapath), fixture.datapath.observe().unwrap());
    assert_eq!(observed.ports.iter().copied().collect::<Vec<_>>(), [index("va")]);
    let maps = fixture.datapath.status().unwrap().maps.iter().map(|map| map.id).collect::<Vec<_>>();
    let generation = fixture.array::<Globals>("GLOBALS").get(&0, 0).unwrap().fib_generation;
    let links = files(&fixture.pins.join("links"));
    assert_eq!(links.len(), 5);
    let inodes =
        |links: &[PathBuf]| links.iter().map(|link| fs::metadata(link).unwrap().ino()).collect::<Vec<_>>();
    let (pinned, running) = (inodes(&links), all_attached());

    let options =
        Options { host_ports: PortRange { first: 20000, last: 30000 }, ..Fixture::options(&fixture.pins) };
    let next = Datapath::open(&options).unwrap();
    // The same maps with what they held, the same links and programs.
    assert_eq!(next.status().unwrap().maps.iter().map(|map| map.id).collect::<Vec<_>>(), maps);
    assert_eq!(ports(&next), before);
    let again = next.observe().unwrap();
    assert_eq!(again.networks, observed.networks);
    assert_eq!(again.endpoints, observed.endpoints);
    assert_eq!(again.subnets, observed.subnets);
    assert_eq!(again.uplinks, observed.uplinks);
    assert_eq!(again.ports, observed.ports);
    assert_eq!(inodes(&files(&fixture.pins.join("links"))), pinned);
    assert_eq!(
        all_attached(),
        ["from_container", "from_uplink", "to_uplink"].map(|name| program(&next, name))
    );
    assert_eq!(all_attached(), running);
    let globals = fixture.array::<Globals>("GLOBALS").get(&0, 0).unwrap();
    assert_eq!(globals.fib_generation, generation + 1, "routes may have changed while no daemon was there");
    assert_eq!((globals.ports.below.last, globals.ports.above.first), (19999, 30001));

    // Flows go on as they were, under the port that they had.
    for (v6, port) in [false, true].into_iter().zip(before) {
        assert_eq!(fixture.assert_leaves(A, &out(A, v6, L4::Tcp(40000, 80, SYN))).ports[0], port);
        fixture.assert_returns(A, &back(v6, L4::Tcp(80, port, SYN)));
    }
    assert_eq!(next.status().unwrap().links.len(), 5);
}

#[test]
fn another_builds_programs_are_replaced() {
    let fixture = Fixture::new();
    fixture.datapath.attach_port(index("va")).unwrap();
    fixture.assert_leaves(A, &out(A, false, L4::Tcp(40000, 80, SYN)));
    let links = files(&fixture.pins.join("links"));
    let options = Fixture::options(&fixture.pins);
    let mut next = Datapath::open(&options).unwrap();
    let mut assert_replaced = |unlike: &str, options: &Options| {
        let before = all_attached();
        next = Datapath::open(options).unwrap();
        assert!(all_attached().iter().all(|id| !before.contains(id)), "{unlike}");
        let names = ["from_container", "from_uplink", "to_uplink"];
        assert_eq!(all_attached(), names.map(|name| program(&next, name)), "{unlike}");
        assert_eq!(files(&fixture.pins.join("links")), links, "{unlike}");
        fixture.assert_leaves(A, &out(A, false, L4::Tcp(40000, 80, ACK)));
    };
    let build = fixture.pins.join("programs/build");
    fs::remove_file(&build).unwrap();
    symlink("another", &build).unwrap();
    assert_replaced("another build", &options);
    fs::remove_file(&build).unwrap();
    assert_replaced("a daemon that died while it loaded", &options);
    // What programs write goes where they were told at their start, and only one daemon listens there.
    let verbose = Options { log_level: 4, ..options.clone() };
    assert_replaced("one that logs", &verbose);
    assert_replaced("another that logs", &verbose);
    assert_replaced("one that does not", &options);
    assert_eq!(fixture.flows(), 1);

    // Programs whose maps are nobody's any more would run on for themselves.
    fs::remove_file(fixture.pins.join("maps/FRAGMENTS4")).unwrap();
    assert_replaced("other maps", &options);
    let before = all_attached();
    drop(Datapath::open(&options).unwrap());
    assert_eq!(all_attached(), before);
}

#[test]
fn sockets_call_the_next_daemons_programs() {
    let fixture = Fixture::new();
    fixture.datapath.put_local("127.0.0.0/8".parse().unwrap(), Local::Own).unwrap();
    let host =
        HostPorts { protocol: Protocol::Udp, address: "127.0.0.1".parse().unwrap(), first: 8080, last: 8080 };
    fixture.datapath.put_publication(&host, A.slot, 80, Reserver::Netd).unwrap();
    let dial = || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect("127.0.0.1:8080").unwrap();
        assert_eq!(socket.peer_addr().unwrap().to_string(), "127.0.0.1:8080");
        socket.local_addr().unwrap().ip().to_string()
    };
    crate::fixture::ip("link set lo up");
    assert_eq!(dial(), "127.0.0.1", "nothing is attached yet");
    fixture.sockets();
    assert_eq!(dial(), "172.17.0.1", "the way to the container is by its bridge");
    let calls = |datapath: &Datapath| {
        let links = datapath.status().unwrap().links;
        links.iter().filter(|link| link.interface.is_none()).count()
    };
    assert_eq!(calls(&fixture.datapath), 10);
    let links = fixture.pins.join("links");
    let runs = |name: &str| {
        let link = PinnedLink::from_pin(links.join(name)).unwrap();
        FdLink::from(link).info().unwrap().program_id()
    };
    let before = runs("connect4");
    let next = Datapath::open(&Fixture::options(&fixture.pins)).unwrap();
    assert_eq!((calls(&next), runs("connect4")), (10, program(&next, "connect4")));
    assert_ne!(runs("connect4"), before);
    assert_eq!(dial(), "172.17.0.1");
    next.remove_publication(&host).unwrap();
    assert_eq!(dial(), "127.0.0.1");
    next.put_publication(&host, A.slot, 80, Reserver::Netd).unwrap();
    // A namespace of another kind is none of the daemon's business.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    crate::fixture::ip("link set lo up");
    assert_eq!(dial(), "127.0.0.1");
}

#[test]
fn the_programs_run_on_when_the_daemon_is_gone() {
    let mut fixture = Fixture::new();
    fixture.assert_leaves(A, &out(A, false, L4::Udp(5000, 53)));
    let running = attached("up0", TcAttachType::Egress);
    let other = fixture.pins.with_file_name("other");
    fixture.datapath = Datapath::open(&Fixture::options(&other)).unwrap();
    assert_eq!(attached("up0", TcAttachType::Egress), running);
    // Two sets of pins know nothing of each other.
    assert_eq!(fixture.flows(), 0);
    fixture.datapath = Datapath::open(&Fixture::options(&fixture.pins)).unwrap();
    assert_eq!(fixture.flows(), 1);
}

#[test]
fn an_interface_that_is_gone_leaves_a_link_that_is_cleared_away() {
    let fixture = Fixture::new();
    fixture.datapath.attach_port(index("va")).unwrap();
    crate::fixture::ip("link del va");
    let next = Datapath::open(&Fixture::options(&fixture.pins)).unwrap();
    assert!(next.observe().unwrap().ports.is_empty());
    assert_eq!(next.status().unwrap().links.len(), 4);
}

#[test]
fn detaching_is_final_and_repeatable() {
    let fixture = Fixture::new();
    fixture.datapath.attach_port(index("va")).unwrap();
    for _ in 0..2 {
        fixture.datapath.detach_port(index("va")).unwrap();
        fixture.datapath.remove_uplink(index("up0")).unwrap();
    }
    await_detached();
    fixture.assert_drops("from_container", A.veth, &out(A, false, L4::Udp(5000, 53)), "no_uplink");
    let error = fixture.datapath.attach_port(netd::datapath::IfIndex(9999)).unwrap_err();
    assert_eq!(error.to_string(), "interface 9999 does not exist");
}

#[test]
fn maps_of_another_kind_are_refused_and_left_alone() {
    let fixture = Fixture::new();
    let maps = fixture.pins.join("maps");
    let program = attached("up0", TcAttachType::Egress);
    let entries = [DropReason::ALL.len(), limits::PORT_DRAWS as usize + 2];
    for (wrong, place, complaint) in [
        ("FDB", "NETWORKS", "type is 1, this netd needs 2".to_owned()),
        ("PORTS", "FDB", "key size is 4, this netd needs 12".to_owned()),
        ("GLOBALS", "FLOWS_DRAWN", format!("value size is {}, this netd needs 8", size_of::<Globals>())),
        ("DROPS", "DRAWS", format!("capacity is {}, this netd needs {}", entries[0], entries[1])),
    ] {
        let kept = maps.join("kept");
        fs::rename(maps.join(place), &kept).unwrap();
        fs::rename(maps.join(wrong), maps.join(place)).unwrap();
        let error = Datapath::open(&Fixture::options(&fixture.pins)).err().expect("a refusal");
        assert!(matches!(error, Error::Abi { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains(&complaint), "{message}");
        assert!(message.contains(&maps.join(place).display().to_string()), "{message}");
        assert!(message.contains("--cleanup"), "{message}");
        fs::rename(maps.join(place), maps.join(wrong)).unwrap();
        fs::rename(kept, maps.join(place)).unwrap();
    }
    assert_eq!(attached("up0", TcAttachType::Egress), program, "the programs in force were touched");
    Datapath::open(&Fixture::options(&fixture.pins)).unwrap();
}

#[test]
fn cleaning_up_leaves_nothing() {
    let fixture = Fixture::new();
    fixture.datapath.attach_port(index("va")).unwrap();
    let beside = fixture.pins.with_file_name("not-ours");
    fs::create_dir(&beside).unwrap();
    Datapath::remove_pins(&fixture.pins).unwrap();
    assert!(!fixture.pins.exists());
    assert!(beside.exists());
    await_detached();
    Datapath::remove_pins(&fixture.pins).unwrap();
}

#[test]
fn a_slot_leads_to_its_latest_endpoint_alone() {
    let fixture = Fixture::new();
    let mac = [2, 0, 0, 0, 17, 77];
    let changed = netd::datapath::EndpointEntry {
        mac: Mac::new(mac),
        ipv4: std::net::Ipv4Addr::new(172, 17, 0, 77).into(),
        port: index("vb"),
        ..entry(A, 0)
    };
    fixture.datapath.remove_endpoint(B.slot).unwrap();
    fixture.datapath.put_endpoint(A.slot, &changed).unwrap();
    let observed = fixture.datapath.observe().unwrap();
    assert_eq!(observed.endpoints.get(&A.slot), Some(&changed));
    let fdb = fixture.datapath.fdb().unwrap();
    let stations: Vec<_> =
        fdb.iter().filter(|(_, slot)| *slot == A.slot).map(|(key, _)| key.mac.octets()).collect();
    assert_eq!(stations, [mac]);
    let fill = |name: &str| {
        let status = fixture.datapath.status().unwrap();
        status.maps.iter().find(|map| map.name == name).unwrap().entries
    };
    for name in ["ENDPOINTS", "PORTS", "FDB", "ADDRESSES4", "ADDRESSES6"] {
        assert_eq!(fill(name), Some(2), "{name}");
    }
    // The old port is nobody's, the old address nobody's to use.
    fixture.assert_drops("from_container", "va", &out(A, false, L4::Udp(5000, 53)), "unknown_endpoint");
    let old = frame(
        [mac, crate::fixture::GATEWAY],
        A.ipv4.into(),
        crate::packet::remote(false),
        64,
        L4::Udp(1, 2),
        b"",
    );
    fixture.assert_drops("from_container", "vb", &old, "spoofed_address");
}

#[test]
fn numbers_beyond_the_maps_are_refused() {
    let fixture = Fixture::new();
    let error = fixture.datapath.put_endpoint(16384, &entry(A, 0)).unwrap_err();
    assert_eq!(error.to_string(), "endpoint 16384 is beyond the 16384 that the datapath has room for");
    let error = fixture.datapath.remove_network(1024).unwrap_err();
    assert_eq!(error.to_string(), "network 1024 is beyond the 1024 that the datapath has room for");
}
