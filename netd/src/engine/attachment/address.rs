//! The subnets, addresses and routes of an attachment: functions of what is asked and of what there is.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{
    ipam::{self, Requested},
    model::{
        Endpoint, Error, Network, Pool, Route, State,
        attachment::{Address, Attach, Range},
    },
};

/// The pools that a request speaks of: its ranges, or else the subnets of its addresses.
pub(super) fn pools(request: &Attach) -> Result<Vec<Pool>, Error> {
    let of_addresses = request.addresses.iter().map(|given| Range {
        subnet: given.address.trunc(),
        first: None,
        last: None,
        gateway: given.gateway,
    });
    let mut families = BTreeSet::new();
    for set in &request.ranges {
        let Some(first) = set.first() else {
            return Err(Error::invalid("invalid ipam ranges: a set of them is empty"));
        };
        let ipv6 = first.subnet.addr().is_ipv6();
        if set.iter().any(|range| range.subnet.addr().is_ipv6() != ipv6) {
            return Err(Error::invalid("invalid ipam ranges: mixed address families in one set"));
        }
        if !families.insert(ipv6) {
            return Err(Error::not_implemented(
                "invalid ipam ranges: netd gives an interface one address of each family, not two",
            ));
        }
    }
    let ranges = request.ranges.iter().flatten().copied();
    let mut pools: Vec<Pool> = Vec::new();
    for range in ranges.chain(of_addresses) {
        if pools.iter().any(|pool| ipam::overlaps(pool.subnet, range.subnet)) {
            return Err(Error::invalid(format!(
                "invalid ipam ranges: {} overlaps with another one",
                range.subnet
            )));
        }
        pools.push(pool(&range, !request.ipam.is_empty())?);
    }
    Ok(pools)
}

fn pool(range: &Range, foreign: bool) -> Result<Pool, Error> {
    let Range { subnet, first, last, gateway } = *range;
    if subnet != subnet.trunc() {
        return Err(Error::invalid(format!("invalid subnet {subnet}: it should be {}", subnet.trunc())));
    }
    for (what, address) in [("range start", first), ("range end", last), ("gateway", gateway)] {
        if let Some(address) = address.filter(|address| !subnet.contains(address)) {
            return Err(Error::invalid(format!("invalid {what} {address}: it is not in {subnet}")));
        }
    }
    let requested = Requested { subnet: Some(subnet), range: None, gateway, auxiliary: BTreeMap::new() };
    let mut pool = if foreign && gateway.is_none() {
        // Another IPAM's network without a gateway: the bridge has no address in it.
        Pool {
            subnet,
            range: None,
            bounds: None,
            last: None,
            gateway: None,
            gateway_shown: false,
            auxiliary: BTreeMap::new(),
            requested: true,
        }
    } else {
        ipam::complete(subnet, &requested)?
    };
    if first.is_some() || last.is_some() {
        let whole = ipam::bounds(&pool);
        let (first, last) = (first.unwrap_or(whole.0), last.unwrap_or(whole.1));
        if first > last {
            return Err(Error::invalid(format!("invalid range {first}-{last}: it ends before it begins")));
        }
        pool.bounds = Some((first, last));
    }
    Ok(pool)
}

/// The addresses that a pool gives, as `first-last`.
pub(super) fn range(pool: &Pool) -> String {
    let (first, last) = ipam::bounds(pool);
    format!("{first}-{last}")
}

