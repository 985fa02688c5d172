//! Where subnets come from that nobody asked for.

use ipnet::IpNet;
use serde::Deserialize;

/// A prefix that is cut into subnets of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPool {
    /// The whole, host bits zero.
    pub base: IpNet,
    /// Prefix length of each subnet; at least that of `base`.
    pub size: u8,
}

/// As daemon.json has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AddressPoolText {
    base: String,
    size: u8,
}

impl AddressPool {
    /// Reads one entry of `default-address-pools`.
    pub(super) fn read(text: &AddressPoolText) -> Result<Self, String> {
        let AddressPoolText { base, size } = text;
        let invalid = |reason: &str| format!("invalid base prefix \"{base}\": {reason}");
        let net: IpNet = base.parse().map_err(|_| invalid("it is no prefix in CIDR notation"))?;
        if *size < net.prefix_len() || *size > net.max_prefix_len() {
            return Err(format!(
                "invalid size {size} for base prefix \"{base}\": it must lie from {} to {}",
                net.prefix_len(),
                net.max_prefix_len()
            ));
        }
        Ok(Self { base: net.trunc(), size: *size })
    }
}
