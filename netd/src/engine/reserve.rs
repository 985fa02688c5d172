//! Published ports in `ip_local_reserved_ports`, beside those that the administrator has there: no socket of the host's own is
//! given one of them unless it asks for it.

use super::{Engine, Writer};
use crate::{
    link::{self, sysctl},
    model::{Error, PortSet, State},
    store::Change,
};

/// What is to become of the reserved ports. What is in the kernel by netd's doing is in the store at every moment: it is taken
/// back before the store forgets it, and reserved when the store knows it.
pub(super) struct Reservation {
    /// What was reserved, by whomever.
    before: PortSet,
    /// What is to be reserved.
    wanted: PortSet,
    /// What of that is netd's doing.
    added: PortSet,
}

impl Engine {
    /// Reserves what is published, at the start.
    pub(super) async fn reserve(&self, writer: &mut Writer) -> Result<(), Error> {
        let state = self.state();
        let Some(reservation) = Reservation::begin(writer, &state, &state) else { return Ok(()) };
        if let Some(change) = reservation.change(&state) {
            let stored = change.clone();
            writer.store(move |store| store.commit(&[stored], &[])).await?;
            self.remember(change);
        }
        reservation.finish();
        Ok(())
    }
}

impl Reservation {
    /// Takes back what is published no more when `old` becomes `new`. `None` if nothing is to be done, or cannot be: a host that
    /// does not allow it is told of, and that is all.
    pub(super) fn begin(writer: &mut Writer, old: &State, new: &State) -> Option<Self> {
        let wanted = published(new);
        if writer.reserved.as_ref() == Some(&wanted) {
            return None;
        }
        let begin = || {
            let before = sysctl::reserved_ports()?;
            let (all, added) = merge(&before, &old.reserved, &wanted);
            let reservation = Self { before, wanted: all, added };
            set(&reservation.before, &reservation.kept())?;
            Ok(reservation)
        };
        let begun = told(begin());
        writer.reserved = Some(wanted);
        begun
    }

    /// What the store is to know before the rest is done, if that is news to it.
    pub(super) fn change(&self, old: &State) -> Option<Change> {
        (self.added != old.reserved).then(|| Change::Reserve(self.added.clone()))
    }

    /// Reserves what is new.
    pub(super) fn finish(self) {
        told(set(&self.kept(), &self.wanted));
    }

    /// Undoes the beginning.
    pub(super) fn undo(self, writer: &mut Writer) {
        told(set(&self.kept(), &self.before));
        writer.reserved = None;
    }

    /// What was reserved and stays so.
    fn kept(&self) -> PortSet {
        let gone = self.before.clone().without(&self.wanted);
        self.before.clone().without(&gone)
    }
}

fn set(is: &PortSet, should: &PortSet) -> Result<(), link::Error> {
    if is == should { Ok(()) } else { sysctl::reserve_ports(should) }
}

fn told<T>(done: Result<T, link::Error>) -> Option<T> {
    done.inspect_err(|error| {
        log::warn!("published ports are not kept from the host's own sockets: {error}");
    })
    .ok()
}

/// What is to be reserved, and what of it by netd's doing: with what is `present`, of which netd has `added` some, and what netd
/// wants.
fn merge(present: &PortSet, added: &PortSet, wanted: &PortSet) -> (PortSet, PortSet) {
    let administrators = present.clone().without(added);
    (administrators.clone().and(wanted), wanted.clone().without(&administrators))
}

/// The host's ports that are published; those of a routed endpoint are its own.
pub(super) fn published(state: &State) -> PortSet {
    let mut ports = PortSet::default();
    for endpoint in state.endpoints.values() {
        for publication in endpoint.publications.iter().filter(|it| !endpoint.has(it.host.address)) {
            ports.add(publication.host.ports());
        }
    }
    ports
}

/// Takes what netd has reserved back, on a host that is cleaned up.
pub fn release(added: &PortSet) -> Result<(), link::Error> {
    let present = sysctl::reserved_ports()?;
    set(&present, &present.clone().without(added))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_administrator_reserved_stays() {
        let set = |text: &str| text.parse::<PortSet>().unwrap();
        let check = |present: &str, added: &str, wanted: &str| {
            let (ports, added) = merge(&set(present), &set(added), &set(wanted));
            (ports.to_string(), added.to_string())
        };
        assert_eq!(check("80", "", "80,8080"), ("80,8080".into(), "8080".into()));
        assert_eq!(check("80,8080", "8080", "80"), ("80".into(), String::new()));
        assert_eq!(check("80", "", ""), ("80".into(), String::new()));
        // Somebody has set it anew meanwhile.
        assert_eq!(check("443", "8080", "8080"), ("443,8080".into(), "8080".into()));
    }
}
