//! Which address of its network's pool an endpoint gets.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use super::{
    Error,
    span::{Span, address, number},
};
use crate::model::Pool;

/// The lowest address of the pool's range that nobody has. `used` are the endpoints' addresses.
pub fn lowest_free(pool: &Pool, used: &BTreeSet<IpAddr>) -> Result<IpAddr, Error> {
    free_within(pool, used, span(pool))
}

/// The next address of the pool's range that nobody has, after the `last` one that was given out; from the beginning when
/// the end is reached. An address that was just freed is so given again as late as can be.
pub fn next_free(pool: &Pool, used: &BTreeSet<IpAddr>, last: Option<IpAddr>) -> Result<IpAddr, Error> {
    let range = span(pool);
    let beyond = last
        .and_then(|last| number(last).checked_add(1))
        .filter(|next| (range.first..=range.last).contains(next));
    match beyond.map(|first| free_within(pool, used, Span { first, ..range })) {
        Some(Ok(address)) => Ok(address),
        _ => lowest_free(pool, used),
    }
}

/// The lowest address of `range` that nobody has.
fn free_within(pool: &Pool, used: &BTreeSet<IpAddr>, range: Span) -> Result<IpAddr, Error> {
    let fixed = reserved(pool.subnet).chain(pool.gateway).chain(pool.auxiliary.values().copied());
    let taken: BTreeSet<u128> = used.iter().copied().chain(fixed).map(number).collect();
    let mut candidate = range.first;
    for &taken in taken.range(range.first..=range.last) {
        if taken > candidate {
            break;
        }
        candidate = taken.checked_add(1).filter(|next| *next <= range.last).ok_or(Error::Exhausted)?;
    }
    Ok(address(candidate, pool.subnet.addr()))
}

/// The first and the last address of the pool's range that an interface may have.
pub fn bounds(pool: &Pool) -> (IpAddr, IpAddr) {
    let Span { mut first, mut last } = span(pool);
    for reserved in reserved(pool.subnet).map(number) {
        first += u128::from(reserved == first && first < last);
        last -= u128::from(reserved == last && first < last);
    }
    (address(first, pool.subnet.addr()), address(last, pool.subnet.addr()))
}

fn span(pool: &Pool) -> Span {
    match pool.bounds {
        Some((first, last)) => Span { first: number(first), last: number(last) },
        None => pool.range.unwrap_or(pool.subnet).into(),
    }
}

/// Whether an endpoint may have just this address of the pool's subnet, in its range or not.
pub fn claim(pool: &Pool, used: &BTreeSet<IpAddr>, wanted: IpAddr) -> Result<(), Error> {
    if !pool.subnet.contains(&wanted) {
        return Err(Error::OutOfRange);
    }
    let taken = used.contains(&wanted)
        || pool.gateway == Some(wanted)
        || pool.auxiliary.values().any(|address| *address == wanted)
        || reserved(pool.subnet).any(|address| address == wanted);
    if taken { Err(Error::InUse) } else { Ok(()) }
}

