//! What differs from what was made, for people.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::plan::{self, Step};

/// What a step would set right, for people.
pub(super) fn fault(step: &Step) -> String {
    let be = |from: bool| if from { "is changed" } else { "is missing" };
    match step {
        Step::Discard { link } => format!("{link} is another link than netd made"),
        Step::Bridge { name, from, .. } => format!("the bridge {name} {}", be(from.is_some())),
        Step::Veth { name, from: None, .. } => format!("the veth pair of {name} is missing"),
        Step::Veth { name, from: Some(from), to: Some(to) } => changed(name, from, to),
        Step::Veth { name, .. } => format!("{name} should not be there"),
        Step::DefaultRoute { sandbox, from, to } => {
            format!("the default route of {sandbox} leads through {}, not {}", from.veth, to.veth)
        }
        Step::Station { station, .. } => {
            format!("the bridge {} does not know who is at {}", station.bridge, station.port)
        }
        Step::Network { number, from, .. } => {
            format!("the datapath's network {number} {}", be(from.is_some()))
        }
        Step::Subnet { prefix, from, .. } => format!("the datapath's subnet {prefix} {}", be(from.is_some())),
        Step::Exempt { destination, .. } => {
            format!("the datapath's exempt destination {destination} is missing")
        }
        Step::External { external, from, .. } => {
            format!("the datapath's external address {external} {}", be(from.is_some()))
        }
        Step::Endpoint { slot, from, .. } => format!("the datapath's endpoint {slot} {}", be(from.is_some())),
        Step::Forsake { port } => format!("the program at the interface {port} should not be there"),
        Step::Segment { .. } => "the program at a segment's bridge is missing".to_owned(),
        Step::Publication { host, from, .. } => {
            format!("the datapath's publication of {host} {}", be(from.is_some()))
        }
        Step::EndUnbound => {
            "bindings are left of a mapping or a filtering that the network has no more".to_owned()
        }
        Step::EndUnpublished => "flows lead to ports that are not published any more".to_owned(),
    }
}

fn changed(name: &str, from: &plan::Veth, to: &plan::Veth) -> String {
    let (Some(is), Some(should)) = (from.far_end.interface(), to.far_end.interface()) else {
        return format!("{name} is changed");
    };
    let list = |nets: &BTreeSet<IpNet>| nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut faults = Vec::new();
    if is.addresses != should.addresses {
        let missing: BTreeSet<_> = should.addresses.difference(&is.addresses).copied().collect();
        faults.push(format!("{} lacks the address {}", should.name, list(&missing)));
    }
    if is.mac != should.mac {
        faults.push(format!("{} has the MAC address {}, not {}", should.name, is.mac, should.mac));
    }
    if is.mtu != should.mtu || from.mtu != to.mtu {
        faults.push(format!("{} has the MTU {}, not {}", should.name, is.mtu, should.mtu));
    }
    if !is.up || !from.up {
        faults.push(format!("{} is down", should.name));
    }
    if is.gateway4 != should.gateway4 || is.gateway6 != should.gateway6 || is.routes != should.routes {
        faults.push(format!("{} lacks a route", should.name));
    }
    if from.queue != to.queue || is.queue != should.queue {
        faults.push(format!("{} is not limited as it should be", should.name));
    }
    if from.heard != to.heard {
        faults.push(format!("the program at {name} is missing"));
    }
    if from.bridge != to.bridge {
        faults.push(format!("{name} is no port of {}", to.bridge.as_deref().unwrap_or("any bridge")));
    }
    if faults.is_empty() { format!("{name} is changed") } else { faults.join(", ") }
}
