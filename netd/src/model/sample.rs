//! Values to test with: bare ones, of which a test changes what it is about.

use std::collections::BTreeMap;

use super::{Driver, Endpoint, FarEnd, Id, Ipam, MacAddress, Network, Pool, Port, Rates, Sandbox, Timestamp};

/// A subnet without a gateway, that nobody asked for.
pub(crate) fn pool(subnet: &str) -> Pool {
    Pool {
        subnet: subnet.parse().unwrap(),
        range: None,
        bounds: None,
        gateway: None,
        gateway_shown: true,
        auxiliary: BTreeMap::new(),
        requested: false,
        last: None,
    }
}

/// A network of both families without a bridge, whose id is this byte over and over.
pub(crate) fn network(byte: u8, name: &str, pools: Vec<Pool>) -> Network {
    Network {
        id: Id::new([byte; 32]),
        name: name.into(),
        created: Timestamp::now(),
        driver: Driver::Bridge,
        enable_ipv4: true,
        enable_ipv6: true,
        internal: false,
        attachable: false,
        config_only: false,
        config_from: None,
        ipam: Ipam { driver: "default".into(), options: None, pools },
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        bridge: None,
        engine_id: None,
    }
}

/// An endpoint in the namespace of its name, without addresses, whose id is this byte over and over.
pub(crate) fn endpoint(network: &Network, byte: u8, name: &str) -> Endpoint {
    Endpoint {
        id: Id::new([byte; 32]),
        network: network.id,
        name: name.into(),
        container: None,
        far_end: FarEnd::Sandbox(Sandbox::parse(&format!("netns:{name}")).unwrap()),
        slot: 7,
        mac: MacAddress::new([2, 0, 0, 0, 1, 2]),
        ipv4: None,
        ipv6: None,
        host_interface: "veth0123456".into(),
        interface: "eth0".into(),
        gateway4: None,
        gateway6: None,
        routes: Vec::new(),
        gateway_priority: 0,
        mtu: 1500,
        link_local: Vec::new(),
        aliases: Vec::new(),
        sysctls: Vec::new(),
        port: Port::default(),
        segment: None,
        rates: Rates::default(),
        publications: Vec::new(),
        created: Timestamp::now(),
    }
}
