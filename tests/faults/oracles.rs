//! What must be true of every plan, whatever the fault (O3, O5 and O7; O1 and O2 compare with the reference run).

use std::collections::{BTreeMap, BTreeSet};

use ensign_azure_emulator::LogEntry;
use ensign_core::credentials::names::Subject;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::dedicated;
use super::eventually::{condition_of, text};
use super::harness::Harness;
use super::history::Version;
use super::lock::lock;
use super::roles;

/// What a plan permits that others do not.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "the permissions are independent")]
pub struct Allowances {
    /// One write may be stale: the plan changed the objects between the last read and the write, or the write
    /// reached Azure late. What it created is deleted again.
    pub stale_write: bool,
    /// A tenant removed finalizers.
    pub stripped: bool,
    /// Another cluster writes to the same identity.
    pub rivals: bool,
    /// An operator abandoned what Azure did not confirm.
    pub abandoned: bool,
}

impl Allowances {
    /// Permits nothing.
    pub const NONE: Self = Self { stale_write: false, stripped: false, rivals: false, abandoned: false };
}

const CONCURRENT: &str = "ConcurrentFederatedIdentityCredentialsWritesForSingleManagedIdentity";

/// A credential's key: the identity's name and its own, in lower case.
type Place = (String, String);

/// Which credentials existed in Azure, and when: from the response to a PUT until the arrival of a DELETE.
struct Timeline {
    events: BTreeMap<Place, Vec<(Timestamp, Option<StoredCredential>)>>,
}

#[derive(Clone)]
struct StoredCredential {
    issuer: String,
    subject: String,
    foreign: bool,
}

impl Timeline {
    fn new(harness: &Harness, log: &[LogEntry]) -> Self {
        let mut events: BTreeMap<Place, Vec<(Timestamp, Option<StoredCredential>)>> = BTreeMap::new();
        for (time, identity, credential, name) in lock(&harness.out_of_band).iter() {
            let stored = credential.as_ref().map(|credential| StoredCredential {
                issuer: credential.issuer.clone(),
                subject: credential.subject.clone(),
                foreign: true,
            });
            events.entry((identity.to_lowercase(), name.to_lowercase())).or_default().push((*time, stored));
        }
        for entry in log.iter().filter(|entry| took_effect(entry)) {
            let Some(place) = place(entry) else { continue };
            let event = match entry.method.as_str() {
                "PUT" => {
                    let body = entry.body.clone().unwrap_or_default();
                    let problem = |name: &str| text(&body["properties"][name]).to_owned();
                    let foreign = !is_of(harness, entry);
                    let stored = StoredCredential { issuer: problem("issuer"), subject: problem("subject"), foreign };
                    (entry.finished, Some(stored))
                }
                _ => (entry.time, None),
            };
            events.entry(place).or_default().push(event);
        }
        for events in events.values_mut() {
            events.sort_by_key(|(time, _)| *time);
        }
        Self { events }
    }

    fn at(&self, place: &Place, time: Timestamp) -> Option<&StoredCredential> {
        self.events.get(place)?.iter().rfind(|(when, _)| *when <= time)?.1.as_ref()
    }

    fn places(&self) -> impl Iterator<Item = &Place> {
        self.events.keys()
    }
}

/// Whether the write changed something in Azure, whatever the response.
fn took_effect(entry: &LogEntry) -> bool {
    let status = entry.applied_status.or(if entry.fault.is_none() { entry.status } else { None });
    match entry.method.as_str() {
        "PUT" => matches!(status, Some(200 | 201)),
        "DELETE" => status == Some(200),
        _ => false,
    }
}

fn place(entry: &LogEntry) -> Option<Place> {
    let lower = entry.path.to_lowercase();
    let mut segments = lower.split('/').rev();
    let name = segments.next()?.to_owned();
    (segments.next()? == "federatedidentitycredentials").then_some(())?;
    Some((segments.next()?.to_owned(), name))
}

/// Writes that took effect, by method.
pub fn counts(log: &[LogEntry]) -> (usize, usize) {
    let count = |method: &str| log.iter().filter(|entry| entry.method == method && took_effect(entry)).count();
    (count("PUT"), count("DELETE"))
}

