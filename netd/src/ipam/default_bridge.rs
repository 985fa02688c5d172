//! Which subnet the network `bridge` has: what the configuration says, and what its bridge bears already.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};

use super::Requested;

/// What there is to go by, of one family.
#[derive(Clone, Debug, Default)]
pub struct DefaultBridge {
    /// The bridge's own address, if it is configured (`bip`).
    pub own: Option<IpNet>,
    /// Where endpoints' addresses come from, if it is configured (`fixed-cidr`).
    pub range: Option<IpNet>,
    /// The endpoints' default gateway, if it is configured: an auxiliary address and its name.
    pub default_gateway: Option<(String, IpAddr)>,
    /// The addresses that the bridge bears, in the kernel's order.
    pub addresses: Vec<IpNet>,
    /// The bridge is the user's: its addresses are right, and what is configured may be wrong.
    pub users: bool,
    /// The link-local address that the kernel gives the bridge by itself.
    pub link_local: Option<IpNet>,
}

/// A range that lies outside the subnet of a bridge that is the user's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeOutside {
    /// Docker only warns of this one, and leaves the range out.
    Dropped(IpNet),
    /// Docker does not start.
    Refused(IpNet),
}

impl DefaultBridge {
    /// The subnet, range and gateway to ask for; nothing of them where any will do.
    ///
    /// # Errors
    /// If an IPv6 range is outside of a user's bridge. The other way round the range is left out, and told of.
    pub fn request(self) -> Result<(Requested, Option<RangeOutside>), RangeOutside> {
        let range = self.range.map(|range| range.trunc());
        // An address and its subnet; the subnet may be wider than the address says.
        let own = match self.own {
            Some(own) => Some((own.addr(), own.trunc())),
            None => self.found(),
        };
        let mut request = Requested {
            subnet: own.map(|(_, subnet)| subnet).or(range),
            range,
            gateway: own.map(|(address, _)| address),
            auxiliary: self.default_gateway.clone().into_iter().collect(),
        };
        let outside = match (own, self.range) {
            (Some((_, subnet)), Some(range)) if self.users && !holds(subnet, range) => range,
            _ => return Ok((request, None)),
        };
        if outside.addr().is_ipv6() {
            return Err(RangeOutside::Refused(outside));
        }
        request.range = None;
        Ok((request, Some(RangeOutside::Dropped(outside))))
    }

    /// The bridge's address that the configured range goes with, or any: one whose subnet holds the range, else one
    /// within the range, else the first.
    fn found(&self) -> Option<(IpAddr, IpNet)> {
        let standard: IpNet = Ipv6Net::new_assert([0xfe80, 0, 0, 0, 0, 0, 0, 0].into(), 64).into();
        let by_kernel = self.range.is_some_and(|range| range.trunc() == standard);
        // The kernel's own link-local address says nothing of the subnet, unless that is the link-local one.
        let fits = |address: &&IpNet| by_kernel || !standard.contains(&address.addr());
        let addresses: Vec<IpNet> = self.addresses.iter().filter(fits).copied().collect();
        let Some(range) = self.range else {
            return addresses.first().map(|own| (own.addr(), own.trunc()));
        };
        let holding = addresses.iter().find(|own| own.contains(&range.addr()));
        let within = addresses.iter().find(|own| range.contains(&own.addr()));
        let kernels = self.link_local.as_ref().filter(|_| by_kernel);
        let own = holding.or(within).or(addresses.first()).or(kernels)?;
        let subnet = own.trunc();
        if self.users {
            return Some((own.addr(), subnet));
        }
        if !subnet.contains(&range.addr()) {
            // The range has moved elsewhere: netd's own bridge follows.
            return None;
        }
        let wider = if range.prefix_len() < subnet.prefix_len() { range.trunc() } else { subnet };
        Some((own.addr(), wider))
    }
}

