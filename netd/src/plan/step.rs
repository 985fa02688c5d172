//! The way from one world to another.

use std::collections::BTreeMap;

use ipnet::IpNet;
use netd_common::bridge::{INDEPENDENT_FILTERING, INDEPENDENT_MAPPING};

use super::{
    BridgeLink, DefaultRoute, EndpointRow, FarEnd, LinkRef, NetworkRow, PublicationRow, Station, Veth, World,
    default_route::{Move, moves},
};
use crate::model::{HostPorts, Sandbox};

/// One change, whole or not at all. `None` stands for "is not there".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Remove a link that should not be. It has no inverse: nobody wants it back.
    Discard {
        /// Its name.
        link: String,
    },
    /// Make, change or delete a kernel bridge.
    Bridge {
        /// Its name.
        name: String,
        /// As it is.
        from: Option<BridgeLink>,
        /// As it should be.
        to: Option<BridgeLink>,
    },
    /// Make, change or delete a veth pair.
    Veth {
        /// The name of the host's end.
        name: String,
        /// As it is.
        from: Option<Box<Veth>>,
        /// As it should be.
        to: Option<Box<Veth>>,
    },
    /// Have another interface of a sandbox carry its default route, which is there all the while.
    DefaultRoute {
        /// Whose it is.
        sandbox: Sandbox,
        /// As it is.
        from: DefaultRoute,
        /// As it should be, of the same family.
        to: DefaultRoute,
    },
    /// Tell a bridge of a station, or have it forget it.
    Station {
        /// The station.
        station: Station,
        /// Whether it is to be known.
        put: bool,
    },
    /// Write or clear a network in the datapath.
    Network {
        /// Its number.
        number: u32,
        /// As it is.
        from: Option<NetworkRow>,
        /// As it should be.
        to: Option<NetworkRow>,
    },
    /// Tell the datapath of a destination that sees the own addresses of a network's containers.
    Exempt {
        /// The network's number.
        network: u32,
        /// The destination.
        destination: IpNet,
        /// Whether it is to be one.
        put: bool,
    },
    /// Tell the datapath which network a prefix belongs to.
    Subnet {
        /// The prefix.
        prefix: IpNet,
        /// The number of its network as it is.
        from: Option<u32>,
        /// The number of its network as it should be.
        to: Option<u32>,
    },
    /// Translate an external address or prefix to what it stands for.
    External {
        /// What the outside sees.
        external: IpNet,
        /// What it stands for as it is.
        from: Option<IpNet>,
        /// What it stands for as it should be.
        to: Option<IpNet>,
    },
    /// Write or clear an endpoint in the datapath.
    Endpoint {
        /// Its slot.
        slot: u32,
        /// As it is.
        from: Option<EndpointRow>,
        /// As it should be.
        to: Option<EndpointRow>,
    },
    /// Detach `from_container` from a link that is no endpoint's, unless it is a bridge's port all the same. It has no inverse: nobody wants it back.
    Forsake {
        /// The link's index.
        port: u32,
    },
    /// Attach `to_segment` to a segment's bridge, or detach it.
    Segment {
        /// The bridge.
        link: LinkRef,
        /// Attach.
        attach: bool,
    },
    /// Make ports of the host lead to an endpoint, or nowhere.
    Publication {
        /// The ports.
        host: HostPorts,
        /// Where they lead.
        from: Option<PublicationRow>,
        /// Where they should lead.
        to: Option<PublicationRow>,
    },
    /// End the flows that came to ports, or have addresses, which lead elsewhere by now. There is no way back, and none is needed: a flow that
    /// is allowed begins anew.
    EndUnpublished,
    /// End bindings of networks whose mapping is not endpoint-independent by now, and flows that came to a port which is not open
    /// to all any more. There is no way back, as above.
    EndUnbound,
}

impl Step {
    fn veth(name: &str, from: Option<&Veth>, to: Option<&Veth>) -> Self {
        let boxed = |veth: &Veth| Box::new(veth.clone());
        Self::Veth { name: name.to_owned(), from: from.map(boxed), to: to.map(boxed) }
    }

