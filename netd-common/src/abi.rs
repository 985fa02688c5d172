//! The version of the map layouts, and the test that holds them.

/// Part of the path that maps are pinned under. Bumped with any change to a layout, a key's meaning or a map's size.
pub const ABI_VERSION: u32 = 1;

/// What aya asks of types that cross into maps.
#[cfg(feature = "user")]
mod pod {
    use crate::{
        addr::{IfIndex, Ipv4, Ipv6, Mac},
        bridge::{Exempt, Network},
        endpoint::Endpoint,
        external::External,
        fdb::FdbKey,
        fib::Uplink,
        forwarded::Foreign,
        frag::FragmentKey,
        globals::Globals,
        link_local::LinkLocal,
        nat::Flow,
        policy::Trusted,
        publish::{Publication, PublishedPort},
        rate::Rate,
        socket::Socket,
        stats::{EndpointTraffic, Traffic},
        tuple::Tuple,
    };

    // SAFETY (all): bytemuck::Pod already holds that any bits are a value and that there is no padding.
    macro_rules! pod {
        ($($t:ty),* $(,)?) => { $(
            // SAFETY: the type is bytemuck::Pod.
            unsafe impl aya::Pod for $t {}
        )* };
    }
    pod!(
        IfIndex,
        Ipv4,
        Ipv6,
        Mac,
        Network,
        Endpoint,
        Exempt<Ipv4>,
        Exempt<Ipv6>,
        External<Ipv4>,
        External<Ipv6>,
        FdbKey,
        LinkLocal,
        Uplink,
        Foreign,
        Globals,
        Traffic,
        EndpointTraffic,
        Tuple<Ipv4>,
        Tuple<Ipv6>,
        FragmentKey<Ipv4>,
        FragmentKey<Ipv6>,
        Flow<Ipv4>,
        Flow<Ipv6>,
        PublishedPort<Ipv4>,
        PublishedPort<Ipv6>,
        Publication,
        Rate,
        Socket,
        Trusted,
    );
}

#[cfg(test)]
mod tests {
    use core::{
        fmt::Write as _,
        mem::{align_of, offset_of, size_of},
    };

    use crate::{
        addr::{IfIndex, Ipv4, Ipv6},
        bridge::{Exempt, Network},
        endpoint::Endpoint,
        event::{Refused, Sweep},
        external::External,
        fdb::FdbKey,
        fib::{NextHop, Uplink},
        forwarded::Foreign,
        frag::{FragmentKey, Held, HeldKey},
        globals::Globals,
        link_local::LinkLocal,
        nat::{Flow, PortRange, PortRanges},
        policy::Trusted,
        publish::{Publication, PublishedPort},
        rate::Rate,
        socket::{Dialled, Socket},
        stats::{EndpointTraffic, Traffic},
        tuple::Tuple,
    };

    /// Writes a type's layout, and fails if the fields named do not fill it without a gap.
    macro_rules! layout {
        ($out:ident, $t:ty, $($field:ident: $f:ty),* $(,)?) => {{
            writeln!($out, "{} size {} align {}", stringify!($t), size_of::<$t>(), align_of::<$t>()).unwrap();
            let mut at = 0;
            $(
                assert_eq!(offset_of!($t, $field), at, "a gap before {}", stringify!($field));
                writeln!($out, "  {:>3} {}: {}", at, stringify!($field), stringify!($f)).unwrap();
                at += size_of::<$f>();
            )*
            assert_eq!(at, size_of::<$t>(), "a gap at the end of {}", stringify!($t));
        }};
    }