/// What no interface bears: the network address and IPv4's broadcast address, where the subnet is large enough to have
/// them (RFC 3021), and IPv6's subnet-router anycast address (RFC 4291 2.6.1; not on point-to-point links, RFC 6164).
pub fn reserved(subnet: IpNet) -> impl Iterator<Item = IpAddr> {
    let large = subnet.max_prefix_len() - subnet.prefix_len() > 1;
    let network = large.then(|| subnet.network());
    let broadcast = (large && subnet.addr().is_ipv4()).then(|| subnet.broadcast());
    network.into_iter().chain(broadcast)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn pool(subnet: &str, range: Option<&str>, gateway: Option<&str>) -> Pool {
        Pool {
            subnet: subnet.parse().unwrap(),
            range: range.map(|range| range.parse().unwrap()),
            bounds: None,
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            gateway_shown: true,
            auxiliary: BTreeMap::new(),
            requested: true,
            last: None,
        }
    }

    /// Every address that the pool gives out, in order.
    fn drain(pool: &Pool) -> Vec<String> {
        let mut used = BTreeSet::new();
        let mut given = Vec::new();
        while let Ok(address) = lowest_free(pool, &used) {
            assert!(used.insert(address));
            given.push(address.to_string());
        }
        given
    }

    #[test]
    fn a_small_subnet_is_given_out_whole() {
        let given = drain(&pool("10.2.0.0/29", None, Some("10.2.0.1")));
        assert_eq!(given, ["10.2.0.2", "10.2.0.3", "10.2.0.4", "10.2.0.5", "10.2.0.6"]);
        assert_eq!(drain(&pool("10.2.0.0/31", None, Some("10.2.0.0"))), ["10.2.0.1"]);
        assert_eq!(drain(&pool("10.2.0.9/32", None, None)), ["10.2.0.9"]);
        assert_eq!(drain(&pool("fd00::/126", None, Some("fd00::1"))), ["fd00::2", "fd00::3"]);
        assert_eq!(drain(&pool("255.255.255.252/30", None, None)), ["255.255.255.253", "255.255.255.254"]);
        assert_eq!(drain(&pool("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127", None, None)).len(), 2);
    }

    #[test]
    fn the_edges_of_a_range_are_no_edges_of_the_subnet() {
        let given = drain(&pool("172.28.0.0/16", Some("172.28.30.0/24"), Some("172.28.0.1")));
        assert_eq!((given.len(), &*given[0], &*given[255]), (256, "172.28.30.0", "172.28.30.255"));
    }

    #[test]
    fn serially_each_address_has_its_turn() {
        let pool = pool("10.2.0.0/29", None, Some("10.2.0.1"));
        let at = |last: u8| IpAddr::from([10, 2, 0, last]);
        let next = |used: &[u8], last: Option<u8>| {
            let used = used.iter().map(|&last| at(last)).collect();
            next_free(&pool, &used, last.map(at)).map_err(|error| error.to_string())
        };
        assert_eq!(next(&[], None), Ok(at(2)));
        assert_eq!(next(&[2], Some(2)), Ok(at(3)));
        assert_eq!(next(&[], Some(4)), Ok(at(5)), "though 2 to 4 are free again");
        assert_eq!(next(&[], Some(6)), Ok(at(2)), "after the last one the first");
        assert_eq!(next(&[3, 4, 5, 6], Some(4)), Ok(at(2)));
        assert_eq!(next(&[2, 3, 4, 5, 6], Some(4)).unwrap_err(), "no available addresses on this pool");
        let ranged = self::pool("10.2.0.0/16", Some("10.2.1.0/30"), Some("10.2.0.1"));
        let next = |last: [u8; 4]| next_free(&ranged, &BTreeSet::new(), Some(last.into())).unwrap();
        assert_eq!(next([10, 2, 1, 3]), IpAddr::from([10, 2, 1, 0]));
        assert_eq!(
            next([10, 2, 0, 9]),
            IpAddr::from([10, 2, 1, 0]),
            "one from outside the range is no last one"
        );
    }

    #[test]
    fn bounds_need_be_no_prefix() {
        let whole = pool("10.2.0.0/29", None, Some("10.2.0.1"));
        assert_eq!(bounds(&whole), ("10.2.0.1".parse().unwrap(), "10.2.0.6".parse().unwrap()));
        let part = Pool { bounds: Some(("10.2.0.3".parse().unwrap(), "10.2.0.5".parse().unwrap())), ..whole };
        assert_eq!(drain(&part), ["10.2.0.3", "10.2.0.4", "10.2.0.5"]);
        assert_eq!(bounds(&part), part.bounds.unwrap());
        let one = bounds(&pool("10.2.0.9/32", None, None));
        assert_eq!(one, ("10.2.0.9".parse().unwrap(), "10.2.0.9".parse().unwrap()));
    }

    #[test]
    fn auxiliary_addresses_are_kept_back() {
        let mut pool = pool("10.5.0.0/16", None, Some("10.5.0.1"));
        pool.auxiliary.insert("a".into(), "10.5.0.2".parse().unwrap());
        assert_eq!(lowest_free(&pool, &BTreeSet::new()).unwrap().to_string(), "10.5.0.3");
    }

    #[test]
    fn a_wanted_address_is_given_unless_it_is_taken() {
        let pool = pool("10.5.0.0/16", Some("10.5.1.0/24"), Some("10.5.0.1"));
        let used = BTreeSet::from(["10.5.0.7".parse().unwrap()]);
        let claim = |address: &str| claim(&pool, &used, address.parse().unwrap());
        assert_eq!(claim("10.5.9.9"), Ok(()));
        for taken in ["10.5.0.0", "10.5.255.255", "10.5.0.1", "10.5.0.7"] {
            assert_eq!(claim(taken), Err(Error::InUse), "{taken}");
        }
        assert_eq!(claim("10.6.0.1"), Err(Error::OutOfRange));
        assert_eq!(claim("fd00::1"), Err(Error::OutOfRange));
    }

    proptest! {
        #[test]
        fn the_lowest_free_is_what_a_naive_walk_finds(
            len in 24u8..=32,
            range in prop::option::of((any::<u8>(), 0u8..=8)),
            used in prop::collection::btree_set(any::<u8>(), 0..256),
            gateway: u8,
            auxiliary: u8,
        ) {
            let at = |last: u8| IpAddr::from([10, 0, 0, last]);
            let subnet = IpNet::new(at(0), len).unwrap();
            let range = range
                .map(|(last, more)| IpNet::new(at(last), (len + more).min(32)).unwrap().trunc())
                .filter(|range| subnet.contains(range));
            let pool = Pool {
                subnet,
                range,
                bounds: None,
                gateway: Some(at(gateway)).filter(|gateway| subnet.contains(gateway)),
                gateway_shown: true,
                auxiliary: BTreeMap::from([("a".to_owned(), at(auxiliary))]),
                requested: true,
                last: None,
            };
            let used: BTreeSet<IpAddr> = used.into_iter().map(at).collect();
            let within = range.unwrap_or(subnet);
            let edges = if len >= 31 { vec![] } else { vec![subnet.network(), subnet.broadcast()] };
            let naive = (0..=255).map(at).find(|address| {
                within.contains(address)
                    && !used.contains(address)
                    && !edges.contains(address)
                    && pool.gateway != Some(*address)
                    && *address != at(auxiliary)
            });
            prop_assert_eq!(lowest_free(&pool, &used).ok(), naive);
            if let Some(address) = naive {
                prop_assert_eq!(claim(&pool, &used, address), Ok(()));
            }
        }
    }
}