/// Returns what was broken.
pub fn judge(harness: &Harness, allowances: Allowances) -> Vec<String> {
    let log: Vec<LogEntry> = harness.azure_writes().into_iter().filter(|entry| place(entry).is_some()).collect();
    let timeline = Timeline::new(harness, &log);
    let mut broken = Vec::new();
    let mut excused = usize::from(allowances.stale_write);
    let own: Vec<LogEntry> = log.iter().filter(|entry| is_of(harness, entry)).cloned().collect();
    // The credentials of late writes, also of those between a deletion and the release of its finalizer.
    let mut late: BTreeSet<Place> = BTreeSet::new();
    for entry in own.iter().filter(|entry| took_effect(entry)) {
        if allowances.stale_write && entry.method == "PUT" && is_slow(entry) {
            late.extend(place(entry));
        }
        if let Some(problem) = unauthorised(harness, &timeline, entry) {
            if excused > 0 {
                excused -= 1;
                late.extend(place(entry));
            } else {
                broken.push(problem);
            }
        }
    }
    let all: Vec<LogEntry> = harness.azure_writes();
    let all: Vec<LogEntry> = all.into_iter().filter(|entry| is_of(harness, entry) && took_effect(entry)).collect();
    dedicated::judge(harness, &all, &mut broken);
    roles::judge(harness, &all, &mut broken);
    roles::untruthful_status(harness, &all, &mut broken);
    one_at_a_time(&own, &mut broken);
    if !allowances.stripped && !allowances.abandoned {
        outlived_credentials(harness, &timeline, &late, &mut broken);
    }
    untruthful_status(harness, &timeline, &mut broken);
    self_inflicted_errors(harness, allowances, &mut broken);
    requests_during_pauses(harness, &mut broken);
    broken
}

/// O3: a live binding and a grant permit the write, and what it touches is ours.
fn unauthorised(harness: &Harness, timeline: &Timeline, entry: &LogEntry) -> Option<String> {
    let (identity, name) = place(entry)?;
    let before = timeline.at(&(identity.clone(), name.clone()), entry.time - SignedDuration::from_nanos(1));
    let problem = |why: &str| Some(format!("O3: {} of {name} under {identity}: {why}", entry.method));
    if let Some(before) = before.filter(|before| before.foreign) {
        let ours = harness.azure_cluster();
        let subject = Subject::parse(&before.subject);
        let recomputes = subject.is_some_and(|subject| ours.credential_name(&subject).to_lowercase() == name);
        if !recomputes || before.issuer != ours.issuer {
            // Our own credential that was edited may be repaired; nothing else foreign may be touched.
            if entry.method == "DELETE" || !was_ours(timeline, &(identity.clone(), name.clone())) {
                return problem("it is not provably ours");
            }
        }
    }
    if entry.method == "PUT" {
        let body = entry.body.clone().unwrap_or_default();
        let subject = Subject::parse(text(&body["properties"]["subject"]))?;
        let allowed = claims(harness, &identity, &subject, entry.time);
        if allowed.is_empty() {
            return problem("no live binding with a grant wants it");
        }
        let held = allowed.iter().any(|(binding, managed)| binding.has_finalizer() && managed.has_finalizer());
        return if held { None } else { problem("it was sent before the finalizers were set") };
    }
    let before = before?;
    let subject = Subject::parse(&before.subject)?;
    // Changes by others than the controller are recorded with a short delay.
    let after = [10, 25, 50, 100, 200, 500]
        .map(|millis| claims(harness, &identity, &subject, entry.time + SignedDuration::from_millis(millis)));
    let stays = |uid: &str| after.iter().all(|later| later.iter().any(|(binding, _)| binding.uid == uid));
    let mut wanted = claims(harness, &identity, &subject, entry.time).into_iter();
    let current = before.issuer == *lock(&harness.issuer);
    if current && wanted.any(|(binding, _)| binding.has_finalizer() && stays(&binding.uid)) {
        return problem("a live binding wants it");
    }
    None
}

/// Whether a controller of this plan sent it.
fn is_of(harness: &Harness, entry: &LogEntry) -> bool {
    let agent = entry.user_agent.as_deref().unwrap_or_default();
    harness.replicas().iter().any(|replica| agent.contains(&format!("({})", replica.name)))
}

fn was_ours(timeline: &Timeline, place: &Place) -> bool {
    timeline
        .events
        .get(place)
        .is_some_and(|events| events.iter().any(|(_, stored)| stored.as_ref().is_some_and(|stored| !stored.foreign)))
}

