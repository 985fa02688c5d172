//! Settings of the Linux bridge, and of an endpoint's port of it: options in a namespace of netd's own.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive};

use super::options::{boolean, integer, strange, unreadable};
use crate::{
    link::Device,
    model::{Bridge, BridgeSettings, Error, Port, vlan},
    plan::Room,
};

/// What all of these options begin with.
pub(super) const NAMESPACE: &str = "netd.bridge.";

const STP: &str = "netd.bridge.stp";
const FORWARD_DELAY: &str = "netd.bridge.forward_delay";
const PRIORITY: &str = "netd.bridge.priority";
const AGEING_TIME: &str = "netd.bridge.ageing_time";
const MCAST_SNOOPING: &str = "netd.bridge.mcast_snooping";
const MCAST_QUERIER: &str = "netd.bridge.mcast_querier";
const MCAST_IGMP_VERSION: &str = "netd.bridge.mcast_igmp_version";
const MCAST_MLD_VERSION: &str = "netd.bridge.mcast_mld_version";
const VLAN_FILTERING: &str = "netd.bridge.vlan_filtering";
const PORTS: &str = "netd.bridge.ports";
const FAST_PATH: &str = "netd.bridge.fast_path";

const VLAN: &str = "netd.bridge.vlan";
const VLAN_TRUNK: &str = "netd.bridge.vlan_trunk";
const ISOLATED: &str = "netd.bridge.isolated";
const HAIRPIN: &str = "netd.bridge.hairpin";
const MAC_SPOOF_CHECK: &str = "netd.bridge.mac_spoof_check";

const OF_NETWORKS: [&str; 11] = [
    STP,
    FORWARD_DELAY,
    PRIORITY,
    AGEING_TIME,
    MCAST_SNOOPING,
    MCAST_QUERIER,
    MCAST_IGMP_VERSION,
    MCAST_MLD_VERSION,
    VLAN_FILTERING,
    PORTS,
    FAST_PATH,
];
const OF_ENDPOINTS: [&str; 5] = [VLAN, VLAN_TRUNK, ISOLATED, HAIRPIN, MAC_SPOOF_CHECK];

type Options = BTreeMap<String, String>;

/// `bridge` with what a network's options say of the kernel bridge.
pub(super) fn read_network(options: &Options, bridge: Bridge) -> Result<Bridge, Error> {
    only(options, &OF_NETWORKS, "a network's", &OF_ENDPOINTS, "an endpoint's: give it to `network connect`")?;
    let hundredths = "hundredths of a second";
    let settings = BridgeSettings {
        stp: boolean(options, STP)?,
        // What IEEE 802.1D allows; the kernel holds to it once the protocol is on.
        forward_delay: number(options, FORWARD_DELAY, 200..=3000, hundredths)?,
        priority: number(options, PRIORITY, 0..=u16::MAX.into(), "a priority")?,
        ageing_time: number(options, AGEING_TIME, 0..=100_000_000, hundredths)?,
        mcast_snooping: boolean(options, MCAST_SNOOPING)?,
        mcast_querier: boolean(options, MCAST_QUERIER)?,
        mcast_igmp_version: number(options, MCAST_IGMP_VERSION, 2..=3, "a version of IGMP")?,
        mcast_mld_version: number(options, MCAST_MLD_VERSION, 1..=2, "a version of MLD")?,
        vlan_filtering: boolean(options, VLAN_FILTERING)?,
    };
    let ports = number(options, PORTS, 1..=Room::MOST_OWN.into(), "a bridge's ports for endpoints")?;
    Ok(Bridge {
        settings,
        ports: ports.unwrap_or(bridge.ports),
        fast_path: boolean(options, FAST_PATH)?.unwrap_or(bridge.fast_path),
        ..bridge
    })
}

/// `bridge`, kept off the fast path if the kernel bridge that was there before it has a spanning tree or VLANs that netd was
/// not told of.
pub(super) fn as_found(bridge: Bridge, device: &Device) -> Bridge {
    let (asked, found) = (&bridge.settings, &device.settings);
    let unasked = |asked: Option<bool>, found: Option<bool>| asked.is_none() && found == Some(true);
    let odd = unasked(asked.stp, found.stp) || unasked(asked.vlan_filtering, found.vlan_filtering);
    Bridge { fast_path: bridge.fast_path && !odd, ..bridge }
}

/// What an endpoint's options say of its port.
pub(super) fn read_port(options: &Options, bridge: &Bridge) -> Result<Port, Error> {
    only(options, &OF_ENDPOINTS, "an endpoint's", &OF_NETWORKS, "a network's: give it to `network create`")?;
    let read = |name: &str| options.get(name).map(|text| (text, text.split(',').map(str::trim)));
    let trunk = match read(VLAN_TRUNK) {
        Some((text, ranges)) => ranges
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|why| unreadable(VLAN_TRUNK, text, why))?,
        None => Vec::new(),
    };
    let own = options.get(VLAN).map(|text| vlan(text).map_err(|why| unreadable(VLAN, text, why)));
    let port = Port {
        vlan: own.transpose()?,
        trunk,
        isolated: boolean(options, ISOLATED)?.unwrap_or(false),
        hairpin: boolean(options, HAIRPIN)?.unwrap_or(false),
        mac_spoof_check: boolean(options, MAC_SPOOF_CHECK)?.unwrap_or(true),
    };
    let given = [VLAN, VLAN_TRUNK].into_iter().find(|name| options.contains_key(*name));
    match given {
        Some(name) if bridge.settings.vlan_filtering != Some(true) => Err(Error::invalid(format!(
            "option {name} needs a network that was made with {VLAN_FILTERING}=true"
        ))),
        _ => Ok(port),
    }
}

