//! Who has which external port: what tells bindings, whose port is theirs alone, from flows that are mapped per remote and
//! share theirs.

use netd_common::{
    addr::{Address as _, Be16},
    binding::{Taking, Usage},
};

use crate::{atomic::Word, family::Family};

/// Times a lost race for a word is run again. Two ports share it.
const RETRIES: u32 = 8;

/// The ports of an external address and a protocol.
#[derive(Clone, Copy)]
pub struct Ports {
    first: u32,
}

impl Ports {
    /// Of a protocol that nothing is bound of.
    const NONE: u32 = u32::MAX;

    #[inline(always)]
    pub fn of<F: Family>(address: F::Address, protocol: u8) -> Self {
        Self { first: Usage::first(address.last_word(), protocol).unwrap_or(Self::NONE) }
    }

    #[inline(always)]
    fn find<F: Family>(self, port: Be16) -> Option<(Usage, Word)> {
        if self.first == Self::NONE {
            return None;
        }
        let usage = Usage::at(self.first, port);
        let word = F::port_usage().get_ptr_mut(usage.word)?;
        // SAFETY: an aligned word of an array map.
        Some((usage, unsafe { Word::new(word) }))
    }

    /// Whether a binding has the port. Only the binding itself tells at which address.
    #[inline(always)]
    pub fn is_bound<F: Family>(self, port: Be16) -> bool {
        self.find::<F>(port).is_some_and(|(usage, word)| usage.is_bound(word.load()))
    }

    /// Takes a port. `false` if it is not to be had in this way.
    #[inline(always)]
    pub fn take<F: Family>(self, port: Be16, taking: Taking) -> bool {
        if taking == Taking::Nothing {
            return true;
        }
        let Some((usage, word)) = self.find::<F>(port) else { return true };
        if taking == Taking::Shared {
            let before = word.fetch_add(usage.share());
            if usage.is_bound(before) {
                word.add(usage.share().wrapping_neg());
                return false;
            }
            return true;
        }
        for _ in 0..RETRIES {
            let seen = word.load();
            if !usage.is_free(seen) {
                return false;
            }
            if word.exchange(seen, seen.wrapping_add(usage.alone())) {
                return true;
            }
        }
        false
    }

    /// Gives a port back that was taken.
    #[inline(always)]
    pub fn give_back<F: Family>(self, port: Be16, taking: Taking) {
        if taking == Taking::Nothing {
            return;
        }
        if let Some((usage, word)) = self.find::<F>(port) {
            let amount = if taking == Taking::Shared { usage.share() } else { usage.alone() };
            word.add(amount.wrapping_neg());
        }
    }
}
