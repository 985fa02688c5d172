//! What one network's names and addresses are: a pure answer to a question, from the state of the moment.

use std::{collections::BTreeSet, net::IpAddr};

use hickory_proto::rr::{
    Name, RData, Record, RecordType,
    rdata::{A, AAAA, PTR},
};

use crate::model::{Endpoint, Network, State};

/// How long a resolver may remember an answer, in seconds; Docker's number.
const TTL: u32 = 600;

/// The answer to one question.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// The name is known. There may be no record of the type that was asked for.
    Known(Vec<Record>),
    /// The address is the network's, and nobody has it.
    Nobody,
    /// Not a matter of this network.
    Elsewhere,
}

/// The names of one network at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Zone<'a> {
    network: &'a Network,
    state: &'a State,
}

impl<'a> Zone<'a> {
    /// The names of `network`, whose endpoints are in `state`.
    pub(super) const fn new(network: &'a Network, state: &'a State) -> Self {
        Self { network, state }
    }

    /// What is known of `name`: an endpoint's, bare or with the network's name behind it, or an address's.
    pub(super) fn answer(&self, name: &Name, kind: RecordType) -> Answer {
        if let Ok(address) = name.parse_arpa_name()
            && address.prefix_len() == address.max_prefix_len()
        {
            return self.reverse(name, kind, address.addr());
        }
        let wanted = text(name);
        let bare = wanted.strip_suffix(&format!(".{}", self.network.name.to_ascii_lowercase()));
        let endpoints: Vec<_> = self
            .endpoints()
            .filter(|endpoint| {
                names(endpoint).any(|known| {
                    let known = known.to_ascii_lowercase();
                    known == wanted || Some(&*known) == bare
                })
            })
            .collect();
        if endpoints.is_empty() {
            return Answer::Elsewhere;
        }
        let addresses: BTreeSet<IpAddr> = endpoints.into_iter().flat_map(Endpoint::addresses).collect();
        let records = addresses.into_iter().map(rdata).filter(|data| asks_for(kind, data.record_type()));
        Answer::Known(records.map(|data| record(name, data)).collect())
    }

    fn reverse(&self, name: &Name, kind: RecordType, address: IpAddr) -> Answer {
        if !self.network.ipam.pools.iter().any(|pool| pool.subnet.contains(&address)) {
            return Answer::Elsewhere;
        }
        let Some(owner) = self.endpoints().find(|endpoint| endpoint.has(address)) else {
            return Answer::Nobody;
        };
        let mut known: Vec<_> = names(owner).collect();
        // An attachment's own name is its container's id, which its runtime alone knows, and which may be too long for a label.
        if owner.container.is_some() {
            known.rotate_left(1);
        }
        let name_of = |known: &str| Name::from_ascii(format!("{known}.{}.", self.network.name)).ok();
        let owner = known.into_iter().find_map(name_of);
        let record = owner.filter(|_| asks_for(kind, RecordType::PTR));
        Answer::Known(record.map(|owner| record_of(name, owner)).into_iter().collect())
    }

    fn endpoints(&self) -> impl Iterator<Item = &'a Endpoint> {
        self.state.endpoints_of(self.network.id)
    }
}

/// What an endpoint is called in its network.
pub fn names(endpoint: &Endpoint) -> impl Iterator<Item = &str> {
    std::iter::once(&endpoint.name).chain(&endpoint.aliases).map(String::as_str)
}

/// Whether a question of one type wants records of another: ANY wants all that there is (RFC 8482), which is never much.
fn asks_for(kind: RecordType, there: RecordType) -> bool {
    kind == RecordType::ANY || kind == there
}

/// A name as people write it: lower case (RFC 4343), no dot at its end.
fn text(name: &Name) -> String {
    let mut text = name.to_ascii().to_ascii_lowercase();
    if text.ends_with('.') {
        text.pop();
    }
    text
}

fn rdata(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL, data)
}

fn record_of(name: &Name, owner: Name) -> Record {
    record(name, RData::PTR(PTR(owner)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::sample;

    fn ask(network: &str, name: &str, kind: RecordType) -> Answer {
        let state = sample::state();
        let network = state.network_named(network).unwrap();
        Zone::new(network, &state).answer(&Name::from_ascii(name).unwrap(), kind)
    }

    fn data(answer: Answer) -> Vec<String> {
        let Answer::Known(records) = answer else { panic!("{answer:?}") };
        records.iter().map(|record| record.data.to_string()).collect()
    }

    #[test]
    fn a_name_is_known_bare_and_with_its_network_in_any_case() {
        for name in ["web.", "WEB.", "web.n1.", "Web.N1."] {
            assert_eq!(data(ask("n1", name, RecordType::A)), ["10.5.1.2"], "{name}");
        }
        assert_eq!(data(ask("n1", "web.", RecordType::AAAA)), ["fd00:5::2"]);
    }

    #[test]
    fn another_type_of_a_known_name_is_empty_and_not_unknown() {
        assert_eq!(ask("n1", "web.", RecordType::MX), Answer::Known(Vec::new()));
        assert_eq!(data(ask("n1", "web.", RecordType::ANY)), ["10.5.1.2", "fd00:5::2"], "RFC 8482");
        assert_eq!(ask("n1", "c2.", RecordType::A), Answer::Elsewhere);
        assert_eq!(ask("bridge", "web.", RecordType::A), Answer::Elsewhere, "another network's name");
        assert_eq!(ask("n1", "web.example.org.", RecordType::A), Answer::Elsewhere);
    }

    #[test]
    fn addresses_of_the_network_have_names_or_nobody() {
        for kind in [RecordType::PTR, RecordType::ANY] {
            assert_eq!(data(ask("n1", "2.1.5.10.in-addr.arpa.", kind)), ["web.n1."]);
        }
        let six = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.5.0.0.0.0.0.d.f.ip6.arpa.";
        assert_eq!(data(ask("n1", six, RecordType::PTR)), ["web.n1."]);
        assert_eq!(ask("n1", "8.0.5.10.in-addr.arpa.", RecordType::PTR), Answer::Nobody);
        assert_eq!(ask("n1", "8.8.8.8.in-addr.arpa.", RecordType::PTR), Answer::Elsewhere);
        assert_eq!(ask("n1", "2.1.5.10.in-addr.arpa.", RecordType::A), Answer::Known(Vec::new()));
    }
}
