//! Maps that remember what they held a while ago.
//!
//! ARM has replicas, and a read can be answered by one that lags: after a 201, GET of an identity can return 404 for a
//! while (terraform-provider-azurerm PR 32935 and 32865), and role definitions flap between found and not found for
//! minutes (azure-cli issue 20727). To return such answers, each entry's earlier values are kept, not copies of the map:
//! a write costs the same however large the map is.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Deref;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// A map by key in lower case, with the entries' earlier values. It reads like a [`BTreeMap`].
///
/// A change gets its time when the state is unlocked (`State::record_changes`).
#[derive(Debug)]
pub struct Tracked<V> {
    present: BTreeMap<String, V>,
    /// Values before changes without a time yet.
    pending: BTreeMap<String, Option<V>>,
    /// Earlier values by key, oldest first.
    earlier: BTreeMap<String, VecDeque<Earlier<V>>>,
    /// The keys of earlier values in order of time.
    order: VecDeque<(Timestamp, String)>,
}

/// What an entry was until some time; absent if there was none.
#[derive(Debug)]
struct Earlier<V> {
    until: Timestamp,
    value: Option<V>,
}

impl<V> Default for Tracked<V> {
    fn default() -> Self {
        BTreeMap::new().into()
    }
}

impl<V> From<BTreeMap<String, V>> for Tracked<V> {
    fn from(present: BTreeMap<String, V>) -> Self {
        Self { present, pending: BTreeMap::new(), earlier: BTreeMap::new(), order: VecDeque::new() }
    }
}

impl<V> Deref for Tracked<V> {
    type Target = BTreeMap<String, V>;

    fn deref(&self) -> &Self::Target {
        &self.present
    }
}

impl<'a, V> IntoIterator for &'a Tracked<V> {
    type Item = (&'a String, &'a V);
    type IntoIter = std::collections::btree_map::Iter<'a, String, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.present.iter()
    }
}

impl<V: Clone> Tracked<V> {
    /// Inserts or replaces an entry; returns what was there.
    pub fn insert(&mut self, key: String, value: V) -> Option<V> {
        let old = self.present.insert(key.clone(), value);
        self.pending.entry(key).or_insert_with(|| old.clone());
        old
    }

    /// Removes an entry and returns it.
    pub fn remove(&mut self, key: &str) -> Option<V> {
        let (key, old) = self.present.remove_entry(key)?;
        self.pending.entry(key).or_insert_with(|| Some(old.clone()));
        Some(old)
    }

    /// An entry, to change it.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut V> {
        let value = self.present.get_mut(key)?;
        self.pending.entry(key.to_owned()).or_insert_with(|| Some(value.clone()));
        Some(value)
    }

    /// All entries, to change them. The ones that the iterator has passed are compared later: prefer
    /// [`Tracked::get_mut`].
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        let Self { present, pending, .. } = self;
        present.iter_mut().map(|(key, value)| {
            pending.entry(key.clone()).or_insert_with(|| Some(value.clone()));
            value
        })
    }

    /// Removes the entries that do not satisfy a condition.
    pub fn retain(&mut self, mut keep: impl FnMut(&String, &V) -> bool) {
        let Self { present, pending, .. } = self;
        present.retain(|key, value| {
            let kept = keep(key, value);
            if !kept {
                pending.entry(key.clone()).or_insert_with(|| Some(value.clone()));
            }
            kept
        });
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        self.retain(|_, _| false);
    }
}

impl<V: Clone + PartialEq> Tracked<V> {
    /// Gives the changes since the last call a time, and forgets what was older than `kept` then.
    pub(super) fn record(&mut self, now: Timestamp, kept: SignedDuration) {
        // A clock that was set back does not change the order.
        let now = self.order.back().map_or(now, |(last, _)| now.max(*last));
        for (key, value) in std::mem::take(&mut self.pending) {
            if self.present.get(&key) == value.as_ref() {
                continue;
            }
            self.earlier.entry(key.clone()).or_default().push_back(Earlier { until: now, value });
            self.order.push_back((now, key));
        }
        let Ok(oldest) = now.checked_sub(kept) else { return };
        while self.order.front().is_some_and(|(until, _)| *until < oldest) {
            let Some((_, key)) = self.order.pop_front() else { return };
            let Some(values) = self.earlier.get_mut(&key) else { continue };
            values.pop_front();
            if values.is_empty() {
                self.earlier.remove(&key);
            }
        }
    }