/// The addresses of an attachment: those that another IPAM chose, those that were asked for, or the lowest that are free.
pub(super) fn addresses(
    state: &State,
    network: &Network,
    request: &Attach,
) -> Result<(Option<IpNet>, Option<IpNet>), Error> {
    let used: BTreeMap<IpAddr, &Endpoint> = state
        .endpoints_of(network.id)
        .flat_map(|endpoint| endpoint.addresses().map(move |address| (address, endpoint)))
        .collect();
    let mut asked = request.requested.clone();
    let mut chosen = [None, None];
    let mut set = 0;
    for (ipv6, chosen) in [false, true].into_iter().zip(&mut chosen) {
        if !request.ipam.is_empty() {
            *chosen = given(&used, request, ipv6)?;
            continue;
        }
        let pools: Vec<&Pool> = network.pools(ipv6).collect();
        if pools.is_empty() {
            continue;
        }
        let within = |address: &IpAddr| {
            pools.iter().copied().find(|pool| {
                let (first, last) = ipam::bounds(pool);
                first.is_ipv4() == address.is_ipv4() && (first..=last).contains(address)
            })
        };
        let failed = |why: String| Error::forbidden(format!("failed to allocate for range {set}: {why}"));
        let ranges = || pools.iter().map(|pool| range(pool)).collect::<Vec<_>>().join(",");
        let wanted = asked.iter().position(|address| within(address).is_some()).map(|at| asked.remove(at));
        *chosen = Some(match wanted {
            Some(wanted) => {
                let pool = within(&wanted).expect("it was found there");
                if pool.gateway == Some(wanted) {
                    return Err(failed(format!("requested ip {wanted} is subnet's gateway")));
                }
                ipam::claim(pool, &used.keys().copied().collect(), wanted).map_err(|_| {
                    failed(format!(
                        "requested IP address {wanted} is not available in range set {}",
                        ranges()
                    ))
                })?;
                pool.sized(wanted)
            }
            None => {
                let taken = used.keys().copied().collect();
                let free =
                    |pool: &&Pool| ipam::lowest_free(pool, &taken).ok().map(|address| pool.sized(address));
                let free = pools.iter().find_map(free);
                free.ok_or_else(|| failed(format!("no IP addresses available in range set: {}", ranges())))?
            }
        });
        set += 1;
    }
    if !asked.is_empty() {
        let asked: Vec<_> = asked.iter().map(ToString::to_string).collect();
        return Err(Error::invalid(format!("failed to allocate all requested IPs: {}", asked.join(" "))));
    }
    let [ipv4, ipv6] = chosen;
    Ok((ipv4, ipv6))
}

/// The address of one family that another IPAM chose.
fn given(used: &BTreeMap<IpAddr, &Endpoint>, request: &Attach, ipv6: bool) -> Result<Option<IpNet>, Error> {
    let mut of_family = request.addresses.iter().filter(|given| given.address.addr().is_ipv6() == ipv6);
    let Some(Address { address, .. }) = of_family.next().copied() else { return Ok(None) };
    if of_family.next().is_some() {
        return Err(Error::not_implemented(format!(
            "{} gave two addresses of one family, and netd gives an interface one",
            request.ipam
        )));
    }
    if let Some(owner) = used.get(&address.addr()) {
        return Err(Error::forbidden(format!(
            "{} gave the address {}, which {} has already",
            request.ipam,
            address.addr(),
            owner.name
        )));
    }
    Ok(Some(address))
}

/// Routes as the kernel takes them: by the gateway of the endpoint's subnet, unless they say by whom.
pub(super) fn routes(network: &Network, wanted: &[Route], endpoint: &Endpoint) -> Result<Vec<Route>, Error> {
    let mut routes = Vec::new();
    for route in wanted {
        let ipv4 = route.destination.addr().is_ipv4();
        let address = address_towards(route.destination, endpoint)?;
        if route.gateway.is_some_and(|gateway| gateway.is_ipv4() != ipv4) {
            return Err(Error::invalid(format!(
                "invalid route to {}: its gateway is of the other family",
                route.destination
            )));
        }
        let pool = network.ipam.pools.iter().find(|pool| pool.subnet.contains(&address.addr()));
        let route = Route { gateway: route.gateway.or(pool.and_then(Pool::way_out)), ..*route };
        if !routes.contains(&route) {
            routes.push(route);
        }
    }
    Ok(routes)
}

/// The endpoint's address of the family that a route is of, without which it can have no such route.
pub(super) fn address_towards(destination: IpNet, endpoint: &Endpoint) -> Result<IpNet, Error> {
    let own = endpoint.nets().find(|own| own.addr().is_ipv4() == destination.addr().is_ipv4());
    own.ok_or_else(|| {
        let why = "the interface has no address of that family";
        Error::invalid(format!("invalid route to {destination}: {why}"))
    })
}
