//! Which bridge of its network an endpoint is a port of.

use std::collections::BTreeMap;

use crate::model::{Bridge, Endpoint, Segment};

/// The endpoints that a network's bridges have room for.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// The network's own bridge.
    pub own: usize,
    /// A segment.
    pub segment: usize,
    /// How many segments there may be for isolated ports, and as many for the others.
    pub segments: u8,
}

impl Room {
    /// The ports of a kernel bridge (`BR_MAX_PORTS` in net/bridge/br_private.h).
    const PORTS: u16 = 1023;
    /// What a network's own bridge has room for beside all trunks.
    pub const MOST_OWN: u16 = Self::PORTS - 2 * Segment::MOST as u16;

    /// What the bridges of a network have room for.
    pub fn of(bridge: &Bridge) -> Self {
        // One port of a segment is the trunk's.
        Self { own: bridge.ports.into(), segment: Self::PORTS as usize - 1, segments: Segment::MOST }
    }
}

/// The number of the segment for one more port beside the network's endpoints: the first that has room, and before them all the
/// network's own bridge, which is `Some(None)`. `None` if all are full.
pub fn place<'a>(
    room: Room,
    present: impl Iterator<Item = &'a Endpoint>,
    isolated: bool,
) -> Option<Option<u8>> {
    let mut ports: BTreeMap<Option<u8>, usize> = BTreeMap::new();
    // All ports may be on the network's own bridge, and only those of one kind on a segment.
    for endpoint in present.filter(|other| other.segment.is_none() || other.port.isolated == isolated) {
        *ports.entry(endpoint.segment).or_default() += 1;
    }
    let has_room = |segment: &Option<u8>| {
        let most = if segment.is_some() { room.segment } else { room.own };
        ports.get(segment).is_none_or(|&ports| ports < most)
    };
    std::iter::once(None).chain((0..room.segments).map(Some)).find(has_room)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{MacAddress, Port, sample};

    #[test]
    fn ports_fill_one_bridge_after_the_other_each_kind_its_own() {
        let room = Room { own: 2, segment: 2, segments: 2 };
        let network = sample::network(1, "n", Vec::new());
        let mut present: Vec<Endpoint> = Vec::new();
        let mut join = |isolated: bool| {
            let segment = place(room, present.iter(), isolated)?;
            let port = Port { isolated, ..Port::default() };
            present.push(Endpoint { port, segment, ..sample::endpoint(&network, 2, "box") });
            Some(segment)
        };
        let joined: Vec<_> = [false, true, false, true, true, false, true, false].map(&mut join).into();
        let wanted = [None, None, Some(0), Some(0), Some(0), Some(0), Some(1), Some(1)];
        assert_eq!(joined, wanted.map(Some));
        assert_eq!(
            [join(false), join(false), join(true), join(true)],
            [Some(Some(1)), None, Some(Some(1)), None]
        );
        // Whoever leaves makes room, and nobody moves.
        present.remove(2);
        assert_eq!(place(room, present.iter(), false), Some(Some(0)));
        assert_eq!(place(room, present.iter(), true), None);
        present.remove(0);
        assert_eq!(place(room, present.iter(), true), Some(None));
    }

    #[test]
    fn a_network_has_room_for_all_endpoints_of_a_host() {
        let bridge = Bridge::new(1, "br1", MacAddress::new([2, 0, 0, 0, 0, 1]));
        let Room { own, segment, segments } = Room::of(&bridge);
        assert!(own + segment * usize::from(segments) >= netd_common::limits::ENDPOINTS as usize);
        assert_eq!((own <= Room::MOST_OWN.into(), segment), (true, 1022));
    }
}
