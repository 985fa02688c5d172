//! Further kernel bridges of a network: one alone has room for 1,023 ports.

use super::{Id, MacAddress};

/// A kernel bridge that continues a network's own one, and is joined to it by a trunk.
///
/// The kernel keeps two isolated ports from hearing each other on one bridge alone. So isolated ports have segments of their own,
/// whose trunks are isolated ports of the network's bridge: there they meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// The network.
    pub network: Id,
    /// Whether its endpoints' ports are isolated.
    pub isolated: bool,
    /// Among those of the network and of such ports.
    pub number: u8,
}

impl Segment {
    /// How many a network has at most for either kind of port.
    pub const MOST: u8 = 16;

    const BRIDGE: &str = "br-";
    const TRUNK: &str = "dn-";
    const FAR_END: &str = "up-";

    /// The kernel bridge.
    pub fn bridge(&self) -> String {
        self.named(Self::BRIDGE)
    }

    /// The trunk's end at the network's bridge.
    pub fn trunk(&self) -> String {
        self.named(Self::TRUNK)
    }

    /// The trunk's end at the segment.
    pub fn far_end(&self) -> String {
        self.named(Self::FAR_END)
    }

    /// Whether a link has a name that is kept for the segments of a network.
    pub fn is_of(network: Id, link: &str) -> bool {
        let mut kinds = [Self::BRIDGE, Self::TRUNK, Self::FAR_END].into_iter();
        let rest = kinds.find_map(|kind| link.strip_prefix(kind));
        let rest = rest.and_then(|rest| rest.strip_prefix(&Self::stem(network)));
        rest.is_some_and(|rest| rest.len() == 3 && (rest.starts_with("-s") || rest.starts_with("-i")))
    }

    /// The kernel bridge's address, told apart from the one of the network's own.
    pub const fn mac(&self, own: MacAddress) -> MacAddress {
        let mut octets = own.octets();
        octets[0] |= 2;
        octets[1] ^= 0x80 | self.number;
        octets[2] ^= if self.isolated { 0x80 } else { 0 };
        MacAddress::new(octets)
    }

    fn named(&self, kind: &str) -> String {
        let ports = if self.isolated { 'i' } else { 's' };
        format!("{kind}{}-{ports}{:x}", Self::stem(self.network), self.number)
    }

    /// As much of the network's id as the kernel leaves room for in a name.
    fn stem(network: Id) -> String {
        let mut stem = network.short();
        stem.truncate(9);
        stem
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_apart_and_fit() {
        let (network, other) = (Id::new([0xab; 32]), Id::new([0xcd; 32]));
        let segment = Segment { network, isolated: false, number: 15 };
        assert_eq!(segment.bridge(), "br-ababababa-sf");
        let isolated = Segment { isolated: true, ..segment };
        assert_eq!(
            (isolated.trunk(), isolated.far_end()),
            ("dn-ababababa-if".into(), "up-ababababa-if".into())
        );
        for name in [segment.bridge(), segment.trunk(), isolated.far_end()] {
            assert!(
                name.len() <= 15 && Segment::is_of(network, &name) && !Segment::is_of(other, &name),
                "{name}"
            );
        }
        // A network's own bridge.
        assert!(!Segment::is_of(network, &format!("br-{}", network.short())));
        let own = MacAddress::new([2, 0, 0, 0, 0, 1]);
        let all: std::collections::BTreeSet<_> = (0..Segment::MOST)
            .flat_map(|number| [false, true].map(|isolated| Segment { network, isolated, number }.mac(own)))
            .chain([own])
            .collect();
        assert_eq!(all.len(), 33);
    }
}
