//! Published ports in `ip_local_reserved_ports`, beside those that the administrator has there: no socket of the host's own is
//! given one of them unless it asks for it.

use super::{Engine, Writer, internal};
use crate::{
    link::sysctl,
    model::{Error, PortSet, State},
    store::Change,
};

impl Engine {
    /// Reserves what is published now, and no more of what was. A host that does not allow it is told of, and that is all.
    pub(super) async fn reserve(&self, writer: &mut Writer) {
        let wanted = published(&self.state());
        if writer.reserved.as_ref() == Some(&wanted) {
            return;
        }
        if let Err(error) = self.try_to_reserve(writer, &wanted).await {
            log::warn!("published ports are not kept from the host's own sockets: {error}");
        }
        writer.reserved = Some(wanted);
    }

    async fn try_to_reserve(&self, writer: &Writer, wanted: &PortSet) -> Result<(), Error> {
        let before = self.state().reserved.clone();
        let present = sysctl::reserved_ports().map_err(internal)?;
        let (ports, added) = merge(&present, &before, wanted);
        // What is in the kernel by netd's doing is in the store at every moment.
        let either = added.clone().and(&before);
        self.note_reserved(writer, &before, &either).await?;
        if ports != present {
            sysctl::reserve_ports(&ports).map_err(internal)?;
        }
        self.note_reserved(writer, &either, &added).await
    }

    async fn note_reserved(&self, writer: &Writer, before: &PortSet, after: &PortSet) -> Result<(), Error> {
        if before == after {
            return Ok(());
        }
        let change = Change::Reserve(after.clone());
        let stored = change.clone();
        writer.store(move |store| store.commit(&[stored], &[])).await?;
        self.remember(change);
        Ok(())
    }
}

/// What is to be reserved, and what of it by netd's doing: with what is `present`, of which netd has `added` some, and what netd
/// wants.
fn merge(present: &PortSet, added: &PortSet, wanted: &PortSet) -> (PortSet, PortSet) {
    let administrators = present.clone().without(added);
    (administrators.clone().and(wanted), wanted.clone().without(&administrators))
}

/// The host's ports that are published; those of a routed endpoint are its own.
fn published(state: &State) -> PortSet {
    let mut ports = PortSet::default();
    for endpoint in state.endpoints.values() {
        for publication in endpoint.publications.iter().filter(|it| !endpoint.has(it.host.address)) {
            ports.add(publication.host.ports());
        }
    }
    ports
}

/// Takes what netd has reserved back, on a host that is cleaned up.
pub fn release(added: &PortSet) -> Result<(), crate::link::Error> {
    let present = sysctl::reserved_ports()?;
    let left = present.clone().without(added);
    if left == present { Ok(()) } else { sysctl::reserve_ports(&left) }
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
