//! A state to test the shapes of the answers with: the three predefined networks, `n1` with one endpoint, `dev` with none.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use crate::model::{Bridge, Driver, Endpoint, Ipam, MacAddress, Network, Pool, State, Timestamp, sample};

fn created() -> Timestamp {
    (SystemTime::UNIX_EPOCH + Duration::new(1_748_772_000, 123_456_789)).into()
}

fn network(byte: u8, name: &str, driver: Driver) -> Network {
    let created = created();
    Network { created, driver, enable_ipv6: false, ..sample::network(byte, name, Vec::new()) }
}

fn bridge(number: u32, interface: &str) -> Bridge {
    Bridge::new(number, interface, MacAddress::new([2, 0, 0, 0, 0, 1]))
}

fn pool(subnet: &str, gateway: &str) -> Pool {
    Pool { gateway: Some(gateway.parse().unwrap()), ..sample::pool(subnet) }
}

/// The state.
pub(crate) fn state() -> State {
    let default = Network {
        ipam: Ipam {
            pools: vec![pool("172.17.0.0/16", "172.17.0.1")],
            ..network(1, "", Driver::Bridge).ipam
        },
        options: BTreeMap::from([("com.docker.network.bridge.name".into(), "netd0".into())]),
        bridge: Some(bridge(0, "netd0")),
        ..network(1, "bridge", Driver::Bridge)
    };
    let n1 = Network {
        enable_ipv6: true,
        internal: true,
        attachable: true,
        ipam: Ipam {
            driver: "default".into(),
            options: Some(BTreeMap::new()),
            pools: vec![
                Pool {
                    range: Some("10.5.1.0/24".parse().unwrap()),
                    auxiliary: BTreeMap::from([("h".into(), "10.5.0.9".parse().unwrap())]),
                    requested: true,
                    ..pool("10.5.0.0/16", "10.5.0.1")
                },
                Pool { requested: true, gateway_shown: false, ..pool("fd00:5::/64", "fd00:5::1") },
            ],
        },
        labels: BTreeMap::from([("in".into(), "out".into())]),
        bridge: Some(bridge(1, "br-020202020202")),
        ..network(2, "n1", Driver::Bridge)
    };
    let web = Endpoint {
        mac: "02:42:0a:05:01:02".parse().unwrap(),
        ipv4: Some("10.5.1.2/16".parse().unwrap()),
        ipv6: Some("fd00:5::2/64".parse().unwrap()),
        created: created(),
        ..sample::endpoint(&n1, 9, "web")
    };
    let dev = Network { bridge: Some(bridge(2, "br-030303030303")), ..network(3, "dev", Driver::Bridge) };
    let networks = [default, n1, dev, network(4, "host", Driver::Host), network(5, "none", Driver::Null)];
    State {
        networks: networks.into_iter().map(|network| (network.id, network)).collect(),
        endpoints: [web].into_iter().collect(),
        ..State::default()
    }
}
