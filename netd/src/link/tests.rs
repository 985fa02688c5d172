//! Links in namespaces of the tests' own; they need root.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::FutureExt as _;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::LinkUnspec;

use super::*;
use crate::{
    model::{BridgeSettings, MacAddress, Sandbox},
    plan::{BridgeLink, BridgePort, DefaultRoute, FarEnd, Interface, Queue, Veth},
};

/// A new network namespace, gone when this is dropped, and a socket in it.
async fn namespace() -> (Namespace, Links) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("this test makes a network namespace: it needs root");
        Namespace::current().unwrap()
    });
    let namespace = thread.join().unwrap();
    let links = Links::within(&namespace).await.unwrap();
    (namespace, links)
}

/// A bridge `br0` as the kernel makes it; its index.
async fn add_bridge(links: &Links) -> u32 {
    let message = rtnetlink::LinkBridge::new("br0").build();
    links.handle.link().add(message).execute().await.unwrap();
    links.index("br0").await.unwrap()
}

fn bridge(last: u8, addresses: &[&str]) -> BridgeLink {
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    BridgeLink {
        mac: MacAddress::new([2, 0, 0, 0, 0, last]),
        mtu: 1400,
        up: true,
        addresses,
        connected: true,
        adopted: false,
        given: BTreeSet::new(),
        ipv6: true,
        settings: BridgeSettings::default(),
    }
}

async fn names(links: &Links) -> BTreeSet<String> {
    links.devices().await.unwrap().into_iter().map(|device| device.name).collect()
}

#[tokio::test]
async fn a_listing_that_is_given_up_still_ends_before_the_next() {
    let (_namespace, links) = namespace().await;
    // Polled once, which hands in the request, and dropped.
    assert!(links.devices().now_or_never().is_none());
    assert!(links.listing.try_lock().is_err());
    assert_eq!(links.devices().await.unwrap().len(), 1);
    assert!(links.listing.try_lock().is_ok());
}

#[tokio::test]
async fn a_veth_is_made_whole_or_not_at_all() {
    let (sandbox, inside) = namespace().await;
    let (_host, links) = namespace().await;
    // `add_bridge` sets net.* of the calling thread's namespace, which is not this one's.
    add_bridge(&links).await;

    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&sandbox));
    let sandbox = Sandbox { inode: sandbox.inode(), ..Sandbox::parse(&path).unwrap() };
    let (destination, gateway) = ("10.9.0.0/16".parse().unwrap(), Some([10, 0, 0, 1].into()));
    let route = crate::model::Route { destination, gateway, metric: 0 };
    let interface = Interface {
        sandbox,
        name: "eth0".into(),
        mac: MacAddress::new([2, 0, 0, 0, 0, 9]),
        mtu: 1400,
        up: true,
        queue: Some(Queue { bytes_per_second: 1_000_000, burst: 312_500, waiting: 131_072 }),
        ipv6: true,
        addresses: ["10.0.0.2/24", "fd00::2/64"].map(|text| text.parse().unwrap()).into(),
        sysctls: ["net.ipv4.conf.IFNAME.log_martians=1".parse().unwrap()].into(),
        gateway4: Some([10, 0, 0, 1].into()),
        gateway6: Some("fd00::1".parse().unwrap()),
        routes: [route].into(),
    };
    let far_end = FarEnd::Sandbox(interface.clone());
    let veth = Veth {
        bridge: Some("br0".into()),
        mac: MacAddress::new([2, 0, 0, 0, 0, 8]),
        up: true,
        heard: false,
        mtu: 1400,
        port: BridgePort::default(),
        // More than 32 bits say.
        queue: Some(Queue { bytes_per_second: 5_000_000_000, burst: 312_500, waiting: 250_000_000 }),
        far_end,
    };
    links.add_veth("veth0", &veth).await.unwrap();
    let device = links.device("veth0").await.unwrap().unwrap();
    assert_eq!(
        (device.mtu, device.up, device.controller),
        (1400, true, Some(links.index("br0").await.unwrap()))
    );
    let seen = Links::interface(&device, &interface).await.unwrap();
    assert_eq!(seen.as_ref(), Some(&interface));
    assert_eq!(links.queues().await.unwrap(), BTreeMap::from([(device.index, veth.queue.unwrap())]));

    // The sandbox has such a route now: a second one is refused at the last step, and nothing is left. Its default route stays, too.
    let mut second = Interface { name: "eth1".into(), ..interface.clone() };
    (second.addresses, second.gateway6) = (["10.0.1.2/24".parse().unwrap()].into(), None);
    let of = |interface: &Interface| Veth { far_end: FarEnd::Sandbox(interface.clone()), ..veth.clone() };
    let error = links.add_veth("veth1", &of(&second)).await.unwrap_err().to_string();
    assert_eq!(error, "cannot add the route to 10.9.0.0/16: File exists (os error 17)");
    assert_eq!(names(&links).await, ["br0", "lo", "veth0"].map(str::to_owned).into());
    assert_eq!(names(&inside).await, ["eth0", "lo"].map(str::to_owned).into());

    // It keeps the default route that it has.
    second.routes.clear();
    links.add_veth("veth1", &of(&second)).await.unwrap();
    let near = links.device("veth1").await.unwrap().unwrap();
    let seen = Links::interface(&near, &second).await.unwrap().unwrap();
    assert_eq!((seen.gateway4, seen.up), (None, true));
    assert_eq!(Links::interface(&device, &interface).await.unwrap().as_ref(), Some(&interface));

    // A default route that moves can move back.
    let [own, other] =
        ["veth0", "veth1"].map(|veth| DefaultRoute { veth: veth.to_owned(), gateway: [10, 0, 0, 1].into() });
    links.move_default_route(&interface.sandbox, &own, &other).await.unwrap();
    let gateways = async || {
        let ends = [(&device, &interface), (&near, &second)];
        let [first, second] = ends.map(|(device, wanted)| Links::interface(device, wanted));
        [first.await.unwrap().unwrap().gateway4, second.await.unwrap().unwrap().gateway4]
    };
    assert_eq!(gateways().await, [None, second.gateway4]);
    links.move_default_route(&interface.sandbox, &other, &own).await.unwrap();
    assert_eq!(gateways().await, [interface.gateway4, None]);
    links.delete("veth1").await.unwrap();

    // A change that fails half-way is taken back.
    let mut moved = Interface { addresses: ["10.0.0.3/24".parse().unwrap()].into(), ..interface.clone() };
    let far_end = FarEnd::Sandbox(moved.clone());
    let lost = Veth { bridge: Some("no-such".into()), far_end, ..veth.clone() };
    links.set_veth("veth0", &veth, &lost).await.unwrap_err();
    assert_eq!(Links::interface(&device, &interface).await.unwrap().as_ref(), Some(&interface));

    (moved.gateway6, moved.queue) = (None, None);
    let moved_veth =
        Veth { bridge: None, queue: None, far_end: FarEnd::Sandbox(moved.clone()), ..veth.clone() };
    links.set_veth("veth0", &veth, &moved_veth).await.unwrap();
    assert_eq!(links.device("veth0").await.unwrap().unwrap().controller, None);
    assert_eq!(Links::interface(&device, &moved).await.unwrap().as_ref(), Some(&moved));
    for links in [&links, &inside] {
        assert_eq!(links.queues().await.unwrap(), BTreeMap::new());
    }

    links.delete("veth0").await.unwrap();
    links.delete("veth0").await.unwrap();
    assert_eq!(names(&inside).await, BTreeSet::from(["lo".to_owned()]));
}