/// Refuses what is not among `known`.
fn only(
    options: &Options,
    known: &[&str],
    whose: &str,
    others: &[&str],
    elsewhere: &str,
) -> Result<(), Error> {
    match strange(options, NAMESPACE, known) {
        None => Ok(()),
        Some(name) if others.contains(&name.as_str()) => {
            Err(Error::invalid(format!("option {name} is {elsewhere}")))
        }
        Some(name) => {
            let known = known.join(", ");
            Err(Error::invalid(format!("unknown option {name}: {whose} options are {known}")))
        }
    }
}

/// Reads a number within bounds.
fn number<T: TryFrom<i64> + fmt::Display>(
    options: &Options,
    name: &str,
    range: RangeInclusive<i64>,
    what: &str,
) -> Result<Option<T>, Error> {
    let Some(number) = integer(options, name)? else { return Ok(None) };
    let outside = || {
        let why = format!("{what} must lie from {} to {}", range.start(), range.end());
        unreadable(name, &number.to_string(), why)
    };
    let fits = range.contains(&number).then(|| T::try_from(number).ok()).flatten();
    fits.map(Some).ok_or_else(outside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{MacAddress, VlanRange};

    fn bare() -> Bridge {
        Bridge::new(1, "br1", MacAddress::new([2, 0, 0, 0, 0, 1]))
    }

    fn options(pairs: &[(&str, &str)]) -> Options {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn network(pairs: &[(&str, &str)]) -> Result<Bridge, String> {
        read_network(&options(pairs), bare()).map_err(|error| error.message)
    }

    fn port(pairs: &[(&str, &str)], filtering: bool) -> Result<Port, String> {
        let mut bridge = bare();
        bridge.settings.vlan_filtering = Some(filtering);
        read_port(&options(pairs), &bridge).map_err(|error| error.message)
    }

    #[test]
    fn settings_are_read() {
        assert_eq!(network(&[("com.example.unknown", "x")]).unwrap(), bare());
        let read = network(&[
            (STP, "1"),
            (FORWARD_DELAY, "200"),
            (PRIORITY, "4096"),
            (AGEING_TIME, "0"),
            (MCAST_SNOOPING, "false"),
            (MCAST_QUERIER, "true"),
            (MCAST_IGMP_VERSION, "3"),
            (MCAST_MLD_VERSION, "2"),
            (VLAN_FILTERING, "true"),
            (PORTS, "500"),
            (FAST_PATH, "false"),
        ]);
        let settings = BridgeSettings {
            stp: Some(true),
            forward_delay: Some(200),
            priority: Some(4096),
            ageing_time: Some(0),
            mcast_snooping: Some(false),
            mcast_querier: Some(true),
            mcast_igmp_version: Some(3),
            mcast_mld_version: Some(2),
            vlan_filtering: Some(true),
        };
        assert_eq!(read.unwrap(), Bridge { settings, ports: 500, fast_path: false, ..bare() });
    }

    #[test]
    fn ports_are_read() {
        assert_eq!(port(&[], false).unwrap(), Port::default());
        let read = port(
            &[
                (VLAN, "7"),
                (VLAN_TRUNK, "10, 20-29"),
                (ISOLATED, "t"),
                (HAIRPIN, "1"),
                (MAC_SPOOF_CHECK, "0"),
            ],
            true,
        );
        let trunk = vec![VlanRange { first: 10, last: 10 }, VlanRange { first: 20, last: 29 }];
        let wanted = Port { vlan: Some(7), trunk, isolated: true, hairpin: true, mac_spoof_check: false };
        assert_eq!(read.unwrap(), wanted);
    }

    #[test]
    fn faults_are_told_with_the_option_and_the_reason() {
        for (name, value, why) in [
            (STP, "on", "strconv.ParseBool: parsing \"on\": invalid syntax"),
            (FORWARD_DELAY, "15", "hundredths of a second must lie from 200 to 3000"),
            (PRIORITY, "65536", "a priority must lie from 0 to 65535"),
            (PRIORITY, "x", "strconv.Atoi: parsing \"x\": invalid syntax"),
            (AGEING_TIME, "-1", "hundredths of a second must lie from 0 to 100000000"),
            (MCAST_IGMP_VERSION, "1", "a version of IGMP must lie from 2 to 3"),
            (MCAST_MLD_VERSION, "3", "a version of MLD must lie from 1 to 2"),
            (PORTS, "992", "a bridge's ports for endpoints must lie from 1 to 991"),
        ] {
            let text = format!("failed to parse {name} value: {value} ({why})");
            assert_eq!(network(&[(name, value)]).unwrap_err(), text);
        }
        for (name, value) in [(VLAN, "4095"), (VLAN, "x"), (VLAN_TRUNK, "9-7"), (VLAN_TRUNK, "7,,8")] {
            let error = port(&[(name, value)], true).unwrap_err();
            assert!(error.starts_with(&format!("failed to parse {name} value: {value} (")), "{error}");
        }
        let error = port(&[(VLAN_TRUNK, "7")], false).unwrap_err();
        assert_eq!(
            error,
            format!("option {VLAN_TRUNK} needs a network that was made with {VLAN_FILTERING}=true")
        );
        assert!(
            network(&[("netd.bridge.stpp", "1")])
                .unwrap_err()
                .starts_with("unknown option netd.bridge.stpp:")
        );
        assert!(network(&[(ISOLATED, "1")]).unwrap_err().contains("give it to `network connect`"));
        assert!(port(&[(STP, "1")], false).unwrap_err().contains("give it to `network create`"));
    }
}
