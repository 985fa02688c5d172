//! How fast an endpoint may send and be sent to: options in a namespace of netd's own.

use std::collections::BTreeMap;

use super::options::{strange, unreadable};
use crate::model::{
    Bits, Error, Rate, Rates,
    request::{EGRESS, EGRESS_BURST, INGRESS, INGRESS_BURST},
};

/// What all of these options begin with.
pub(super) const NAMESPACE: &str = "netd.rate.";

/// What an endpoint's options say of its bandwidth.
pub(super) fn read(options: &BTreeMap<String, String>) -> Result<Rates, Error> {
    const KNOWN: [&str; 4] = [INGRESS, INGRESS_BURST, EGRESS, EGRESS_BURST];
    if let Some(name) = strange(options, NAMESPACE, &KNOWN) {
        return Err(Error::invalid(format!("unknown option {name}: the options are {}", KNOWN.join(", "))));
    }
    Ok(Rates {
        ingress: rate(options, INGRESS, INGRESS_BURST)?,
        egress: rate(options, EGRESS, EGRESS_BURST)?,
    })
}

fn rate(
    options: &BTreeMap<String, String>,
    rate: &'static str,
    burst: &'static str,
) -> Result<Option<Rate>, Error> {
    let (least, most) = Rate::RANGE;
    let per_second = bits(options, rate, least, most)?;
    let burst_bits = bits(options, burst, Bits(1), Rate::LARGEST_BURST)?;
    match (per_second, burst_bits) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(Error::invalid(format!("option {burst} needs {rate}"))),
        (Some(per_second), None) => Ok(Some(Rate::new(per_second))),
        (Some(per_second), Some(burst)) => Ok(Some(Rate { per_second, burst })),
    }
}

fn bits(
    options: &BTreeMap<String, String>,
    name: &str,
    least: Bits,
    most: Bits,
) -> Result<Option<Bits>, Error> {
    let Some(text) = options.get(name) else { return Ok(None) };
    let bits: Bits = text.parse().map_err(|why| unreadable(name, text, why))?;
    if (least..=most).contains(&bits) {
        return Ok(Some(bits));
    }
    Err(unreadable(name, text, format!("must be from {least} to {most}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(options: &[(&str, &str)]) -> Result<Rates, String> {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        read(&options).map_err(|error| error.message)
    }

    #[test]
    fn rates_are_read() {
        assert_eq!(read_all(&[("com.example", "x")]).unwrap(), Rates::default());
        let rates = read_all(&[(INGRESS, "100mbit"), (EGRESS, "1000000"), (EGRESS_BURST, "64kbit")]).unwrap();
        assert_eq!(rates.ingress, Some(Rate::new(Bits(100_000_000))));
        assert_eq!(rates.egress, Some(Rate { per_second: Bits(1_000_000), burst: Bits(64_000) }));
    }

    #[test]
    fn bad_rates_are_refused() {
        for (options, message) in [
            (
                &[(INGRESS, "fast")][..],
                "failed to parse netd.rate.ingress value: fast (\"fast\" is no number of bits such as 500kbit, 100mbit or 2.5gbit)",
            ),
            (&[(EGRESS, "0")], "failed to parse netd.rate.egress value: 0 (must be from 1kbit to 1tbit)"),
            (&[(EGRESS_BURST, "1mbit")], "option netd.rate.egress_burst needs netd.rate.egress"),
            (
                &[(INGRESS, "1mbit"), (INGRESS_BURST, "1tbit")],
                "failed to parse netd.rate.ingress_burst value: 1tbit (must be from 1bit to 34359738360bit)",
            ),
            (
                &[("netd.rate.up", "1mbit")],
                "unknown option netd.rate.up: the options are netd.rate.ingress, netd.rate.ingress_burst, netd.rate.egress, netd.rate.egress_burst",
            ),
        ] {
            assert_eq!(read_all(options).unwrap_err(), message);
        }
    }
}
