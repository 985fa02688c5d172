//! Reading what a request says about addresses, with every fault named at once.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use crate::model::{prefix, request::PoolRequest};

/// What was asked for of one family, read and in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requested {
    /// The subnet, host bits zero; any if absent.
    pub subnet: Option<IpNet>,
    /// Where endpoints' addresses come from, within `subnet`.
    pub range: Option<IpNet>,
    /// The bridge's address, within `subnet`.
    pub gateway: Option<IpAddr>,
    /// Addresses that are not to be given out, within `subnet`.
    pub auxiliary: BTreeMap<String, IpAddr>,
}

/// Reads all subnets that were asked for; those of IPv6 are passed over if the network has no IPv6.
///
/// # Errors
/// Docker's text, with one line for each fault.
pub fn read(requests: &[PoolRequest], ipv6: bool) -> Result<Vec<Requested>, String> {
    let mut faults = Vec::new();
    let mut read = Vec::new();
    for request in requests {
        let Some(subnet) = prefix::<IpNet>(&request.subnet) else {
            faults.push(format!("invalid subnet {}: invalid CIDR block notation", request.subnet));
            continue;
        };
        if subnet.addr().is_ipv6() && !ipv6 {
            continue;
        }
        if subnet != subnet.trunc() {
            faults.push(format!("invalid subnet {subnet}: it should be {}", subnet.trunc()));
        }
        let range =
            (!request.ip_range.is_empty()).then(|| read_range(&request.ip_range, subnet, &mut faults));
        let gateway = (!request.gateway.is_empty()).then(|| {
            read_address(&request.gateway, subnet)
                .map_err(|why| faults.push(format!("invalid gateway {}: {why}", request.gateway)))
        });
        let mut auxiliary = BTreeMap::new();
        for (name, text) in &request.auxiliary_addresses {
            match read_address(text, subnet) {
                Ok(address) => {
                    auxiliary.insert(name.clone(), address);
                }
                Err(why) => faults.push(format!("invalid auxiliary address {name}: {why}")),
            }
        }
        read.push(Requested {
            subnet: Some(subnet),
            range: range.flatten(),
            gateway: gateway.and_then(Result::ok),
            auxiliary,
        });
    }
    if faults.is_empty() { Ok(read) } else { Err(format!("invalid network config:\n{}", faults.join("\n"))) }
}

fn read_range(text: &str, subnet: IpNet, faults: &mut Vec<String>) -> Option<IpNet> {
    let Some(range) = prefix::<IpNet>(text) else {
        faults.push(format!("invalid ip-range {text}: invalid CIDR block notation"));
        return None;
    };
    if range.addr().is_ipv4() != subnet.addr().is_ipv4() {
        faults.push(format!("invalid ip-range {text}: parent subnet is an {} block", family(subnet)));
        return None;
    }
    if range.prefix_len() < subnet.prefix_len() {
        faults.push(format!("invalid ip-range {text}: CIDR block is bigger than its parent subnet {subnet}"));
    }
    if range != range.trunc() {
        faults.push(format!("invalid ip-range {text}: it should be {}", range.trunc()));
    }
    if !super::overlaps(subnet, range) {
        faults.push(format!("invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range"));
    }
    Some(range)
}

fn read_address(text: &str, subnet: IpNet) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| "invalid address".to_owned())?;
    if address.is_ipv4() != subnet.addr().is_ipv4() {
        return Err(format!("parent subnet is an {} block", family(subnet)));
    }
    if !subnet.contains(&address) {
        return Err(format!("parent subnet {subnet} doesn't contain this address"));
    }
    Ok(address)
}

fn family(net: IpNet) -> &'static str {
    if net.addr().is_ipv4() { "IPv4" } else { "IPv6" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(subnet: &str, ip_range: &str, gateway: &str, auxiliary: &[(&str, &str)]) -> PoolRequest {
        PoolRequest {
            subnet: subnet.into(),
            ip_range: ip_range.into(),
            gateway: gateway.into(),
            auxiliary_addresses: auxiliary.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }
    }

    #[test]
    fn good_requests_are_read() {
        let requests = [
            request("10.5.0.0/16", "10.5.1.0/24", "10.5.0.1", &[("h", "10.5.0.9")]),
            request("fd00::/64", "", "", &[]),
            request("2001:db8::1/32", "", "junk", &[]),
        ];
        let read4 = read(&requests, false).unwrap();
        assert_eq!(read4.len(), 1);
        assert_eq!(read4[0].range.unwrap().to_string(), "10.5.1.0/24");
        assert_eq!(read(&requests[..2], true).unwrap().len(), 2);
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let requests = [
            request("foobar", "", "", &[]),
            request("10.0.0.0", "", "", &[]),
            request("010.0.0.0/8", "", "", &[]),
            request("10.10.10.0/8", "", "", &[]),
            request("10.10.0.0/16", "192.168.0.0/33", "", &[]),
            request("10.10.0.0/16", "10.0.0.0/8", "192.168.0.1", &[("a", "x"), ("b", "10.11.0.1")]),
            request("192.168.0.0/16", "192.170.0.1/24", "nowhere", &[]),
            request("10.20.0.0/16", "2001:db8::/32", "fd00::1", &[]),
        ];
        assert_eq!(
            read(&requests, false).unwrap_err(),
            "invalid network config:\n\
             invalid subnet foobar: invalid CIDR block notation\n\
             invalid subnet 10.0.0.0: invalid CIDR block notation\n\
             invalid subnet 010.0.0.0/8: invalid CIDR block notation\n\
             invalid subnet 10.10.10.0/8: it should be 10.0.0.0/8\n\
             invalid ip-range 192.168.0.0/33: invalid CIDR block notation\n\
             invalid ip-range 10.0.0.0/8: CIDR block is bigger than its parent subnet 10.10.0.0/16\n\
             invalid gateway 192.168.0.1: parent subnet 10.10.0.0/16 doesn't contain this address\n\
             invalid auxiliary address a: invalid address\n\
             invalid auxiliary address b: parent subnet 10.10.0.0/16 doesn't contain this address\n\
             invalid ip-range 192.170.0.1/24: it should be 192.170.0.0/24\n\
             invalid ip-range 192.170.0.1/24: parent subnet 192.168.0.0/16 doesn't contain ip-range\n\
             invalid gateway nowhere: invalid address\n\
             invalid ip-range 2001:db8::/32: parent subnet is an IPv4 block\n\
             invalid gateway fd00::1: parent subnet is an IPv4 block"
        );
    }
}
