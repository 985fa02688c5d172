//! How a network is masqueraded: options in a namespace of netd's own.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::options::{parsed, strange, unreadable};
use crate::model::{Bridge, Dependence, Error, prefix};

/// What all of these options begin with.
pub(super) const NAMESPACE: &str = "netd.masquerade.";
/// Destinations that see the endpoints' own addresses, masquerade or not: prefixes, with commas between.
const EXCEPT: &str = "netd.masquerade.except";
/// What the external port of an endpoint's own address and port depends on.
const MAPPING: &str = "netd.masquerade.mapping";
/// What it depends on who may send to that port.
const FILTERING: &str = "netd.masquerade.filtering";

/// `bridge` with what the options say of its masquerade.
pub(super) fn read(options: &BTreeMap<String, String>, bridge: Bridge) -> Result<Bridge, Error> {
    const KNOWN: [&str; 3] = [EXCEPT, MAPPING, FILTERING];
    if let Some(name) = strange(options, NAMESPACE, &KNOWN) {
        return Err(Error::invalid(format!("unknown option {name}: the options are {}", KNOWN.join(", "))));
    }
    let mapping = parsed(options, MAPPING)?.unwrap_or(bridge.mapping);
    let filtering = parsed(options, FILTERING)?.unwrap_or(bridge.filtering);
    if filtering == Dependence::EndpointIndependent && mapping != filtering {
        return Err(Error::invalid(format!(
            "option {FILTERING}={filtering} needs {MAPPING}={filtering}: a port that serves many can be open to nobody in particular"
        )));
    }
    Ok(Bridge { exempts: exempts(options)?, mapping, filtering, ..bridge })
}

/// The destinations that see the endpoints' own addresses.
fn exempts(options: &BTreeMap<String, String>) -> Result<Vec<IpNet>, Error> {
    let Some(text) = options.get(EXCEPT) else { return Ok(Vec::new()) };
    let read = |part: &str| {
        let net: IpNet =
            prefix(part).ok_or_else(|| unreadable(EXCEPT, text, format!("{part:?} is no prefix")))?;
        let whole = net.trunc();
        if whole == net {
            return Ok(net);
        }
        Err(unreadable(EXCEPT, text, format!("{net} should be {whole}")))
    };
    text.split(',').map(str::trim).map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MacAddress;

    fn read_all(options: &[(&str, &str)]) -> Result<Bridge, Error> {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        read(&options, Bridge::new(1, "br1", MacAddress::new([2, 0, 0, 0, 0, 1])))
    }

    #[test]
    fn destinations_are_exempt_from_masquerade() {
        let read = |value| read_all(&[(EXCEPT, value)]);
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNet>>();
        assert_eq!(read("10.0.0.0/8, fd00::/8").unwrap().exempts, nets(&["10.0.0.0/8", "fd00::/8"]));
        for (value, why) in [
            ("", "\"\" is no prefix"),
            ("10.0.0.0/8,", "\"\" is no prefix"),
            ("10.0.0.1", "\"10.0.0.1\" is no prefix"),
            ("10.0.0.0/33", "\"10.0.0.0/33\" is no prefix"),
            ("10.0.0.1/8", "10.0.0.1/8 should be 10.0.0.0/8"),
        ] {
            let message = read(value).unwrap_err().message;
            assert!(message.contains(EXCEPT) && message.contains(why), "{value:?}: {message}");
        }
        let slip = read_all(&[("netd.masquerade.excpet", "10.0.0.0/8")]).unwrap_err().message;
        assert_eq!(
            slip,
            "unknown option netd.masquerade.excpet: the options are netd.masquerade.except, netd.masquerade.mapping, netd.masquerade.filtering"
        );
    }

    #[test]
    fn mapping_is_read() {
        let read = |value| read_all(&[(MAPPING, value)]).map(|bridge| bridge.mapping);
        assert_eq!(read_all(&[]).unwrap().mapping, Dependence::AddressAndPortDependent);
        assert_eq!(read("endpoint-independent").unwrap(), Dependence::EndpointIndependent);
        assert_eq!(read("address-and-port-dependent").unwrap(), Dependence::AddressAndPortDependent);
        for value in ["", "eim", "Endpoint-Independent", "address-dependent"] {
            let wanted = format!(
                "failed to parse netd.masquerade.mapping value: {value} (it is endpoint-independent or address-and-port-dependent)"
            );
            assert_eq!(read(value).unwrap_err().message, wanted);
        }
    }

    #[test]
    fn filtering_needs_a_mapping_that_it_fits() {
        let read =
            |options: &[(&str, &str)]| read_all(options).map(|bridge| (bridge.mapping, bridge.filtering));
        let (dependent, independent) = (Dependence::AddressAndPortDependent, Dependence::EndpointIndependent);
        let (mapping, filtering) = ((MAPPING, independent.name()), (FILTERING, independent.name()));
        assert_eq!(read(&[mapping]).unwrap(), (independent, dependent));
        assert_eq!(read(&[mapping, filtering]).unwrap(), (independent, independent));
        assert_eq!(read(&[(FILTERING, dependent.name())]).unwrap(), (dependent, dependent));
        for options in [&[filtering][..], &[filtering, (MAPPING, dependent.name())]] {
            let message = read(options).unwrap_err().message;
            let wanted = "option netd.masquerade.filtering=endpoint-independent needs netd.masquerade.mapping=endpoint-independent";
            assert!(message.starts_with(wanted), "{message}");
        }
        let message = read(&[mapping, (FILTERING, "open")]).unwrap_err().message;
        assert!(message.starts_with("failed to parse netd.masquerade.filtering value: open"), "{message}");
    }
}