    /// Forgets all earlier values: what is there now has always been there.
    pub(super) fn forget(&mut self) {
        *self = std::mem::take(&mut self.present).into();
    }

    /// What an entry was before, latest first, as far as that is kept; none if it was not there.
    pub(super) fn earlier(&self, key: &str) -> impl Iterator<Item = Option<&V>> {
        self.earlier.get(key).into_iter().flat_map(|values| values.iter().rev()).map(|earlier| earlier.value.as_ref())
    }

    /// An entry as of some time.
    pub(super) fn get_at(&self, key: &str, time: Timestamp) -> Option<&V> {
        match self.earlier.get(key).and_then(|values| values.iter().find(|earlier| earlier.until > time)) {
            Some(earlier) => earlier.value.as_ref(),
            None => self.present.get(key),
        }
    }

    /// All entries as of some time, in order of their keys.
    pub(super) fn iter_at(&self, time: Timestamp) -> impl Iterator<Item = (&String, &V)> {
        let changed = self.order.back().is_some_and(|(until, _)| *until > time);
        let keys: Option<Vec<&String>> = changed.then(|| {
            let gone = self.earlier.keys().filter(|key| !self.present.contains_key(*key));
            let mut keys: Vec<_> = self.present.keys().chain(gone).collect();
            keys.sort_unstable();
            keys
        });
        let now = keys.is_none().then_some(&self.present);
        let then = keys.into_iter().flatten().filter_map(move |key| Some((key, self.get_at(key, time)?)));
        now.into_iter().flatten().chain(then)
    }

    #[cfg(test)]
    fn remembered(&self) -> usize {
        self.earlier.values().map(VecDeque::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: SignedDuration = SignedDuration::from_secs(600);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    fn shown(map: &Tracked<u8>, seconds: i64) -> String {
        let entries: Vec<_> = map.iter_at(at(seconds)).map(|(key, value)| format!("{key}{value}")).collect();
        for (key, value) in map.iter_at(at(seconds)) {
            assert_eq!(map.get_at(key, at(seconds)), Some(value));
        }
        entries.join(" ")
    }

    #[test]
    fn every_earlier_state_can_be_read() {
        let mut map = Tracked::from(BTreeMap::from([("b".to_owned(), 1)]));
        map.insert("a".to_owned(), 1);
        map.record(at(10), KEPT);
        *map.get_mut("b").unwrap() = 2;
        map.insert("c".to_owned(), 1);
        map.record(at(20), KEPT);
        assert_eq!(map.remove("b"), Some(2));
        map.values_mut().for_each(|value| *value += 1);
        map.record(at(30), KEPT);
        map.retain(|key, _| key == "c");
        map.record(at(40), KEPT);
        let states = [9, 10, 19, 20, 29, 30, 39, 40].map(|seconds| shown(&map, seconds));
        assert_eq!(states, ["b1", "a1 b1", "a1 b1", "a1 b2 c1", "a1 b2 c1", "a2 c2", "a2 c2", "c2"]);
        assert_eq!((map.get_at("a", at(40)), map.get_at("a", at(39))), (None, Some(&2)));
        assert_eq!(map.earlier("a").collect::<Vec<_>>(), [Some(&2), Some(&1), None]);
    }

    #[test]
    fn changes_of_one_moment_are_one_change_and_equal_values_are_none() {
        let mut map = Tracked::from(BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 1)]));
        map.insert("a".to_owned(), 2);
        map.insert("a".to_owned(), 3);
        map.values_mut().for_each(drop);
        map.insert("c".to_owned(), 1);
        map.remove("c");
        map.record(at(10), KEPT);
        assert_eq!((map.remembered(), shown(&map, 9).as_str()), (1, "a1 b1"));
    }

    #[test]
    fn what_is_older_than_needed_is_forgotten() {
        let mut map = Tracked::default();
        for second in 0..2000 {
            map.insert(format!("{}", second % 7), u8::try_from(second % 200).unwrap());
            map.record(at(second), KEPT);
        }
        assert_eq!(map.remembered(), 601);
        map.clear();
        map.record(at(9000), KEPT);
        assert_eq!((map.remembered(), map.len()), (7, 0));
        map.forget();
        assert_eq!(shown(&map, 0), "");
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_the_order() {
        let mut map = Tracked::default();
        map.insert("a".to_owned(), 1);
        map.record(at(100), KEPT);
        map.insert("a".to_owned(), 2);
        map.record(at(50), KEPT);
        assert_eq!((shown(&map, 99).as_str(), shown(&map, 100).as_str()), ("", "a2"));
    }
}
