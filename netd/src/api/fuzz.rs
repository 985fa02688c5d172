//! Bodies and filters as no client would write them: good ones with bytes changed, cut out and put in. Whatever comes is
//! read or refused, and what is read is the same when it is written and read again.

use axum::http::StatusCode;
use proptest::{collection::vec, prelude::*, sample::select};
use serde::{Serialize, de::DeserializeOwned};

use super::{error::Refusal, filter::Filters, json, network, sample};
use crate::model::request::{NetworkConnect, NetworkCreate, NetworkDisconnect};

const CREATE: [&str; 3] = [
    r#"{"Driver":"bridge","Scope":"","IPAM":{"Driver":"default","Options":{},"Config":[]},"Internal":false,"Attachable":false,"Ingress":false,"ConfigOnly":false,"ConfigFrom":null,"Options":{},"Labels":{},"Name":"n1"}"#,
    r#"{"Driver":"bridge","EnableIPv4":false,"EnableIPv6":true,"IPAM":{"Driver":"default","Options":{"k":"v"},"Config":[{"Subnet":"10.5.0.0/16","IPRange":"10.5.1.0/24","Gateway":"10.5.0.1","AuxiliaryAddresses":{"h":"10.5.0.9"}}]},"Options":{"com.docker.network.driver.mtu":"1400"},"Labels":{"a":"b"},"Name":"n2"}"#,
    r#"{"ConfigFrom":{"Network":"n3"},"Name":"n4","CheckDuplicate":true}"#,
];
const CONNECT: [&str; 2] = [
    r#"{"Container":"netns:c1","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.5.0.7","IPv6Address":"fd00::7","LinkLocalIPs":["169.254.1.1"]},"Links":null,"Aliases":["a1"],"MacAddress":"","DriverOpts":{"com.docker.network.endpoint.ifname":"x0"},"GwPriority":5,"NetworkID":"","IPPrefixLen":0,"DNSNames":null}}"#,
    r#"{"Container":"pid:1"}"#,
];
const DISCONNECT: [&str; 1] = [r#"{"Container":"netns:c1","Force":true}"#];
const FILTERS: [&str; 3] = [
    r#"{"driver":{"bridge":true},"label":{"a=b":true},"name":{"^n[0-9]+$":true}}"#,
    r#"{"id":["0202"],"type":["custom"],"scope":["local"],"dangling":["true"]}"#,
    r#"{"label!":{"x":true},"until":{"24h":true}}"#,
];
/// What means something somewhere.
const FRAGMENTS: [&str; 24] = [
    "null",
    "true",
    "{}",
    "[]",
    "[[",
    "{\"",
    "\"",
    ":",
    ",",
    "}",
    "]",
    "\\",
    "\\u0000",
    "\\ud800",
    "1e999",
    "-1",
    "9223372036854775808",
    "0.5",
    "\u{feff}",
    "é",
    "(",
    "*",
    "Name",
    "\"Options\":null,",
];

#[derive(Debug, Clone)]
enum Edit {
    Change(usize, u8),
    Cut(usize, usize),
    Insert(usize, &'static str),
    Repeat(usize, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Edit::Change(at, byte)),
        (any::<usize>(), 0..40_usize).prop_map(|(at, length)| Edit::Cut(at, length)),
        (any::<usize>(), select(&FRAGMENTS[..])).prop_map(|(at, text)| Edit::Insert(at, text)),
        (any::<usize>(), 0..40_usize).prop_map(|(at, length)| Edit::Repeat(at, length)),
    ]
}

/// One of `good`, after some edits.
fn edited(good: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    (select(good), vec(edit(), 0..6)).prop_map(|(text, edits)| {
        let mut bytes = text.as_bytes().to_vec();
        for edit in edits {
            let place = |at: usize| at % (bytes.len() + 1);
            match edit {
                Edit::Change(at, byte) => {
                    let at = place(at);
                    if let Some(changed) = bytes.get_mut(at) {
                        *changed = byte;
                    }
                }
                Edit::Cut(at, length) => {
                    let at = place(at);
                    bytes.drain(at..(at + length).min(bytes.len()));
                }
                Edit::Insert(at, text) => {
                    let at = place(at);
                    bytes.splice(at..at, text.bytes());
                }
                Edit::Repeat(at, length) => {
                    let at = place(at);
                    let again = bytes[at..(at + length).min(bytes.len())].to_vec();
                    bytes.splice(at..at, again);
                }
            }
        }
        bytes
    })
}

fn refused(refusal: &Refusal) -> Result<(), TestCaseError> {
    prop_assert_eq!(refusal.status, StatusCode::BAD_REQUEST);
    prop_assert!(!refusal.message.is_empty());
    Ok(())
}

fn read<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(
    body: &[u8],
) -> Result<(), TestCaseError> {
    match json::read::<T>(body) {
        Ok(request) => {
            let written = serde_json::to_vec(&request).unwrap();
            prop_assert_eq!(json::read::<T>(&written).unwrap(), request);
            Ok(())
        }
        Err(refusal) => refused(&refusal),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn create(body in edited(&CREATE)) {
        read::<NetworkCreate>(&body)?;
    }

    #[test]
    fn connect(body in edited(&CONNECT)) {
        read::<NetworkConnect>(&body)?;
    }

    #[test]
    fn disconnect(body in edited(&DISCONNECT)) {
        read::<NetworkDisconnect>(&body)?;
    }

    #[test]
    fn filters(text in edited(&FILTERS)) {
        let text = String::from_utf8_lossy(&text);
        match Filters::parse(&text) {
            Err(refusal) => refused(&refusal)?,
            Ok(filters) => {
                if let Err(refusal) = network::list(&sample::state(), &filters) {
                    prop_assert!(!refusal.message.is_empty());
                }
                for network in sample::state().networks.values() {
                    let _ = filters.without_labels("label!", &network.labels);
                }
            }
        }
    }
}

#[test]
fn what_the_edits_begin_with_is_good() {
    for body in CREATE {
        json::read::<NetworkCreate>(body.as_bytes()).unwrap();
    }
    for body in CONNECT {
        json::read::<NetworkConnect>(body.as_bytes()).unwrap();
    }
    for body in DISCONNECT {
        json::read::<NetworkDisconnect>(body.as_bytes()).unwrap();
    }
    for text in FILTERS {
        Filters::parse(text).unwrap();
    }
}
