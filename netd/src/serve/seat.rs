//! Seats for connections: as many as there are, and room for the next by those that are only waiting.
//!
//! A connection waits while it has not sent a whole request, or has been answered; it is busy while its request is worked
//! on. When all seats are taken, the one that has waited longest gives up its own: however many half-open connections
//! there are, a client that says what it wants is served.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// The seats of one listener.
#[derive(Clone, Debug)]
pub(super) struct Seats(Arc<Mutex<Room>>);

#[derive(Debug)]
struct Room {
    seats: usize,
    taken: usize,
    /// Number of the next turn.
    next: u64,
    /// Those that wait, in the order in which they began to.
    waiting: BTreeMap<u64, Arc<Notify>>,
}

/// One connection's seat.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    /// Since when it waits; `None` while it is busy.
    turn: Mutex<Option<u64>>,
    away: Arc<Notify>,
}

/// While this is there, its seat is busy.
#[derive(Debug)]
pub(super) struct Busy(Arc<Seat>);

impl Seats {
    pub(super) fn new(seats: usize) -> Self {
        Self(Arc::new(Mutex::new(Room { seats, taken: 0, next: 0, waiting: BTreeMap::new() })))
    }

    /// A seat, for a connection that waits. `None` if all are busy.
    pub(super) fn take(&self) -> Option<Arc<Seat>> {
        let mut room = self.room();
        if room.taken >= room.seats {
            let (_, away) = room.waiting.pop_first()?;
            away.notify_one();
        }
        room.taken += 1;
        let away = Arc::new(Notify::new());
        let turn = room.wait(&away);
        Some(Arc::new(Seat { seats: self.clone(), turn: Mutex::new(Some(turn)), away }))
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    fn wait(&mut self, away: &Arc<Notify>) -> u64 {
        let turn = self.next;
        self.next += 1;
        self.waiting.insert(turn, away.clone());
        turn
    }
}

impl Seat {
    /// The seat is busy until what is returned is dropped.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        if let Some(turn) = self.turn().take() {
            self.seats.room().waiting.remove(&turn);
        }
        Busy(self.clone())
    }

    /// Ready when another needs the seat.
    pub(super) async fn needed(&self) {
        self.away.notified().await;
    }

    fn turn(&self) -> MutexGuard<'_, Option<u64>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut turn = self.0.turn();
        if turn.is_none() {
            *turn = Some(self.0.seats.room().wait(&self.0.away));
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let turn = self.turn().take();
        let mut room = self.seats.room();
        room.taken -= 1;
        if let Some(turn) = turn {
            room.waiting.remove(&turn);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn is_needed(seat: &Seat) -> bool {
        seat.needed().now_or_never().is_some()
    }

    #[test]
    fn whoever_has_waited_longest_makes_room() {
        let seats = Seats::new(2);
        let (first, second) = (seats.take().unwrap(), seats.take().unwrap());
        let busy = first.busy();
        let third = seats.take().unwrap();
        assert!(!is_needed(&first) && is_needed(&second) && !is_needed(&third));
        drop(second);
        // What was busy waits anew, behind the third.
        drop(busy);
        let _fourth = seats.take().unwrap();
        assert!(is_needed(&third) && !is_needed(&first));
    }

    #[test]
    fn there_is_no_room_where_all_are_busy() {
        let seats = Seats::new(1);
        let seat = seats.take().unwrap();
        let busy = seat.busy();
        assert!(seats.take().is_none());
        drop(busy);
        drop(seat);
        assert!(seats.take().is_some());
        assert_eq!(seats.room().taken, 0);
        assert!(seats.room().waiting.is_empty());
    }
}
