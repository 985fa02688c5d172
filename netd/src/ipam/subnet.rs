//! Which subnet a network gets that asks for none.

use ipnet::{IpNet, Ipv6Net};

use super::{
    Error,
    span::{Span, address},
};
use crate::config::AddressPool;

/// Docker's pools, in its order: base and size of each subnet.
const DEFAULT: [(&str, u8); 7] = [
    ("172.17.0.0/16", 16),
    ("172.18.0.0/16", 16),
    ("172.19.0.0/16", 16),
    ("172.20.0.0/14", 16),
    ("172.24.0.0/14", 16),
    ("172.28.0.0/14", 16),
    ("192.168.0.0/16", 20),
];

/// Where subnets come from that nobody asked for.
#[derive(Clone, Debug)]
pub struct Pools(Vec<AddressPool>);

impl Pools {
    /// The configured pools. A family that has none gets Docker's pools, or /64s of `ula`, this host's unique local
    /// prefix (RFC 4193).
    pub fn new(configured: &[AddressPool], ula: Ipv6Net) -> Self {
        let mut pools = configured.to_vec();
        if !pools.iter().any(|pool| pool.base.addr().is_ipv4()) {
            pools.extend(
                DEFAULT
                    .iter()
                    .map(|&(base, size)| AddressPool { base: base.parse().expect("a prefix"), size }),
            );
        }
        if !pools.iter().any(|pool| pool.base.addr().is_ipv6()) {
            pools.push(AddressPool { base: ula.into(), size: 64 });
        }
        Self(pools)
    }

    /// The first subnet of the family that overlaps nothing that is taken.
    pub fn next(&self, ipv6: bool, taken: &[IpNet]) -> Result<IpNet, Error> {
        let mut taken: Vec<Span> =
            taken.iter().filter(|net| net.addr().is_ipv6() == ipv6).map(|&net| net.into()).collect();
        taken.sort_unstable_by_key(|span| span.first);
        self.0
            .iter()
            .filter(|pool| pool.base.addr().is_ipv6() == ipv6)
            .find_map(|pool| first_free(pool, &taken))
            .ok_or(Error::Subnetted)
    }
}

/// Whether two prefixes of one family have an address in common.
pub fn overlaps(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// The lowest subnet of `pool` that overlaps no span of `taken`, which is sorted by first address.
fn first_free(pool: &AddressPool, taken: &[Span]) -> Option<IpNet> {
    let base = Span::from(pool.base);
    // One less than the size, for a subnet of all IPv6 addresses has one more than a u128 holds.
    let reach = u128::MAX.checked_shr(128 - u32::from(pool.base.max_prefix_len() - pool.size)).unwrap_or(0);
    let mut candidate = Span { first: base.first, last: base.first + reach };
    for span in taken {
        if span.overlaps(candidate) {
            // On to the first subnet beyond it.
            let first =
                (span.last.max(candidate.last) | reach).checked_add(1).filter(|first| *first <= base.last)?;
            candidate = Span { first, last: first + reach };
        }
    }
    let net = IpNet::new(address(candidate.first, pool.base.addr()), pool.size);
    Some(net.expect("the size was checked against the family"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ula() -> Ipv6Net {
        "fd12:3456:789a::/48".parse().unwrap()
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn dockers_pools_in_dockers_order() {
        let pools = Pools::new(&[], ula());
        let mut taken = Vec::new();
        while let Ok(net) = pools.next(false, &taken) {
            taken.push(net);
        }
        let texts: Vec<_> = taken.iter().map(ToString::to_string).collect();
        assert_eq!(texts[..4], ["172.17.0.0/16", "172.18.0.0/16", "172.19.0.0/16", "172.20.0.0/16"]);
        assert_eq!(texts[14..17], ["172.31.0.0/16", "192.168.0.0/20", "192.168.16.0/20"]);
        assert_eq!(texts.len(), 31);
        assert_eq!(pools.next(false, &taken), Err(Error::Subnetted));
    }

    #[test]
    fn taken_prefixes_of_any_size_are_passed_over() {
        let pools = Pools::new(&[], ula());
        let next = |taken: &[&str]| pools.next(false, &nets(taken)).unwrap().to_string();
        assert_eq!(next(&["172.17.3.0/24", "172.16.0.0/15"]), "172.18.0.0/16");
        assert_eq!(next(&["172.16.0.0/12"]), "192.168.0.0/20");
        assert_eq!(next(&["172.16.0.0/12", "192.168.1.0/24", "192.168.20.0/24"]), "192.168.32.0/20");
        assert_eq!(pools.next(true, &nets(&["172.17.0.0/16"])).unwrap().to_string(), "fd12:3456:789a::/64");
        let taken = nets(&["fd12:3456:789a::/63"]);
        assert_eq!(pools.next(true, &taken).unwrap().to_string(), "fd12:3456:789a:2::/64");
    }

    #[test]
    fn a_vast_pool_is_no_long_walk() {
        let pool = AddressPool { base: "::/0".parse().unwrap(), size: 128 };
        assert_eq!(first_free(&pool, &[]).unwrap().to_string(), "::/128");
        assert_eq!(first_free(&pool, &[Span { first: 0, last: u128::MAX - 1 }]).unwrap().addr(), {
            let last: std::net::Ipv6Addr = u128::MAX.into();
            std::net::IpAddr::V6(last)
        });
        assert_eq!(
            first_free(&AddressPool { base: "::/0".parse().unwrap(), size: 0 }, &[]).unwrap().prefix_len(),
            0
        );
        let whole = Span { first: 0, last: u128::MAX };
        assert_eq!(first_free(&pool, &[whole]), None);
    }

    proptest! {
        #[test]
        fn the_first_free_is_what_a_naive_walk_finds(
            taken in prop::collection::vec((any::<u16>(), 17u8..=32), 0..40),
        ) {
            let base = AddressPool { base: "10.1.0.0/16".parse().unwrap(), size: 24 };
            let taken: Vec<IpNet> = taken
                .iter()
                .map(|&(low, len)| {
                    let address = std::net::Ipv4Addr::from_bits(0x0a01_0000 | u32::from(low));
                    IpNet::new(address.into(), len).unwrap().trunc()
                })
                .collect();
            let naive = (0..=255u8)
                .map(|third| IpNet::new([10, 1, third, 0].into(), 24).unwrap())
                .find(|net| !taken.iter().any(|taken| overlaps(*net, *taken)));
            let mut spans: Vec<Span> = taken.iter().map(|&net| net.into()).collect();
            spans.sort_unstable_by_key(|span| span.first);
            prop_assert_eq!(first_free(&base, &spans), naive);
        }
    }
}