/// The live bindings of the subject at a time, each with the live `ManagedIdentity` that grants it.
fn claims(harness: &Harness, identity: &str, subject: &Subject, time: Timestamp) -> Vec<(Version, Version)> {
    let identities: Vec<Version> = harness
        .history
        .at("ManagedIdentity", time)
        .into_iter()
        .filter(|found| !found.is_deleting() && dedicated::name_in_azure(&found.object) == identity)
        .collect();
    let classes = harness.history.at("ManagedIdentityClass", time);
    let namespaces = harness.history.at("Namespace", time);
    let labels = namespaces.iter().find(|namespace| namespace.name == subject.namespace);
    let labels = labels.map(|namespace| namespace.object["metadata"]["labels"].clone()).unwrap_or_default();
    let bindings = harness.history.at("ManagedIdentityBinding", time);
    let mut claims = Vec::new();
    for binding in bindings {
        let spec = &binding.object["spec"];
        let concerns =
            binding.namespace == subject.namespace && spec["serviceAccountName"] == subject.service_account.as_str();
        if binding.is_deleting() || !concerns {
            continue;
        }
        // An existing class has to grant it as well.
        let by_class = spec["identityRef"]["kind"] == "ManagedIdentityClass";
        let class = classes.iter().find(|class| by_class && spec["identityRef"]["name"] == class.name.as_str());
        let allowed = class.is_none_or(|class| class.is_deleted || grants(&class.object, subject, &labels));
        let named = identities.iter().find(|found| dedicated::references(&binding.object, &found.object));
        if let Some(managed) = named.filter(|managed| allowed && grants(&managed.object, subject, &labels)) {
            claims.push((binding, managed.clone()));
        }
    }
    claims
}

/// Whether an entry of `allowedSubjects` covers the subject: an independent, simple implementation of the rule.
fn grants(managed: &Value, subject: &Subject, labels: &Value) -> bool {
    let entries = managed["spec"]["allowedSubjects"].as_array();
    entries.is_some_and(|entries| {
        entries.iter().any(|entry| {
            let place = match entry["namespaceSelector"]["matchLabels"].as_object() {
                Some(wanted) => wanted.iter().all(|(name, value)| labels[name] == *value),
                None => entry["namespace"] == subject.namespace.as_str(),
            };
            let accounts = entry["serviceAccounts"].as_array();
            place
                && accounts.is_some_and(|accounts| {
                    accounts.iter().any(|account| account == "*" || account == subject.service_account.as_str())
                })
        })
    })
}

/// O3: one write at a time per identity.
fn one_at_a_time(log: &[LogEntry], broken: &mut Vec<String>) {
    let mut last: BTreeMap<String, &LogEntry> = BTreeMap::new();
    for entry in log {
        let Some((identity, _)) = place(entry) else { continue };
        if let Some(before) = last.insert(identity.clone(), entry)
            && before.finished > entry.time
            && !is_slow(before)
        {
            broken.push(format!("O3: two concurrent writes under {identity}"));
        }
    }
}

/// Whether the plan delayed the write.
fn is_slow(entry: &LogEntry) -> bool {
    entry.fault.as_ref().is_some_and(|fault| fault.contains("delayMs"))
}

/// O3: no credential of ours outlives its finalizer, except for one that a late write created.
fn outlived_credentials(harness: &Harness, timeline: &Timeline, late: &BTreeSet<Place>, broken: &mut Vec<String>) {
    for versions in harness.history.all("ManagedIdentityBinding") {
        for pair in versions.windows(2) {
            let (before, after) = (&pair[0], &pair[1]);
            if !before.has_finalizer() || (after.has_finalizer() && after.uid == before.uid) {
                continue;
            }
            let account = text(&before.object["spec"]["serviceAccountName"]);
            let subject = Subject::new(before.namespace.clone(), account);
            for place in timeline.places().filter(|place| !late.contains(*place)) {
                let Some(stored) = timeline.at(place, after.known).filter(|stored| !stored.foreign) else { continue };
                let heirs = claims(harness, &place.0, &subject, after.known);
                let inherited = heirs.iter().any(|(heir, _)| heir.has_finalizer() && heir.uid != before.uid);
                if stored.subject == subject.to_string()
                    && concerns(harness, before, &place.0, after.known)
                    && !inherited
                {
                    broken.push(format!("O3: {} under {} outlived the finalizer of {}", place.1, place.0, before.name));
                }
            }
        }
    }
}

/// Whether the binding is for this identity of Azure.
fn concerns(harness: &Harness, binding: &Version, identity: &str, time: Timestamp) -> bool {
    let found = harness.history.at("ManagedIdentity", time);
    found
        .iter()
        .filter(|managed| dedicated::references(&binding.object, &managed.object))
        .any(|managed| dedicated::name_in_azure(&managed.object) == identity)
}