/// Whether all of `range` lies in `subnet`, by its own first address.
fn holds(subnet: IpNet, range: IpNet) -> bool {
    subnet.contains(&range.addr()) && range.prefix_len() >= subnet.prefix_len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    /// Subnet, range and gateway that follow from a configuration and a bridge's addresses.
    fn request(own: &str, range: &str, addresses: &[&str], users: bool) -> [String; 3] {
        let given = |text: &str| (!text.is_empty()).then(|| net(text));
        let default = DefaultBridge {
            own: given(own),
            range: given(range),
            default_gateway: None,
            addresses: addresses.iter().map(|text| net(text)).collect(),
            users,
            link_local: Some(net("fe80::2:3/64")),
        };
        let (request, _) = default.request().unwrap();
        let text = |value: Option<String>| value.unwrap_or_default();
        [
            text(request.subnet.map(|net| net.to_string())),
            text(request.range.map(|net| net.to_string())),
            text(request.gateway.map(|gateway| gateway.to_string())),
        ]
    }

    #[test]
    fn dockers_table_holds() {
        let a = "192.168.176.88";
        let (a20, a24) = (&*format!("{a}/20"), &*format!("{a}/24"));
        for (own, range, addresses, users, wanted) in [
            ("", "", &[][..], false, ["", "", ""]),
            ("", "192.168.176.0/24", &[], false, ["192.168.176.0/24", "192.168.176.0/24", ""]),
            (a24, "", &[], false, ["192.168.176.0/24", "", a]),
            ("", "", &[a24], false, ["192.168.176.0/24", "", a]),
            ("", "192.168.176.0/24", &[a20], false, ["192.168.176.0/20", "192.168.176.0/24", a]),
            (
                "192.168.176.99/24",
                "192.168.176.0/24",
                &[a20],
                false,
                ["192.168.176.0/24", "192.168.176.0/24", "192.168.176.99"],
            ),
            ("", "192.168.176.0/20", &[a24], false, ["192.168.176.0/20", "192.168.176.0/20", a]),
            ("", "192.168.177.0/24", &[a24], false, ["192.168.177.0/24", "192.168.177.0/24", ""]),
            (
                "192.168.177.99/24",
                "192.168.177.0/24",
                &[a24],
                false,
                ["192.168.177.0/24", "192.168.177.0/24", "192.168.177.99"],
            ),
            ("", "fe80::/64", &["fe80::9/64"], false, ["fe80::/64", "fe80::/64", "fe80::9"]),
            ("", "fe80::/64", &[], false, ["fe80::/64", "fe80::/64", "fe80::2:3"]),
            ("", "", &["fe80::9/64", "fd00::1/64"], false, ["fd00::/64", "", "fd00::1"]),
            (
                "",
                "192.168.176.0/24",
                &["192.168.160.88/20", a20, "192.168.192.88/20"],
                true,
                ["192.168.176.0/20", "192.168.176.0/24", a],
            ),
            (
                "",
                "192.168.177.0/24",
                &["192.168.160.88/20", a20],
                true,
                ["192.168.176.0/20", "192.168.177.0/24", a],
            ),
            ("", "192.168.176.0/20", &[a24], true, ["192.168.176.0/24", "", a]),
            (
                "",
                "192.168.176.0/24",
                &["192.168.160.88/20"],
                true,
                ["192.168.160.0/20", "", "192.168.160.88"],
            ),
        ] {
            assert_eq!(request(own, range, addresses, users), wanted, "{own} {range} {addresses:?} {users}");
        }
    }

    #[test]
    fn a_range_outside_a_users_bridge_is_told_of() {
        let default = |range: &str, address: &str| DefaultBridge {
            range: Some(net(range)),
            addresses: vec![net(address)],
            users: true,
            ..DefaultBridge::default()
        };
        let (_, told) = default("192.168.176.0/20", "192.168.176.88/24").request().unwrap();
        assert_eq!(told, Some(RangeOutside::Dropped(net("192.168.176.0/20"))));
        let refused = default("fd00:1::/64", "fd00:2::1/64").request().unwrap_err();
        assert_eq!(refused, RangeOutside::Refused(net("fd00:1::/64")));
    }
}