#[tokio::test]
async fn an_engines_end_is_made_beside_the_hosts_and_then_left_alone() {
    let (sandbox, inside) = namespace().await;
    let (_host, links) = namespace().await;
    add_bridge(&links).await;

    let mac = MacAddress::new([2, 0, 0, 0, 0, 9]);
    let far_end = FarEnd::Engine { name: "peer0".into(), mac };
    let veth = Veth {
        bridge: Some("br0".into()),
        mac: MacAddress::new([2, 0, 0, 0, 0, 8]),
        up: true,
        heard: false,
        mtu: 1400,
        port: BridgePort::default(),
        queue: None,
        far_end,
    };
    links.add_veth("veth0", &veth).await.unwrap();
    let peer = links.device("peer0").await.unwrap().unwrap();
    assert_eq!((peer.mac, peer.mtu, peer.up, peer.controller), (Some(mac), 1400, false, None));

    // The engine takes it away and gives it another name; the host's end is netd's all the time.
    let taken = LinkUnspec::new_with_index(peer.index)
        .setns_by_fd(std::os::fd::AsRawFd::as_raw_fd(&sandbox))
        .name("eth0")
        .build();
    links.set(taken, "peer0").await.unwrap();
    let loose = Veth { bridge: None, up: false, mtu: 1300, ..veth.clone() };
    links.set_veth("veth0", &veth, &loose).await.unwrap();
    let near = links.device("veth0").await.unwrap().unwrap();
    assert_eq!((near.up, near.mtu, near.controller), (false, 1300, None));
    let far = inside.device("eth0").await.unwrap().unwrap();
    assert_eq!((far.mac, far.mtu, far.up), (Some(mac), 1400, false));
    links.set_veth("veth0", &loose, &veth).await.unwrap();

    links.delete("veth0").await.unwrap();
    assert_eq!(names(&inside).await, BTreeSet::from(["lo".to_owned()]));
}

