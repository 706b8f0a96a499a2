//! Changes of the webhook configuration by other programs.
//!
//! They may add selector expressions and entries (the AKS admissions enforcer does): these are kept, and are not drift.
//! Changes of our fields are repaired. If another program keeps reverting a repair, repairs back off, because two programs
//! that overwrite each other only load the API server.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{COMPATIBLE_LABEL, ENTRIES, NAMESPACE_NAME_LABEL, requirement};
use ensign_api::keys::INJECT_LABEL;

/// Number of repairs in a row, for example of a removed CA bundle, that are immediate.
const IMMEDIATE_REPAIRS: u32 = 3;
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);
/// A repair that lasted this long ends a conflict.
const CALM: Duration = Duration::from_secs(10 * 60);

/// The entries to write, including what other programs added; `None` if the configuration has everything of `desired`.
pub fn differs(current: &MutatingWebhookConfiguration, desired: &[MutatingWebhook]) -> Option<Vec<MutatingWebhook>> {
    let before = current.webhooks.as_deref().unwrap_or_default();
    let is_wanted = |entry: &&MutatingWebhook| {
        !ENTRIES.contains(&entry.name.as_str()) || desired.iter().any(|wanted| wanted.name == entry.name)
    };
    let mut after: Vec<MutatingWebhook> = before.iter().filter(is_wanted).cloned().collect();
    let mut changed = after.len() != before.len();
    for wanted in desired {
        let found = after.iter_mut().find(|entry| entry.name == wanted.name);
        let wanted = with_ca(wanted, found.as_deref());
        match found {
            Some(entry) if same(entry, &wanted) => {}
            Some(entry) => {
                *entry = merged(entry, &wanted);
                changed = true;
            }
            None => {
                after.push(wanted);
                changed = true;
            }
        }
    }
    changed.then_some(after)
}

/// Whether the entries send no pods to the webhook that were not sent before, at the same endpoint. Such a change is safe
/// even while no replica of the webhook is running.
pub fn asks_no_more(before: &MutatingWebhookConfiguration, after: &[MutatingWebhook]) -> bool {
    let before = before.webhooks.as_deref().unwrap_or_default();
    after.iter().filter(|entry| ENTRIES.contains(&entry.name.as_str())).all(|entry| {
        let former = before.iter().find(|former| former.name == entry.name);
        former.is_some_and(|former| {
            let (names, former_names) = (NamesOf::of(entry), NamesOf::of(former));
            without_names(entry) == without_names(former)
                && (former_names.only.is_empty()
                    || (!names.only.is_empty() && names.only.is_subset(&former_names.only)))
                && names.never.is_superset(&former_names.never)
        })
    })
}

/// The namespaces that an entry of the current configuration is limited to.
pub fn limited_to(current: &MutatingWebhookConfiguration, name: &str) -> BTreeSet<String> {
    let entry = current.webhooks.iter().flatten().find(|entry| entry.name == name);
    entry.map(|entry| NamesOf::of(entry).only.into_iter().map(str::to_owned).collect()).unwrap_or_default()
}

/// The CA bundle in the current configuration, if there is one.
pub fn injected_ca(current: &MutatingWebhookConfiguration) -> Option<&[u8]> {
    let entries = current.webhooks.iter().flatten().filter(|entry| ENTRIES.contains(&entry.name.as_str()));
    entries
        .filter_map(|entry| entry.client_config.ca_bundle.as_ref())
        .map(|ca| ca.0.as_slice())
        .find(|ca| !ca.is_empty())
}

/// Counts repairs of the same desired state, and delays further ones.
#[derive(Debug, Default)]
pub struct Repairs {
    wanted: Vec<MutatingWebhook>,
    count: u32,
    last: Duration,
}

impl Repairs {
    /// How long to wait before these entries are written again; `None` if not at all. `now` is monotonic time.
    pub fn wait(&self, wanted: &[MutatingWebhook], now: Duration) -> Option<Duration> {
        if self.wanted != wanted || self.count < IMMEDIATE_REPAIRS {
            return None;
        }
        let doublings = (self.count - IMMEDIATE_REPAIRS).min(16);
        let pause = (FIRST_WAIT * 2_u32.pow(doublings)).min(LONGEST_WAIT);
        (self.last + pause).checked_sub(now).filter(|left| !left.is_zero())
    }

    /// Records a write of these entries. Returns the number of repairs in a row.
    pub fn written(&mut self, wanted: &[MutatingWebhook], now: Duration) -> u32 {
        let is_repair = self.wanted == wanted && now.saturating_sub(self.last) < CALM;
        self.count = if is_repair { self.count.saturating_add(1) } else { 0 };
        self.wanted = wanted.to_vec();
        self.last = now;
        self.count
    }
}

/// Whether this many repairs in a row are a conflict with another program, which has to be reported.
pub fn is_fight(repairs: u32) -> bool {
    repairs >= IMMEDIATE_REPAIRS
}