    #[test]
    fn layouts_are_those_of_this_version() {
        let mut out = format!("ABI version {}\n", super::ABI_VERSION);
        layout!(out, Network, bridge: IfIndex, flags: u32, gateway4: Ipv4, gateway6: Ipv6, source4: Ipv4, source6: Ipv6, mac: crate::addr::Mac, pad: [u8; 2]);
        layout!(out, Endpoint, port: IfIndex, network: u32, flags: u32, ipv4: Ipv4, ipv6: Ipv6, mac: crate::addr::Mac, vlan: u16, sandbox: u32, beside: u32);
        layout!(out, Exempt<Ipv4>, network: u32, destination: Ipv4);
        layout!(out, Exempt<Ipv6>, network: u32, destination: Ipv6);
        layout!(out, External<Ipv4>, external: Ipv4, internal: Ipv4, length: u32, adjustment: u32);
        layout!(out, External<Ipv6>, external: Ipv6, internal: Ipv6, length: u32, adjustment: u32);
        layout!(out, FdbKey, network: u32, mac: crate::addr::Mac, pad: [u8; 2]);
        layout!(out, LinkLocal, network: u32, address: Ipv6);
        layout!(out, Uplink, ipv4: Ipv4, ipv6: Ipv6, mac: crate::addr::Mac, route_mtu: u16, default4: Ipv4);
        layout!(out, Foreign, mac: crate::addr::Mac, forwards: u16);
        layout!(out, Trusted, uplink: IfIndex, network: u32);
        layout!(out, NextHop, uplink: IfIndex, family: u32, address: [u32; 4], mtu: u32, generation: u32);
        layout!(out, Tuple<Ipv4>, source: Ipv4, destination: Ipv4, source_port: u16, destination_port: u16, protocol: u8, direction: u8, pad: [u8; 2]);
        layout!(out, Tuple<Ipv6>, source: Ipv6, destination: Ipv6, source_port: u16, destination_port: u16, protocol: u8, direction: u8, pad: [u8; 2]);
        layout!(out, FragmentKey<Ipv4>, source: Ipv4, destination: Ipv4, identification: u32, protocol: u8, direction: u8, pad: [u8; 2]);
        layout!(out, FragmentKey<Ipv6>, source: Ipv6, destination: Ipv6, identification: u32, protocol: u8, direction: u8, pad: [u8; 2]);
        layout!(out, HeldKey, source: [u32; 4], destination: [u32; 4], identification: u32, protocol: u8, direction: u8, part: u8, version: u8);
        layout!(out, Held, since: u64, length: u64, frame: [u8; 2064]);
        layout!(out, PortRange, first: u16, last: u16);
        layout!(out, PortRanges, privileged: PortRange, below: PortRange, above: PortRange);
        layout!(out, Globals, netns: u64, fib_generation: u32, hz: u32, ports: PortRanges, flows_per_container: [u32; 2], flags: u32);
        layout!(out, Traffic, packets: u64, bytes: u64);
        layout!(out, EndpointTraffic, sent: Traffic, delivered: Traffic);
        layout!(out, Flow<Ipv4>, clock: u64, created: u64, outbound: Traffic, inbound: Traffic, next_hop: NextHop,
            local: Ipv4, remote: Ipv4, external: Ipv4, seen: Ipv4, local_port: u16, remote_port: u16, external_port: u16, seen_port: u16,
            endpoint: u32, peer: u32, protocol: u8, pad: u8, flags: u16, index: u32, holds: u64);
        layout!(out, Flow<Ipv6>, clock: u64, created: u64, outbound: Traffic, inbound: Traffic, next_hop: NextHop,
            local: Ipv6, remote: Ipv6, external: Ipv6, seen: Ipv6, local_port: u16, remote_port: u16, external_port: u16, seen_port: u16,
            endpoint: u32, peer: u32, protocol: u8, pad: u8, flags: u16, index: u32, holds: u64);
        layout!(out, PublishedPort<Ipv4>, address: Ipv4, protocol: u8, pad: u8, port: u16);
        layout!(out, PublishedPort<Ipv6>, address: Ipv6, protocol: u8, pad: u8, port: u16);
        layout!(out, Publication, endpoint: u32, ports: PortRange, container: u16, flags: u16);
        layout!(out, Rate, bytes_per_second: u64, burst: u64);
        layout!(out, Dialled, container: Ipv6, published: Ipv6, container_port: u16, published_port: u16);
        layout!(out, Socket, connected: Dialled, sent: [Dialled; 7], oldest: u32);
        layout!(out, Refused, endpoint: u32, reason: u32, remote: [u32; 4], family: u32, remote_port: u16, protocol: u8, pad: u8);
        layout!(out, Sweep, family: u32, first: u32, now: u64, count: u32, endpoint: u32);
        for path in crate::stats::Path::ALL {
            writeln!(out, "path {} {}", *path as u32, path.name()).unwrap();
        }
        for reason in crate::drop::DropReason::ALL {
            writeln!(out, "drop {} {}", *reason as u32, reason.name()).unwrap();
        }
        let golden = include_str!("../abi.golden");
        assert_eq!(
            out, golden,
            "a layout changed: bump ABI_VERSION and put the text above into netd-common/abi.golden"
        );
    }
}