#[tokio::test]
async fn a_bridge_changes_its_addresses() {
    let (_namespace, links) = namespace().await;
    add_bridge(&links).await;
    let bare = BridgeLink { mtu: 1500, up: false, ..bridge(1, &[]) };
    let first = bridge(2, &["10.0.0.1/24", "10.9.0.1/31"]);
    let second = bridge(3, &["10.0.0.254/24"]);
    for (from, to) in [(&bare, &first), (&first, &second)] {
        links.set_bridge("br0", from, to).await.unwrap();
        let device = links.device("br0").await.unwrap().unwrap();
        assert_eq!((device.mac, device.mtu, device.kind), (Some(to.mac), to.mtu, Kind::Bridge));
        let addresses = links.own_addresses(device.index, &to.addresses).await.unwrap();
        assert_eq!(addresses, to.addresses);
    }
    let index = links.index("br0").await.unwrap();
    links.delete("br0").await.unwrap();
    assert_eq!(links.addresses_of(index).await.unwrap(), []);
}

#[tokio::test]
async fn a_bridge_leads_to_its_subnets_again() {
    let (_namespace, links) = namespace().await;
    let index = add_bridge(&links).await;
    let bare = BridgeLink { mtu: 1500, up: false, ..bridge(1, &[]) };
    let whole = bridge(1, &["10.0.0.1/24", "10.9.0.1/31", "10.8.0.1/32"]);
    links.set_bridge("br0", &bare, &whole).await.unwrap();
    let routes = async || {
        let mut routes = links.routes().await.unwrap();
        routes.retain(|route| route.destination.addr().is_ipv4());
        routes
    };
    let before = routes().await;
    assert_eq!(before.len(), 2, "{before:?}");
    for route in &before {
        let (destination, gateway, metric) = (route.destination, route.gateway, route.metric);
        let route = crate::model::Route { destination, gateway, metric };
        links.delete_route(index, &route).await.unwrap();
    }
    let cut_off = BridgeLink { connected: false, ..whole.clone() };
    // Whether there are routes or not.
    for _ in 0..2 {
        links.set_bridge("br0", &cut_off, &whole).await.unwrap();
        assert_eq!(routes().await, before);
    }
}

#[tokio::test]
async fn a_bridge_may_get_too_narrow_for_ipv6() {
    let (_namespace, links) = namespace().await;
    let index = add_bridge(&links).await;
    let wide = bridge(1, &["10.0.0.1/24", "fd00::1/64"]);
    for &net in &wide.addresses {
        links.add_address(index, net).await.unwrap();
    }
    let narrow = BridgeLink { mtu: 1000, ..bridge(1, &["10.0.0.1/24"]) };
    links.set_bridge("br0", &wide, &narrow).await.unwrap();
    assert_eq!(links.own_addresses(index, &narrow.addresses).await.unwrap(), narrow.addresses);
}

#[tokio::test]
async fn a_bridge_and_its_ports_take_their_settings() {
    let (_namespace, links) = namespace().await;
    add_bridge(&links).await;
    let bare = bridge(1, &[]);
    let settings = BridgeSettings {
        stp: Some(true),
        forward_delay: Some(401),
        priority: Some(4096),
        ageing_time: Some(12_001),
        mcast_snooping: Some(false),
        mcast_querier: Some(true),
        mcast_igmp_version: Some(3),
        mcast_mld_version: Some(2),
        // It is off, and remains so.
        vlan_filtering: Some(false),
    };
    let set = BridgeLink { settings, ..bare.clone() };
    links.set_bridge("br0", &bare, &set).await.unwrap();
    let seen = links.device("br0").await.unwrap().unwrap().settings;
    assert_eq!(wanted_settings(&seen, &settings), settings);
    let partly = BridgeSettings { priority: Some(1), ..BridgeSettings::default() };
    let mentioned = BridgeSettings { priority: Some(4096), ..BridgeSettings::default() };
    assert_eq!(wanted_settings(&seen, &partly), mentioned, "what nobody asked for is not mentioned");

    let ports = [
        BridgePort { isolated: true, hairpin: true, multicast_router: false, vlans: None },
        BridgePort { isolated: false, hairpin: true, multicast_router: true, vlans: None },
        BridgePort::default(),
    ];
    let far_end = FarEnd::Engine { name: "peer0".into(), mac: MacAddress::new([2, 0, 0, 0, 0, 9]) };
    let mut veth = Veth {
        bridge: Some("br0".into()),
        mac: MacAddress::new([2, 0, 0, 0, 0, 8]),
        up: true,
        heard: false,
        mtu: 1500,
        port: ports[0].clone(),
        queue: None,
        far_end,
    };
    links.add_veth("veth0", &veth).await.unwrap();
    for port in ports {
        let wanted = Veth { port, ..veth.clone() };
        links.set_veth("veth0", &veth, &wanted).await.unwrap();
        let device = links.device("veth0").await.unwrap().unwrap();
        let seen = BridgePort {
            isolated: device.isolated,
            hairpin: device.hairpin,
            multicast_router: device.multicast_router,
            vlans: None,
        };
        assert_eq!(seen, wanted.port);
        veth = wanted;
    }
}