/// The entry with the CA bundle that another program injected, if Ensign does not set it. While there is none, the entry
/// matches no pod, because the API server could not trust the webhook.
fn with_ca(wanted: &MutatingWebhook, current: Option<&MutatingWebhook>) -> MutatingWebhook {
    let mut wanted = wanted.clone();
    if wanted.client_config.ca_bundle.is_some() {
        return wanted;
    }
    let injected = current.and_then(|entry| entry.client_config.ca_bundle.clone()).filter(|ca| !ca.0.is_empty());
    if injected.is_none() {
        // No namespace has an empty name.
        let nowhere = requirement(NAMESPACE_NAME_LABEL, "In", &[String::new()].into());
        wanted.namespace_selector = Some(LabelSelector { match_labels: None, match_expressions: Some(vec![nowhere]) });
    }
    wanted.client_config.ca_bundle = injected;
    wanted
}

/// Whether all of our fields are as desired.
fn same(current: &MutatingWebhook, wanted: &MutatingWebhook) -> bool {
    without_selectors(current) == without_selectors(wanted)
        && Ours::of(current.namespace_selector.as_ref()) == Ours::of(wanted.namespace_selector.as_ref())
        && Ours::of(current.object_selector.as_ref()) == Ours::of(wanted.object_selector.as_ref())
}

fn without_selectors(entry: &MutatingWebhook) -> MutatingWebhook {
    MutatingWebhook { namespace_selector: None, object_selector: None, match_conditions: None, ..entry.clone() }
}

/// The entry without the namespaces in its selector.
fn without_names(entry: &MutatingWebhook) -> MutatingWebhook {
    let mut entry = entry.clone();
    if let Some(expressions) =
        entry.namespace_selector.as_mut().and_then(|selector| selector.match_expressions.as_mut())
    {
        expressions.retain(|requirement| requirement.key != NAMESPACE_NAME_LABEL);
    }
    let is_empty = |selector: &LabelSelector| {
        selector.match_expressions.iter().flatten().next().is_none()
            && selector.match_labels.iter().flatten().next().is_none()
    };
    entry.namespace_selector = entry.namespace_selector.filter(|selector| !is_empty(selector));
    entry
}

/// The namespaces that an entry is limited to, and those that it excludes.
struct NamesOf<'a> {
    only: BTreeSet<&'a str>,
    never: BTreeSet<&'a str>,
}

impl<'a> NamesOf<'a> {
    fn of(entry: &'a MutatingWebhook) -> Self {
        let (mut only, mut never) = (BTreeSet::new(), BTreeSet::new());
        let expressions = entry.namespace_selector.iter().flat_map(|selector| &selector.match_expressions).flatten();
        for requirement in expressions.filter(|requirement| requirement.key == NAMESPACE_NAME_LABEL) {
            let names = requirement.values.iter().flatten().map(String::as_str);
            match requirement.operator.as_str() {
                "In" => only.extend(names),
                _ => never.extend(names),
            }
        }
        Self { only, never }
    }
}

/// `wanted`, with what other programs added to `current`.
fn merged(current: &MutatingWebhook, wanted: &MutatingWebhook) -> MutatingWebhook {
    MutatingWebhook {
        namespace_selector: Some(with_foreign(current.namespace_selector.as_ref(), wanted.namespace_selector.as_ref())),
        object_selector: Some(with_foreign(current.object_selector.as_ref(), wanted.object_selector.as_ref())),
        match_conditions: current.match_conditions.clone(),
        ..wanted.clone()
    }
}

fn is_our_key(key: &str) -> bool {
    matches!(key, NAMESPACE_NAME_LABEL | INJECT_LABEL | COMPATIBLE_LABEL)
}

/// Our part of a selector, independent of order.
#[derive(Debug, PartialEq, Eq)]
struct Ours<'a> {
    labels: BTreeMap<&'a str, &'a str>,
    expressions: BTreeSet<(&'a str, &'a str, BTreeSet<&'a str>)>,
}

impl<'a> Ours<'a> {
    fn of(selector: Option<&'a LabelSelector>) -> Self {
        let labels = selector.and_then(|selector| selector.match_labels.as_ref()).into_iter().flatten();
        let expressions = selector.and_then(|selector| selector.match_expressions.as_ref()).into_iter().flatten();
        Self {
            labels: labels
                .filter(|(key, _)| is_our_key(key))
                .map(|(key, value)| (key.as_str(), value.as_str()))
                .collect(),
            expressions: expressions
                .filter(|requirement| is_our_key(&requirement.key))
                .map(|requirement| {
                    let values = requirement.values.iter().flatten().map(String::as_str).collect();
                    (requirement.key.as_str(), requirement.operator.as_str(), values)
                })
                .collect(),
        }
    }
}

fn with_foreign(current: Option<&LabelSelector>, wanted: Option<&LabelSelector>) -> LabelSelector {
    let mut selector = wanted.cloned().unwrap_or_default();
    let foreign = current.cloned().unwrap_or_default();
    for (key, value) in foreign.match_labels.into_iter().flatten().filter(|(key, _)| !is_our_key(key)) {
        selector.match_labels.get_or_insert_default().insert(key, value);
    }
    for requirement in foreign.match_expressions.into_iter().flatten().filter(|other| !is_our_key(&other.key)) {
        selector.match_expressions.get_or_insert_default().push(requirement);
    }
    selector
}

#[cfg(test)]
#[path = "drift_tests.rs"]
mod tests;
