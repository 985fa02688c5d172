//! Counters, all per CPU: the reader adds them up.

use bytemuck::{Pod, Zeroable};

/// Packets and bytes. A GSO super-frame counts as one packet; its bytes are those of the frame, Ethernet header included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What the programs did with one endpoint's traffic: a value of `TRAFFIC`, per CPU, indexed by the endpoint's slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct EndpointTraffic {
    /// Sent by the container, whatever became of it.
    pub sent: Traffic,
    /// Put into the container by a program, past the host's stack and past the counters of its veth.
    pub delivered: Traffic,
}

macro_rules! paths {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// The way a packet took, if it was not dropped: an index of `PATHS`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Path { $($(#[$doc])* $variant,)* }

        impl Path {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in metrics and tables.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

paths! {
    /// To an endpoint of the same network, past the bridge.
    Bridged = "bridged",
    /// To the kernel bridge: broadcast, multicast, unknown stations, other ethertypes.
    Flooded = "flooded",
    /// From a container to the outside, translated.
    Masqueraded = "masqueraded",
    /// From the outside to a container, translated back.
    Returned = "returned",
    /// An ICMP error about a translated packet, on its way out.
    IcmpErrorOut = "icmp_error_out",
    /// An ICMP error about a translated packet, on its way in.
    IcmpErrorIn = "icmp_error_in",
    /// From a container with an external address to the outside.
    ExternalOut = "external_out",
    /// From the outside, or from within the host, to a container's external address.
    ExternalIn = "external_in",
    /// An ARP request or a neighbour solicitation for an external address, answered.
    Answered = "answered",
    /// Translated on its way out of the host's stack.
    StackMasqueraded = "stack_masqueraded",
    /// To the host's stack: for the host itself, or a route that only the stack can judge.
    StackHost = "stack_host",
    /// To the host's stack: the TTL ends here.
    StackTtl = "stack_ttl",
    /// To the host's stack: IP options or extension headers.
    StackOptions = "stack_options",
    /// To the host's stack: larger than the route takes.
    StackMtu = "stack_mtu",
    /// To the host's stack: the endpoint is one of those that the kernel's bridge and stack forward for.
    StackBridge = "stack_bridge",
    /// A fragment that overtook the first of its datagram, kept until that comes.
    Held = "fragment_held",
    /// A fragment that was kept, sent on its way again behind the first.
    Replayed = "fragment_replayed",
    /// A flow was made.
    FlowCreated = "flow_created",
    /// A flow was made by who came to a published port.
    FlowAccepted = "flow_accepted",
    /// From a container to a published port of another, or of itself; and the answer.
    Hairpinned = "hairpinned",
    /// A socket of the host was led to a published port.
    Dialled = "host_dialled",
    /// A socket of the host wanted a port that is published.
    BindRefused = "bind_refused",
    /// A flow was ended: expired, taken over, or its endpoint removed.
    FlowEnded = "flow_ended",
    /// An external port was bound, for whoever the remote is.
    BindingCreated = "binding_created",
    /// A binding was ended.
    BindingEnded = "binding_ended",
}
