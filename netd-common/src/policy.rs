//! Who may speak to a container at its own address, as Docker's firewall rules have it.

use bytemuck::{Pod, Zeroable};

use crate::{addr::IfIndex, bridge::INTERNAL, drop::DropReason};

/// How a network meets the outside in one family: [`INTERNAL`], and that family's two of the network's flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The network's flags.
    pub flags: u32,
    /// Of those, the one that says that its addresses are routed to.
    pub routed: u32,
    /// Of those, the one that says that every port of it is open.
    pub unprotected: u32,
}

/// Where a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Beyond an uplink.
    Outside,
    /// Beyond an uplink from which the network's published ports may be reached.
    Trusted,
    /// Another network of this host, which is not internal.
    Network,
}

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Any message of ICMP's.
    Icmp,
    /// A port that the container has published.
    Published,
    /// Any other port or protocol.
    Other,
}

impl Access {
    /// Whether a packet may go straight to a container of the network, and if not, why.
    #[inline(always)]
    pub const fn judge(self, origin: Origin, service: Service) -> Result<(), DropReason> {
        if self.flags & INTERNAL != 0 {
            return Err(DropReason::Internal);
        }
        if self.flags & self.routed != 0 {
            return match service {
                Service::Icmp | Service::Published => Ok(()),
                Service::Other => Err(DropReason::Unpublished),
            };
        }
        match (origin, service) {
            (Origin::Network, _) => Err(DropReason::Isolated),
            _ if self.flags & self.unprotected != 0 => Ok(()),
            (Origin::Trusted, Service::Published) => Ok(()),
            _ => Err(DropReason::DirectAccess),
        }
    }
}

/// Key of `TRUSTED`: an uplink from which published ports of a network may be reached at the containers' own addresses.
/// Value: of no meaning, a `u32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Trusted {
    /// The uplink.
    pub uplink: IfIndex,
    /// The network's number.
    pub network: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::{ICC, MASQUERADE, ROUTED4, ROUTED6, UNPROTECTED4, UNPROTECTED6};

    #[test]
    fn the_table_of_dockers_rules() {
        use DropReason::{DirectAccess, Internal, Isolated, Unpublished};
        use Origin::{Network, Outside, Trusted};
        let nat = [
            (Outside, [Err(DirectAccess); 3]),
            (Trusted, [Err(DirectAccess), Ok(()), Err(DirectAccess)]),
            (Network, [Err(Isolated); 3]),
        ];
        let unprotected = [(Outside, [Ok(()); 3]), (Trusted, [Ok(()); 3]), (Network, [Err(Isolated); 3])];
        let routed = [Outside, Trusted, Network].map(|origin| (origin, [Ok(()), Ok(()), Err(Unpublished)]));
        let internal = [Outside, Trusted, Network].map(|origin| (origin, [Err(Internal); 3]));
        for (flags, table) in [
            (MASQUERADE | ICC, nat),
            (UNPROTECTED4 | MASQUERADE, unprotected),
            (ROUTED4 | MASQUERADE, routed),
            (INTERNAL, internal),
            (INTERNAL | ROUTED4, internal),
            (INTERNAL | UNPROTECTED4, internal),
            // What the other family does is no matter.
            (ROUTED6 | UNPROTECTED6, nat),
        ] {
            let access = Access { flags, routed: ROUTED4, unprotected: UNPROTECTED4 };
            for (origin, expected) in table {
                for (at, service) in
                    [Service::Icmp, Service::Published, Service::Other].into_iter().enumerate()
                {
                    let judged = access.judge(origin, service);
                    assert_eq!(judged, expected[at], "{flags:#x} {origin:?} {service:?}");
                }
            }
        }
    }
}
