//! Who may stay connected.
//!
//! There are so many seats. When all are taken, a newcomer gets the seat of whoever has the least claim to it: first of
//! those that have never sent a request that was answered well, the longest there first; then of those that rest, the
//! longest resting first. A connection with a request under way keeps its seat once it has shown that it has good ones.
//! So whoever opens connections and sends nothing, or slowly, or garbage, drives out its own kind, and not the API server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// The seats of a server.
#[derive(Clone, Debug)]
pub struct ConnectionSlots(Arc<Mutex<Table>>);

/// A connection's seat; free again when it is dropped.
#[derive(Debug)]
pub struct ConnectionSlot {
    seats: ConnectionSlots,
    number: u64,
    lost: CancellationToken,
}

/// A request under way on a seat's connection.
#[derive(Debug)]
pub struct UnderWay<'a>(&'a ConnectionSlot);

#[derive(Debug)]
struct Table {
    capacity: usize,
    counter: u64,
    taken: BTreeMap<u64, Taken>,
    /// Those that may lose their seat, with the least claim first.
    claims: BTreeSet<(Precedence, u64)>,
}

#[derive(Debug)]
struct Taken {
    lost: CancellationToken,
    claim: Option<Precedence>,
    proven: bool,
    under_way: usize,
}

/// In the order in which seats are lost; of equals, the one with the lower number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Precedence {
    Unproven(u64),
    Resting(u64),
}

impl ConnectionSlots {
    /// So many free seats.
    pub fn new(capacity: usize) -> Self {
        let (taken, claims) = (BTreeMap::new(), BTreeSet::new());
        Self(Arc::new(Mutex::new(Table { capacity, counter: 0, taken, claims })))
    }

    /// Takes a seat, if need be of somebody else; `None` if all others are busy with good requests.
    pub fn take(&self) -> Option<ConnectionSlot> {
        let mut table = self.lock();
        if table.taken.len() >= table.capacity {
            let (_, number) = table.claims.pop_first()?;
            if let Some(taken) = table.taken.remove(&number) {
                taken.lost.cancel();
            }
        }
        let number = table.next();
        let (lost, claim) = (CancellationToken::new(), Precedence::Unproven(number));
        let taken = Taken { lost: lost.clone(), claim: Some(claim), proven: false, under_way: 0 };
        table.taken.insert(number, taken);
        table.claims.insert((claim, number));
        drop(table);
        Some(ConnectionSlot { seats: self.clone(), number, lost })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Whole after every method, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionSlot {
    /// Cancelled when the seat is given to somebody else.
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// A request has begun.
    pub fn begin(&self) -> UnderWay<'_> {
        self.seats.lock().change(self.number, |taken, _| {
            taken.under_way += 1;
            if taken.proven {
                taken.claim = None;
            }
        });
        UnderWay(self)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut table = self.seats.lock();
        if let Some(taken) = table.taken.remove(&self.number)
            && let Some(claim) = taken.claim
        {
            table.claims.remove(&(claim, self.number));
        }
    }
}

impl UnderWay<'_> {
    /// The request was answered well.
    pub fn good(self) {
        self.0.seats.lock().change(self.0.number, |taken, _| taken.proven = true);
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.seats.lock().change(self.0.number, |taken, now| {
            taken.under_way -= 1;
            if taken.proven {
                taken.claim = (taken.under_way == 0).then_some(Precedence::Resting(now));
            }
        });
    }
}

impl Table {
    fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn change(&mut self, number: u64, change: impl FnOnce(&mut Taken, u64)) {
        let now = self.next();
        // Its seat may be lost already.
        let Some(taken) = self.taken.get_mut(&number) else { return };
        let before = taken.claim;
        change(taken, now);
        let after = taken.claim;
        if before == after {
            return;
        }
        before.map(|claim| self.claims.remove(&(claim, number)));
        after.map(|claim| self.claims.insert((claim, number)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proven(seats: &ConnectionSlots) -> ConnectionSlot {
        let seat = seats.take().unwrap();
        seat.begin().good();
        seat
    }

    fn lost(seats: &[&ConnectionSlot]) -> Vec<bool> {
        seats.iter().map(|seat| seat.lost().is_cancelled()).collect()
    }

    #[test]
    fn a_seat_that_is_given_back_can_be_taken_again() {
        let seats = ConnectionSlots::new(1);
        for _ in 0..3 {
            let seat = seats.take().unwrap();
            assert!(!seat.lost().is_cancelled());
        }
        assert!(seats.lock().claims.is_empty());
    }

    #[test]
    fn of_those_that_never_sent_a_good_request_the_oldest_goes_first() {
        let seats = ConnectionSlots::new(3);
        let (good, first, second) = (proven(&seats), seats.take().unwrap(), seats.take().unwrap());
        let _sending = second.begin();
        let newest = seats.take().unwrap();
        assert_eq!(lost(&[&good, &first, &second, &newest]), [false, true, false, false]);
        let _another = seats.take().unwrap();
        assert_eq!(lost(&[&good, &first, &second, &newest]), [false, true, true, false], "slow requests do not help");
    }

    #[test]
    fn of_those_that_rest_the_longest_resting_goes_first() {
        let seats = ConnectionSlots::new(2);
        let (older, younger) = (proven(&seats), proven(&seats));
        drop(older.begin());
        let _newcomer = proven(&seats);
        assert_eq!(lost(&[&older, &younger]), [false, true]);
    }

    #[test]
    fn who_has_a_good_request_under_way_keeps_the_seat() {
        let seats = ConnectionSlots::new(1);
        let busy = proven(&seats);
        let (first, second) = (busy.begin(), busy.begin());
        assert!(seats.take().is_none());
        drop(first);
        assert!(seats.take().is_none(), "one of two streams still has one");
        drop(second);
        assert!(seats.take().is_some());
        assert!(busy.lost().is_cancelled());
    }

    #[test]
    fn a_connection_that_lost_its_seat_takes_nobody_elses_along() {
        let seats = ConnectionSlots::new(1);
        let first = seats.take().unwrap();
        let request = first.begin();
        let second = seats.take().unwrap();
        request.good();
        drop(first);
        assert!(!second.lost().is_cancelled());
        let _third = seats.take().unwrap();
        assert!(second.lost().is_cancelled());
        assert_eq!(seats.lock().taken.len(), 1);
    }
}
