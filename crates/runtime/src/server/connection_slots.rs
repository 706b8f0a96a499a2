//! Which connections stay open when there are too many.
//!
//! A server has a fixed number of connection slots. When all are taken, a new connection gets the slot of the one with the
//! lowest precedence: first, connections that never had a successful request, oldest first; then idle ones, longest idle
//! first. A connection with a request in flight keeps its slot once it has had a successful one. So a client that opens
//! connections and sends nothing, or slowly, or garbage, evicts its own kind and not the API server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// The slots of a server.
#[derive(Clone, Debug)]
pub(super) struct ConnectionSlots(Arc<Mutex<Table>>);

/// The slot of a connection; freed when it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    slots: ConnectionSlots,
    number: u64,
    lost: CancellationToken,
}

/// A request in flight on a connection.
#[derive(Debug)]
pub(super) struct InFlight<'a>(&'a ConnectionSlot);

#[derive(Debug)]
struct Table {
    capacity: usize,
    counter: u64,
    taken: BTreeMap<u64, TakenSlot>,
    /// Slots that can be lost, the lowest precedence first.
    evictable: BTreeSet<(Precedence, u64)>,
}

#[derive(Debug)]
struct TakenSlot {
    lost: CancellationToken,
    /// `None` while it can't be lost.
    precedence: Option<Precedence>,
    /// Whether the connection has had a successful request.
    proven: bool,
    in_flight: usize,
}

/// In the order in which slots are lost; within a variant, the lower number first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Precedence {
    /// Since the connection was opened.
    Unproven(u64),
    /// Since its last request ended.
    Idle(u64),
}

impl ConnectionSlots {
    /// This many free slots.
    pub(super) fn new(capacity: usize) -> Self {
        let (taken, evictable) = (BTreeMap::new(), BTreeSet::new());
        Self(Arc::new(Mutex::new(Table { capacity, counter: 0, taken, evictable })))
    }

    /// Takes a slot, from another connection if need be; `None` if all others are proven and have requests in flight.
    pub(super) fn take(&self) -> Option<ConnectionSlot> {
        let mut table = self.0.lock();
        if table.taken.len() >= table.capacity {
            let (_, number) = table.evictable.pop_first()?;
            if let Some(slot) = table.taken.remove(&number) {
                slot.lost.cancel();
            }
        }
        let number = table.next();
        let (lost, precedence) = (CancellationToken::new(), Precedence::Unproven(number));
        let slot = TakenSlot { lost: lost.clone(), precedence: Some(precedence), proven: false, in_flight: 0 };
        table.taken.insert(number, slot);
        table.evictable.insert((precedence, number));
        drop(table);
        Some(ConnectionSlot { slots: self.clone(), number, lost })
    }
}

impl ConnectionSlot {
    /// Cancelled when the slot is given to another connection.
    pub(super) fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// A request has begun.
    pub(super) fn begin(&self) -> InFlight<'_> {
        self.slots.0.lock().change(self.number, |slot, _| {
            slot.in_flight += 1;
            if slot.proven {
                slot.precedence = None;
            }
        });
        InFlight(self)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut table = self.slots.0.lock();
        if let Some(slot) = table.taken.remove(&self.number)
            && let Some(precedence) = slot.precedence
        {
            table.evictable.remove(&(precedence, self.number));
        }
    }
}

impl InFlight<'_> {
    /// The request has ended with success.
    pub(super) fn succeeded(self) {
        self.0.slots.0.lock().change(self.0.number, |slot, _| slot.proven = true);
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.slots.0.lock().change(self.0.number, |slot, now| {
            slot.in_flight -= 1;
            if slot.proven {
                slot.precedence = (slot.in_flight == 0).then_some(Precedence::Idle(now));
            }
        });
    }
}

impl Table {
    fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn change(&mut self, number: u64, change: impl FnOnce(&mut TakenSlot, u64)) {
        let now = self.next();
        // The slot may have been lost.
        let Some(slot) = self.taken.get_mut(&number) else { return };
        let before = slot.precedence;
        change(slot, now);
        let after = slot.precedence;
        if before == after {
            return;
        }
        before.map(|precedence| self.evictable.remove(&(precedence, number)));
        after.map(|precedence| self.evictable.insert((precedence, number)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proven(slots: &ConnectionSlots) -> ConnectionSlot {
        let slot = slots.take().unwrap();
        slot.begin().succeeded();
        slot
    }

    fn lost(slots: &[&ConnectionSlot]) -> Vec<bool> {
        slots.iter().map(|slot| slot.lost().is_cancelled()).collect()
    }

    #[test]
    fn a_freed_slot_can_be_taken_again() {
        let slots = ConnectionSlots::new(1);
        for _ in 0..3 {
            let slot = slots.take().unwrap();
            assert!(!slot.lost().is_cancelled());
        }
        assert!(slots.0.lock().evictable.is_empty());
    }

    #[test]
    fn of_connections_without_a_successful_request_the_oldest_is_closed_first() {
        let slots = ConnectionSlots::new(3);
        let (good, first, second) = (proven(&slots), slots.take().unwrap(), slots.take().unwrap());
        let _sending = second.begin();
        let newest = slots.take().unwrap();
        assert_eq!(lost(&[&good, &first, &second, &newest]), [false, true, false, false]);
        let _another = slots.take().unwrap();
        assert_eq!(lost(&[&good, &first, &second, &newest]), [false, true, true, false], "slow requests do not help");
    }

    #[test]
    fn of_idle_connections_the_longest_idle_is_closed_first() {
        let slots = ConnectionSlots::new(2);
        let (older, younger) = (proven(&slots), proven(&slots));
        drop(older.begin());
        let _new = proven(&slots);
        assert_eq!(lost(&[&older, &younger]), [false, true]);
    }

    #[test]
    fn a_proven_connection_with_a_request_in_flight_is_not_closed() {
        let slots = ConnectionSlots::new(1);
        let busy = proven(&slots);
        let (first, second) = (busy.begin(), busy.begin());
        assert!(slots.take().is_none());
        drop(first);
        assert!(slots.take().is_none(), "one of two requests is still in flight");
        drop(second);
        assert!(slots.take().is_some());
        assert!(busy.lost().is_cancelled());
    }

    #[test]
    fn a_connection_that_lost_its_slot_does_not_free_that_of_another_one() {
        let slots = ConnectionSlots::new(1);
        let first = slots.take().unwrap();
        let request = first.begin();
        let second = slots.take().unwrap();
        request.succeeded();
        drop(first);
        assert!(!second.lost().is_cancelled());
        let _third = slots.take().unwrap();
        assert!(second.lost().is_cancelled());
        assert_eq!(slots.0.lock().taken.len(), 1);
    }
}