    /// The links in the host's namespace that it takes away.
    pub fn removed(&self) -> Vec<&str> {
        match self {
            Self::Discard { link } => vec![link],
            Self::Bridge { name, from: Some(from), to: None } if !from.adopted => vec![name],
            Self::Veth { name, from: Some(from), to: None } => {
                let far_end = match &from.far_end {
                    FarEnd::Sandbox(_) => None,
                    FarEnd::Engine { name, .. } => Some(&**name),
                    FarEnd::Trunk(trunk) => Some(&*trunk.name),
                };
                [&**name].into_iter().chain(far_end).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The endpoint that it is about, for people, if it is about one.
    pub fn endpoint(&self) -> Option<String> {
        match self {
            Self::Veth { name, from, to } => {
                let far_end = to.as_ref().or(from.as_ref()).map(|veth| &veth.far_end);
                match far_end? {
                    FarEnd::Sandbox(interface) => {
                        Some(format!("{} of {}", interface.name, interface.sandbox))
                    }
                    FarEnd::Engine { .. } => Some(name.clone()),
                    // A segment's, and so of all endpoints there.
                    FarEnd::Trunk(_) => None,
                }
            }
            Self::DefaultRoute { sandbox, .. } => Some(format!("the default route of {sandbox}")),
            Self::Station { station, .. } => Some(format!("the station {} at {}", station.mac, station.port)),
            Self::Endpoint { slot, .. } => Some(format!("the endpoint in slot {slot}")),
            _ => None,
        }
    }

    /// The step that takes this one back.
    pub fn inverse(self) -> Option<Self> {
        Some(match self {
            Self::Discard { .. } | Self::Forsake { .. } | Self::EndUnbound | Self::EndUnpublished => {
                return None;
            }
            Self::Bridge { name, from, to } => Self::Bridge { name, from: to, to: from },
            Self::Veth { name, from, to } => Self::Veth { name, from: to, to: from },
            Self::DefaultRoute { sandbox, from, to } => Self::DefaultRoute { sandbox, from: to, to: from },
            Self::Station { station, put } => Self::Station { station, put: !put },
            Self::Network { number, from, to } => Self::Network { number, from: to, to: from },
            Self::Exempt { network, destination, put } => Self::Exempt { network, destination, put: !put },
            Self::Subnet { prefix, from, to } => Self::Subnet { prefix, from: to, to: from },
            Self::External { external, from, to } => Self::External { external, from: to, to: from },
            Self::Endpoint { slot, from, to } => Self::Endpoint { slot, from: to, to: from },
            Self::Segment { link, attach } => Self::Segment { link, attach: !attach },
            Self::Publication { host, from, to } => Self::Publication { host, from: to, to: from },
        })
    }
}

/// The steps from one world to another, in an order in which each finds what it needs, forwards and backwards: a link is
/// there before and after any table refers to it, and a container's veth carries traffic only while `from_container` hears it, which
/// lets nothing through of an endpoint that the tables do not know.
pub fn steps(from: &World, to: &World) -> Vec<Step> {
    let mut steps = Vec::new();
    steps.extend(from.strays.iter().map(|link| Step::Discard { link: link.clone() }));
    steps.extend(from.forsaken.iter().map(|&port| Step::Forsake { port }));

    // While the port is there that each is at.
    for station in from.stations.difference(&to.stations) {
        steps.push(Step::Station { station: station.clone(), put: false });
    }

    // A sandbox has one default route for each family. One that moves leaves an interface that goes before that has gone, and one
    // that stays when the other can carry it.
    let (mut veths, mut wanted_veths) = (from.veths.clone(), to.veths.clone());
    let (stays, goes): (Vec<_>, Vec<_>) =
        moves(from, to).into_iter().partition(|it| to.veths.contains_key(&it.from.veth));
    for it in goes.into_iter().filter(|it| from.veths.contains_key(&it.to.veth)) {
        it.take(&mut veths);
        steps.push(it.step());
    }
    stays.iter().rev().for_each(|it| it.take_back(&mut wanted_veths));

    // It must not lead through two in any other case either. And a port must leave a bridge that goes.
    for (name, veth) in &mut veths {
        let Some(wanted) = wanted_veths.get(name) else { continue };
        let before = veth.clone();
        if let (FarEnd::Sandbox(is), FarEnd::Sandbox(should)) = (&mut veth.far_end, &wanted.far_end) {
            is.gateway4 = is.gateway4.filter(|_| is.gateway4 == should.gateway4);
            is.gateway6 = is.gateway6.filter(|_| is.gateway6 == should.gateway6);
        }
        veth.bridge = veth
            .bridge
            .take()
            .filter(|bridge| to.bridges.contains_key(bridge) || !from.bridges.contains_key(bridge));
        if *veth != before {
            steps.push(Step::veth(name, Some(&before), Some(veth)));
        }
    }

    remove(&mut steps, from, to, &veths);
    add(&mut steps, from, to, &veths, &wanted_veths);
    steps.extend(stays.into_iter().map(Move::step));
    steps
}

fn remove(steps: &mut Vec<Step>, from: &World, to: &World, veths: &BTreeMap<String, Veth>) {
    // Whatever leads elsewhere is taken out first, so that no two ranges of ports are ever at odds.
    let before = steps.len();
    for (&host, &row) in &from.publications {
        if to.publications.get(&host) != Some(&row) {
            steps.push(Step::Publication { host, from: Some(row), to: None });
        }
    }
    if steps.len() > before {
        steps.push(Step::EndUnpublished);
    }
    let leaving = || veths.iter().filter(|(name, _)| !to.veths.contains_key(*name));
    // What changes sides leaves the old one first: an address stands for one thing, and is one thing's stand-in.
    for (&external, &internal) in
        from.externals.iter().filter(|(external, is)| to.externals.get(*external) != Some(*is))
    {
        steps.push(Step::External { external, from: Some(internal), to: None });
    }
    for (&slot, row) in &from.endpoints {
        // What refers to another link is taken out and put in anew, so that no row refers to a link that is not there.
        if to.endpoints.get(&slot).is_none_or(|wanted| wanted.port != row.port) {
            steps.push(Step::Endpoint { slot, from: Some(row.clone()), to: None });
        }
    }
    for (name, veth) in leaving() {
        steps.push(Step::veth(name, Some(veth), None));
    }
    for (&prefix, &number) in from.subnets.iter().filter(|(prefix, _)| !to.subnets.contains_key(*prefix)) {
        steps.push(Step::Subnet { prefix, from: Some(number), to: None });
    }
    for &(network, destination) in from.exempts.difference(&to.exempts) {
        steps.push(Step::Exempt { network, destination, put: false });
    }
    for (&number, row) in &from.networks {
        if to.networks.get(&number).is_none_or(|wanted| wanted.bridge != row.bridge) {
            steps.push(Step::Network { number, from: Some(row.clone()), to: None });
        }
    }
    for link in from.segments.difference(&to.segments) {
        steps.push(Step::Segment { link: link.clone(), attach: false });
    }
    for (name, bridge) in from.bridges.iter().filter(|(name, _)| !to.bridges.contains_key(*name)) {
        steps.push(Step::Bridge { name: name.clone(), from: Some(bridge.clone()), to: None });
    }
}

/// `wanted_veths` are those of `to`, with each default route where it is until all is there.
fn add(
    steps: &mut Vec<Step>,
    from: &World,
    to: &World,
    veths: &BTreeMap<String, Veth>,
    wanted_veths: &BTreeMap<String, Veth>,
) {
    for (name, wanted) in &to.bridges {
        let is = from.bridges.get(name);
        if is != Some(wanted) {
            steps.push(Step::Bridge { name: name.clone(), from: is.cloned(), to: Some(wanted.clone()) });
        }
    }
    for link in to.segments.difference(&from.segments) {
        steps.push(Step::Segment { link: link.clone(), attach: true });
    }
    // Before the network: what leaves it is never under an address that it should not have.
    for &(network, destination) in to.exempts.difference(&from.exempts) {
        steps.push(Step::Exempt { network, destination, put: true });
    }
    let mut forgets = false;
    for (&number, wanted) in &to.networks {
        let is = from.networks.get(&number).filter(|row| row.bridge == wanted.bridge);
        if is != Some(wanted) {
            steps.push(Step::Network { number, from: is.cloned(), to: Some(wanted.clone()) });
        }
        let lost = is.map_or(0, |is| is.flags & !wanted.flags);
        forgets |= lost & (INDEPENDENT_MAPPING | INDEPENDENT_FILTERING) != 0;
    }
    if forgets {
        steps.push(Step::EndUnbound);
    }
    for (&prefix, &wanted) in &to.subnets {
        let is = from.subnets.get(&prefix).copied();
        if is != Some(wanted) {
            steps.push(Step::Subnet { prefix, from: is, to: Some(wanted) });
        }
    }
    let mut silent = Vec::new();
    for (name, wanted) in wanted_veths {
        let is = veths.get(name);
        // One that is new comes up last; one that is up stays up.
        let first = if is.is_some_and(|is| is.up) { wanted.clone() } else { down(wanted) };
        if is != Some(&first) {
            steps.push(Step::veth(name, is, Some(&first)));
        }
        if first != *wanted {
            silent.push(Step::veth(name, Some(&first), Some(wanted)));
        }
    }
    for station in to.stations.difference(&from.stations) {
        steps.push(Step::Station { station: station.clone(), put: true });
    }
    for (&slot, wanted) in &to.endpoints {
        let is = from.endpoints.get(&slot).filter(|row| row.port == wanted.port);
        if is != Some(wanted) {
            steps.push(Step::Endpoint { slot, from: is.cloned(), to: Some(wanted.clone()) });
        }
    }
    let before = steps.len();
    for (&external, &internal) in
        to.externals.iter().filter(|(external, wanted)| from.externals.get(*external) != Some(*wanted))
    {
        steps.push(Step::External { external, from: None, to: Some(internal) });
    }
    if steps.len() > before {
        // The address may have been the host's until a moment ago.
        steps.push(Step::EndUnpublished);
    }
    for (&host, &row) in &to.publications {
        if from.publications.get(&host) != Some(&row) {
            steps.push(Step::Publication { host, from: None, to: Some(row) });
        }
    }
    steps.append(&mut silent);
}

fn down(veth: &Veth) -> Veth {
    Veth { up: false, ..veth.clone() }
}

#[cfg(test)]
mod tests;
