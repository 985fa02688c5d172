//! Sequences of what users do, against a model that is too simple to be wrong.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::{config::AddressPool, model::Pool};

/// What a user does; the numbers choose among what there is.
#[derive(Clone, Copy, Debug)]
enum Action {
    Create { serial: bool },
    Remove(usize),
    Connect(usize),
    Disconnect(usize, usize),
}

/// A network as the engine would keep it.
struct Network {
    pool: Pool,
    used: BTreeSet<IpAddr>,
    serial: bool,
}

/// The same as an array of who has which address: four subnets of sixteen.
#[derive(Default)]
struct Model {
    subnets: [Option<Subnet>; 4],
}

#[derive(Clone, Copy)]
struct Subnet {
    taken: [bool; 16],
    serial: bool,
    last: usize,
}

impl Model {
    /// The number of the subnet that a new network gets.
    fn create(&mut self, serial: bool) -> Option<usize> {
        let free = self.subnets.iter().position(Option::is_none)?;
        let mut taken = [false; 16];
        // The network's own address, the gateway, the broadcast address.
        for at in [0, 1, 15] {
            taken[at] = true;
        }
        self.subnets[free] = Some(Subnet { taken, serial, last: 1 });
        Some(free)
    }
}

impl Subnet {
    /// The number of the address that a new endpoint gets.
    fn connect(&mut self) -> Option<usize> {
        let first = if self.serial { self.last + 1 } else { 0 };
        let free = (first..16).chain(0..first).find(|&at| !self.taken[at])?;
        self.taken[free] = true;
        self.last = free;
        Some(free)
    }
}

/// The host part of an address in a subnet of sixteen.
fn host(address: IpAddr) -> usize {
    let IpAddr::V4(address) = address else { panic!("IPv4") };
    usize::from(address.octets()[3] % 16)
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        1 => any::<bool>().prop_map(|serial| Action::Create { serial }),
        1 => (0..4usize).prop_map(Action::Remove),
        8 => (0..4usize).prop_map(Action::Connect),
        5 => (0..4usize, 0..16usize).prop_map(|(network, endpoint)| Action::Disconnect(network, endpoint)),
    ]
}

proptest! {
    #[test]
    fn any_sequence_gives_what_the_model_gives(actions in prop::collection::vec(action(), 1..120)) {
        let base = AddressPool { base: "10.0.0.0/26".parse().unwrap(), size: 28 };
        let pools = Pools::new(&[base], "fd00::/48".parse().unwrap());
        let mut networks: [Option<Network>; 4] = Default::default();
        let mut model = Model::default();
        for action in actions {
            match action {
                Action::Create { serial } => {
                    let taken: Vec<IpNet> =
                        networks.iter().flatten().map(|network| network.pool.subnet).collect();
                    let subnet = pools.next(false, &taken).ok();
                    let number = subnet.map(|subnet| {
                        let IpAddr::V4(address) = subnet.addr() else { panic!("IPv4") };
                        usize::from(address.octets()[3] / 16)
                    });
                    prop_assert_eq!(number, model.create(serial));
                    if let (Some(subnet), Some(number)) = (subnet, number) {
                        let pool = complete(subnet, &Requested::default()).unwrap();
                        networks[number] = Some(Network { pool, used: BTreeSet::new(), serial });
                    }
                }
                Action::Remove(number) => {
                    networks[number] = None;
                    model.subnets[number] = None;
                }
                Action::Connect(number) => {
                    let (Some(network), Some(subnet)) = (&mut networks[number], &mut model.subnets[number]) else {
                        continue;
                    };
                    let address = if network.serial {
                        next_free(&network.pool, &network.used, network.pool.last)
                    } else {
                        lowest_free(&network.pool, &network.used)
                    };
                    prop_assert_eq!(address.clone().ok().map(host), subnet.connect());
                    if let Ok(address) = address {
                        prop_assert!(network.used.insert(address), "{} was given twice", address);
                        prop_assert!(network.pool.subnet.contains(&address));
                        network.pool.last = Some(address);
                    }
                }
                Action::Disconnect(number, endpoint) => {
                    let (Some(network), Some(subnet)) = (&mut networks[number], &mut model.subnets[number]) else {
                        continue;
                    };
                    if let Some(&address) = network.used.iter().nth(endpoint) {
                        network.used.remove(&address);
                        subnet.taken[host(address)] = false;
                    }
                }
            }
        }
    }
}