/// O5: `Ready=True` means that Azure confirmed it, and `observedGeneration` is never ahead.
fn untruthful_status(harness: &Harness, timeline: &Timeline, broken: &mut Vec<String>) {
    for kind in ["ManagedIdentity", "ManagedIdentityBinding"] {
        for versions in harness.history.all(kind) {
            let mut was_ready = false;
            for version in &versions {
                let (status, generation) =
                    (&version.object["status"], version.object["metadata"]["generation"].as_i64());
                if status["observedGeneration"].as_i64() > generation {
                    broken.push(format!("O5: {} has an observedGeneration that is ahead", version.name));
                }
                let ready = condition_of(&version.object, "Ready").is_some_and(|ready| ready["status"] == "True");
                if ready && !was_ready && kind == "ManagedIdentityBinding" {
                    let name = text(&status["credential"]["name"]).to_lowercase();
                    let stored = timeline
                        .places()
                        .any(|place| place.1 == name && existed_recently(timeline, place, version.known));
                    if !stored {
                        broken.push(format!("O5: {} is Ready, but credential {name:?} does not exist", version.name));
                    }
                }
                was_ready = ready;
            }
        }
    }
}

/// Whether the credential existed when status reported it, or shortly before: it may have been deleted out of band just then.
fn existed_recently(timeline: &Timeline, place: &Place, time: Timestamp) -> bool {
    timeline.at(place, time).is_some()
        || timeline.at(place, time - SignedDuration::from_millis(200)).is_some_and(|_| {
            let removed = timeline.events.get(place).and_then(|events| events.iter().rfind(|(when, _)| *when <= time));
            removed.is_some_and(|(_, stored)| stored.is_none())
        })
}

/// O7: no 429, 409 or 400 because of Ensign itself: Azure's limits, such as that of 20 credentials, are planned for.
fn self_inflicted_errors(harness: &Harness, allowances: Allowances, broken: &mut Vec<String>) {
    let lock_or_policy = ["ScopeLocked", "ReadOnlyDisabledSubscription"];
    for entry in harness.azure_log().iter().filter(|entry| is_of(harness, entry)) {
        let refused = entry.fault.is_none() && matches!(entry.status, Some(400 | 409 | 429));
        let code = entry.error_code.as_deref().unwrap_or_default();
        // Two clusters do not know of each other.
        let met = allowances.rivals && (code == CONCURRENT || entry.status == Some(400));
        if refused && !met && !lock_or_policy.contains(&code) {
            broken.push(format!("O7: {} {} was answered {code}", entry.method, entry.path));
        }
    }
}

/// O7: no request is sent during a pause that Azure asked for in its scope: an identity, or the reads or writes
/// of a subscription.
fn requests_during_pauses(harness: &Harness, broken: &mut Vec<String>) {
    let log: Vec<LogEntry> =
        harness.azure_log().into_iter().filter(|entry| entry.path.starts_with("/subscriptions")).collect();
    let moments = lock(&harness.moments).clone();
    let passed_at = |seq: u64| {
        let after = moments.iter().find(|(seen, _)| *seen >= seq);
        after.map_or_else(|| harness.clock.passed(), |(_, passed)| *passed)
    };
    let identity = |entry: &LogEntry| {
        let lower = entry.path.to_lowercase();
        lower.split("/federatedidentitycredentials").next().unwrap_or_default().to_owned()
    };
    let subscription = |entry: &LogEntry| entry.path.to_lowercase().split('/').nth(2).map(str::to_owned);
    let mut reported = BTreeSet::new();
    for (index, entry) in log.iter().enumerate() {
        let fault: Value =
            entry.fault.as_deref().and_then(|fault| serde_json::from_str(fault).ok()).unwrap_or_default();
        let Some(pause) = pause(&fault, entry.time) else { continue };
        let wide = fault["code"] == "SubscriptionRequestsThrottled";
        // Requests in flight at the time of the response could not know of it.
        let heard = entry.finished + SignedDuration::from_millis(50);
        let concerns = |next: &&LogEntry| {
            let same = subscription(next) == subscription(entry) && next.kind == entry.kind;
            identity(next) == identity(entry) || (wide && same && next.time > heard)
        };
        let next = log[index + 1..].iter().find(concerns);
        if let Some(next) = next.filter(|next| passed_at(next.seq) < passed_at(entry.seq) + pause)
            && reported.insert(next.seq)
        {
            broken.push(format!("O7: {} {} was sent during a pause of {pause:?}", next.method, next.path));
        }
    }
}

/// The duration of `Retry-After`; for a date, slightly less.
fn pause(fault: &Value, now: Timestamp) -> Option<std::time::Duration> {
    let after = fault["retryAfter"].as_str()?;
    if let Ok(seconds) = after.parse::<u64>() {
        return Some(std::time::Duration::from_secs(seconds));
    }
    let until = k8s_openapi::jiff::fmt::rfc2822::parse(after).ok()?.timestamp();
    let seconds = until.duration_since(now).as_secs() - 2;
    Some(std::time::Duration::from_secs(u64::try_from(seconds).ok()?))
}
