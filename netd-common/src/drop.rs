//! Why a packet was dropped. Each exit has its own reason, each reason its own counter.

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a packet was dropped: an index of `DROPS`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum DropReason { $($(#[$doc])* $variant,)* }

        impl DropReason {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The reason with this number. A number that is none is a packet that could not be understood.
            #[inline(always)]
            pub const fn of(number: u32) -> Self {
                match number {
                    $(_ if number == Self::$variant as u32 => Self::$variant,)*
                    _ => Self::Malformed,
                }
            }

            /// Whether a new flow found no room or no port (RFC 6888 REQ-11).
            #[inline(always)]
            pub const fn is_exhaustion(self) -> bool {
                matches!(self, Self::FlowTableFull | Self::EndpointQuota | Self::PortsExhausted | Self::SctpPort)
            }

            /// The name in metrics and tables.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

reasons! {
    /// A header is cut short, or says something impossible.
    Malformed = "malformed",
    /// The source MAC is not the endpoint's.
    SpoofedMac = "spoofed_mac",
    /// The source address is not the endpoint's, in an IP header, an ARP or a neighbour advertisement; or who sends a router advertisement
    /// or a redirect is no router. From the outside: an address that nobody there can have.
    SpoofedAddress = "spoofed_address",
    /// The veth or its network is not (or no longer) in the maps.
    UnknownEndpoint = "unknown_endpoint",
    /// Endpoints of this network may not talk to each other.
    Icc = "icc",
    /// Into or out of an internal network.
    Internal = "internal",
    /// From one network to another.
    Isolated = "isolated",
    /// To a published port whose endpoint is not there, or has no address of this family.
    NoBackend = "no_backend",
    /// From the outside straight to a container's address.
    DirectAccess = "direct_access",
    /// The route leads to an interface that is not an uplink.
    NoUplink = "no_uplink",
    /// The uplink has no address of this family to masquerade with.
    NoExternalAddress = "no_external_address",
    /// A protocol that cannot be masqueraded.
    Protocol = "protocol",
    /// SCTP whose port is taken: it cannot be changed, for the checksum covers it.
    SctpPort = "sctp_port",
    /// An ICMP message that belongs to no flow and may not leave with a container's address.
    IcmpUnrelated = "icmp_unrelated",
    /// A fragment that came before the first one of its datagram.
    Fragment = "fragment",
    /// The flow table is full.
    FlowTableFull = "flow_table_full",
    /// The endpoint holds as many flows as it may.
    EndpointQuota = "endpoint_quota",
    /// No free port to this remote was found.
    PortsExhausted = "ports_exhausted",
    /// The kernel refused to change the packet.
    Rewrite = "rewrite",
    /// A TCP reset that belongs to no flow: there is nothing that it could reset.
    TcpUnrelated = "tcp_unrelated",
    /// More than the endpoint may send, or be sent.
    Rate = "rate",
    /// To a port of a container in a routed network that is not published; or from a socket of the host to one that it came to by a
    /// published port, which does not lead there any more.
    Unpublished = "unpublished",
    /// From one interface that is none of netd's to another, on a host that forwards for netd's sake alone.
    NotForwarded = "not_forwarded",
    /// For seconds there has been no answer, and nobody on the uplink's link has the address, or the next router's.
    NoNeighbour = "no_neighbour",
    /// The sender says by which hosts it is to go (RFC 791 section 3.1, RFC 7126 sections 4.3 and 4.4): past what a verdict could ask for.
    SourceRoute = "source_route",
}
