//! From what was asked for to a pool that is complete.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{Error, Requested, claim, lowest_free};
use crate::model::Pool;

/// The pool on `subnet` that meets the request: its gateway is the one asked for, or the subnet's first address, which an
/// auxiliary address then cannot be.
pub fn complete(subnet: IpNet, request: &Requested) -> Result<Pool, Error> {
    let requested = request.subnet.is_some();
    let mut pool = Pool {
        subnet,
        range: None,
        bounds: None,
        gateway: None,
        gateway_shown: !requested || request.gateway.is_some(),
        auxiliary: BTreeMap::new(),
        requested,
        last: None,
    };
    let none = BTreeSet::new();
    let gateway: IpAddr = match request.gateway {
        Some(gateway) => {
            claim(&pool, &none, gateway).map(|()| gateway).map_err(|_| Error::Gateway(gateway))?
        }
        None => lowest_free(&pool, &none).map_err(|_| Error::NoGateway)?,
    };
    pool.gateway = Some(gateway);
    for (name, &address) in &request.auxiliary {
        claim(&pool, &none, address).map_err(|_| Error::Auxiliary { name: name.clone(), address })?;
        pool.auxiliary.insert(name.clone(), address);
    }
    pool.range = request.range;
    Ok(pool)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requested(gateway: Option<&str>, auxiliary: &[(&str, &str)]) -> Requested {
        Requested {
            subnet: None,
            range: None,
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            auxiliary: auxiliary.iter().map(|(name, at)| ((*name).to_owned(), at.parse().unwrap())).collect(),
        }
    }

    fn gateway(subnet: &str, request: &Requested) -> Result<String, String> {
        let pool = complete(subnet.parse().unwrap(), request).map_err(|error| error.to_string())?;
        Ok(pool.gateway.unwrap().to_string())
    }

    #[test]
    fn the_gateway_is_the_first_address_or_the_wanted_one() {
        assert_eq!(gateway("172.17.0.0/16", &requested(None, &[])).unwrap(), "172.17.0.1");
        assert_eq!(gateway("fd00::/64", &requested(None, &[])).unwrap(), "fd00::1");
        assert_eq!(gateway("172.17.0.0/16", &requested(Some("172.17.9.9"), &[])).unwrap(), "172.17.9.9");
        assert_eq!(gateway("10.0.0.7/32", &requested(None, &[])).unwrap(), "10.0.0.7");
    }

    #[test]
    fn reserved_addresses_are_refused_in_dockers_words() {
        for at in ["192.168.1.0", "192.168.1.255"] {
            let text = format!("failed to allocate gateway ({at}): Address already in use");
            assert_eq!(gateway("192.168.1.0/24", &requested(Some(at), &[])).unwrap_err(), text);
        }
        for (asked, at) in [(Some("10.5.0.9"), "10.5.0.9"), (None, "10.5.0.1")] {
            let text = format!("failed to allocate secondary ip address (a:{at}): Address already in use");
            assert_eq!(gateway("10.5.0.0/16", &requested(asked, &[("a", at)])).unwrap_err(), text);
        }
    }
}
