//! Subnets, ranges, gateways and reserved addresses of the command line, matched to each other as Docker's client does.

use anyhow::bail;
use ipnet::IpNet;

use crate::model::request::PoolRequest;

/// One pool for each subnet, with the ranges, gateways and addresses that lie in it. What else is wrong with them is
/// for the daemon to say.
pub(super) fn requests(
    subnets: &[String],
    ranges: &[String],
    gateways: &[String],
    auxiliary: &[(String, String)],
) -> anyhow::Result<Vec<PoolRequest>> {
    if subnets.len() < ranges.len() || subnets.len() < gateways.len() {
        bail!("every ip-range or gateway must have a corresponding subnet");
    }
    let mut pools: Vec<PoolRequest> = subnets
        .iter()
        .map(|subnet| PoolRequest { subnet: subnet.clone(), ..PoolRequest::default() })
        .collect();
    if ranges.is_empty() && gateways.is_empty() && auxiliary.is_empty() && pools.len() < 2 {
        return Ok(pools);
    }
    let prefixes = subnets.iter().map(|subnet| {
        subnet.parse().map_err(|_| anyhow::anyhow!("invalid subnet: invalid CIDR address: {subnet}"))
    });
    let prefixes: Vec<IpNet> = prefixes.collect::<anyhow::Result<_>>()?;
    for (at, a) in prefixes.iter().enumerate() {
        if prefixes[..at].iter().any(|b| a.contains(b) || b.contains(a)) {
            bail!("multiple overlapping subnet configuration is not supported");
        }
    }
    // The subnet that the address, or the first address of the prefix, lies in.
    let around = |text: &str| {
        let address = text.split('/').next().unwrap_or_default().parse().ok()?;
        prefixes.iter().position(|subnet| subnet.contains::<&std::net::IpAddr>(&address))
    };
    for range in ranges {
        let Some(at) = around(range) else { bail!("no matching subnet for range {range}") };
        let pool = &mut pools[at];
        if !pool.ip_range.is_empty() {
            bail!(
                "cannot configure multiple ranges ({range}, {}) on the same subnet ({})",
                pool.ip_range,
                pool.subnet
            );
        }
        pool.ip_range.clone_from(range);
    }
    for gateway in gateways {
        let Some(at) = around(gateway) else { bail!("no matching subnet for gateway {gateway}") };
        let pool = &mut pools[at];
        if !pool.gateway.is_empty() {
            bail!(
                "cannot configure multiple gateways ({gateway}, {}) for the same subnet ({})",
                pool.gateway,
                pool.subnet
            );
        }
        pool.gateway.clone_from(gateway);
    }
    for (name, address) in auxiliary {
        let Some(at) = around(address) else { bail!("no matching subnet for aux-address {address}") };
        pools[at].auxiliary_addresses.insert(name.clone(), address.clone());
    }
    Ok(pools)
}
