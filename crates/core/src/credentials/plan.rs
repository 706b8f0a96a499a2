//! An ordered plan of writes that turns the existing credentials into the desired ones.

use std::collections::{BTreeMap, BTreeSet};

use super::names::Subject;
use super::ownership::{Cluster, Credential, Owner};
use super::rollover::Rollover;
pub use super::write::CredentialWrite;
use ensign_api::conditions::Reason;
use ensign_api::{ArmId, CredentialCounts, CredentialOrigin, CredentialPolicy, MAX_CREDENTIALS_PER_IDENTITY};

/// A subject that should be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The subject.
    pub subject: Subject,
    /// The name of the credential that Ensign wrote for it, according to a binding's status.
    pub recorded_name: Option<String>,
}

/// The inputs of a plan.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    /// The cluster as Azure sees it.
    pub cluster: &'a Cluster,
    /// The identity, for messages.
    pub identity: &'a ArmId,
    /// The cluster's former issuers, each with whether its last token has expired.
    pub retiring_issuers: &'a [(&'a str, bool)],
    /// Subjects that should be trusted, by priority for slots.
    pub wanted: &'a [Wanted],
    /// All credentials under the identity.
    pub existing: &'a [Credential],
    /// Whether Ensign may write.
    pub policy: CredentialPolicy,
    /// This cluster's share of the slots that Azure allows.
    pub max_credentials: u32,
}

/// The state of the trust in a wanted subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustState {
    /// A credential is in place.
    Given {
        /// Its name.
        name: String,
        /// Whether Ensign created it.
        origin: CredentialOrigin,
    },
    /// The plan contains a write of the credential.
    Planned {
        /// Its name.
        name: String,
    },
    /// The subject can't be trusted.
    Blocked {
        /// Why.
        reason: Reason,
        /// Who has to do what.
        message: String,
    },
}

/// The writes, and the state of each wanted subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Writes, to be sent in order, one at a time.
    pub writes: Vec<CredentialWrite>,
    /// The state of each wanted subject.
    pub trust_states: BTreeMap<Subject, TrustState>,
    /// The number of existing credentials, by owner.
    pub counts: CredentialCounts,
}

/// Plans the writes that lead to the desired credentials. Planning again after applying the plan gives no writes, unless
/// something was repaired: only then may a credential of a former issuer be deleted for it.
pub fn plan(inputs: &Inputs<'_>) -> Plan {
    let recorded: Vec<&str> = inputs.retiring_issuers.iter().map(|(issuer, _)| *issuer).collect();
    let (ours, others): (Vec<&Credential>, Vec<&Credential>) = inputs
        .existing
        .iter()
        .partition(|credential| inputs.cluster.owner(credential, &recorded) == Owner::ThisCluster);
    let counts = count(inputs, &recorded);
    let wanted_subjects: BTreeSet<String> = inputs.wanted.iter().map(|wanted| wanted.subject.to_string()).collect();

    let mut trust_states = BTreeMap::new();
    let mut puts = Vec::new();
    let mut lacking = Vec::new();
    for wanted in inputs.wanted {
        match find(inputs, wanted, &ours, &others) {
            Found::Decided(state) => drop(trust_states.insert(wanted.subject.clone(), state)),
            Found::Repair(write, name) => {
                trust_states.insert(wanted.subject.clone(), TrustState::Planned { name });
                puts.push(write);
            }
            Found::Missing(write) => lacking.push((wanted, write)),
        }
    }
    let (kept, unwanted): (Vec<&Credential>, Vec<&Credential>) =
        ours.iter().partition(|credential| keeps(inputs, credential, &wanted_subjects));
    let deletes: Vec<CredentialWrite> = unwanted
        .iter()
        .map(|unwanted| CredentialWrite::Delete { credential: (*unwanted).clone(), after: None })
        .collect();

    // Free slots are assigned first, then those of credentials of former issuers.
    let limit = MAX_CREDENTIALS_PER_IDENTITY as usize;
    // A repaired credential becomes ours only with the repair, so it is not counted in `kept`.
    let repairs = |put: &&CredentialWrite| matches!(put, CredentialWrite::Put { replaces: Some(there), .. } if others.contains(&there));
    let share = (inputs.max_credentials as usize).saturating_sub(puts.iter().filter(repairs).count());
    let share = share.min(limit.saturating_sub(others.len()));
    let room = share.saturating_sub(kept.len()).min(lacking.len());
    let draft = Draft { puts, deletes, kept, others: others.len(), missing: lacking, trust_states };
    let mut plan = draft.assign_slots(inputs, counts, share, room);
    if inputs.policy == CredentialPolicy::Observe {
        observe(inputs, &mut plan);
    }
    plan
}

/// A plan in which the missing credentials have no slot yet.
struct Draft<'a> {
    puts: Vec<CredentialWrite>,
    deletes: Vec<CredentialWrite>,
    /// Our credentials that are kept.
    kept: Vec<&'a Credential>,
    /// Number of credentials that are not ours.
    others: usize,
    /// Wanted subjects without a credential, and the write that creates it.
    missing: Vec<(&'a Wanted, CredentialWrite)>,
    trust_states: BTreeMap<Subject, TrustState>,
}

impl Draft<'_> {
    /// Finishes the plan. `share` is the limit for this cluster's credentials, `free` the number of free slots below it.
    fn assign_slots(mut self, inputs: &Inputs<'_>, counts: CredentialCounts, share: usize, free: usize) -> Plan {
        let limit = MAX_CREDENTIALS_PER_IDENTITY as usize;
        let former: Vec<&Credential> =
            self.kept.iter().copied().filter(|credential| credential.issuer != inputs.cluster.issuer).collect();
        // Subjects that have trust to lose come first.
        self.missing.sort_by_key(|(wanted, _)| {
            let subject = wanted.subject.to_string();
            former.iter().all(|credential| credential.subject != subject)
        });
        let without_slot = self.missing.split_off(free);
        let free_afterwards = limit.saturating_sub(self.kept.len() + self.others + free);
        let mut rollover = Rollover::new(former, free_afterwards);
        for (subject, state) in &self.trust_states {
            if let TrustState::Given { name, .. } = state {
                rollover.cover(&subject.to_string(), name);
            }
        }
        let mut waiting = Vec::new();
        for (wanted, write) in without_slot {
            let over_share = self.kept.len() > share && !rollover.has_former(&wanted.subject.to_string());
            let covered = if over_share { None } else { rollover.next_covered() };
            match covered {
                Some(covered) => {
                    self.deletes.push(covered.delete());
                    self.missing.push((wanted, write));
                }
                None => waiting.push((wanted, write, over_share)),
            }
        }
        for (wanted, write) in &self.missing {
            self.trust_states.insert(wanted.subject.clone(), TrustState::Planned { name: write.name().to_owned() });
            rollover.cover(&wanted.subject.to_string(), write.name());
        }
        self.puts.extend(self.missing.into_iter().map(|(_, write)| write));
        let mut writes = order(self.puts, self.deletes, limit.saturating_sub(inputs.existing.len()));
        for (wanted, write, over_share) in waiting {
            let name = write.name().to_owned();
            let swapped = if over_share { None } else { rollover.swap(&wanted.subject.to_string(), &name, write) };
            let state = match swapped {
                Some(swap) => {
                    writes.extend(swap);
                    TrustState::Planned { name }
                }
                None => quota_exceeded(inputs, counts),
            };
            self.trust_states.insert(wanted.subject.clone(), state);
        }
        Plan { writes, trust_states: self.trust_states, counts }
    }
}

/// What exists for a wanted subject.
enum Found {
    Decided(TrustState),
    Repair(CredentialWrite, String),
    Missing(CredentialWrite),
}

fn find(inputs: &Inputs<'_>, wanted: &Wanted, ours: &[&Credential], others: &[&Credential]) -> Found {
    let cluster = inputs.cluster;
    let desired = Credential {
        name: cluster.credential_name(&wanted.subject),
        issuer: cluster.issuer.clone(),
        subject: wanted.subject.to_string(),
        audiences: vec![cluster.audience.clone()],
    };
    let same_trust = |other: &&&Credential| other.issuer == desired.issuer && other.subject == desired.subject;
    if let Some(mine) = ours.iter().find(same_trust) {
        let name = mine.name.clone();
        return if mine.audiences == desired.audiences {
            Found::Decided(TrustState::Given { name, origin: CredentialOrigin::Created })
        } else {
            // Its name may contain the previous cluster ID. Azure rejects a second credential for the same issuer and subject.
            let credential = Credential { name: name.clone(), ..desired };
            Found::Repair(CredentialWrite::Put { credential, replaces: Some((*mine).clone()) }, name)
        };
    }
    if let Some(foreign) = others.iter().find(same_trust) {
        let right_audience = foreign.audiences == desired.audiences;
        return Found::Decided(if right_audience {
            TrustState::Given { name: foreign.name.clone(), origin: CredentialOrigin::Adopted }
        } else {
            wrong_audience(inputs.identity, foreign, &desired)
        });
    }
    if let Some(occupant) = others.iter().find(|other| other.name == desired.name) {
        // Overwrite only a credential that Ensign wrote and someone edited, and only if no other wanted subject has come
        // to depend on the edited one.
        let depends =
            |other: &Wanted| occupant.issuer == desired.issuer && occupant.subject == other.subject.to_string();
        let written_by_us = wanted.recorded_name.as_ref() == Some(&desired.name) && !inputs.wanted.iter().any(depends);
        return if written_by_us {
            let name = desired.name.clone();
            Found::Repair(CredentialWrite::Put { credential: desired, replaces: Some((*occupant).clone()) }, name)
        } else {
            Found::Decided(name_taken(inputs.identity, occupant))
        };
    }
    Found::Missing(CredentialWrite::Put { credential: desired, replaces: None })
}

/// Whether one of our credentials is kept.
fn keeps(inputs: &Inputs<'_>, credential: &Credential, wanted: &BTreeSet<String>) -> bool {
    let expired = inputs.retiring_issuers.iter().any(|(issuer, expired)| *issuer == credential.issuer && *expired);
    let current = credential.issuer == inputs.cluster.issuer;
    wanted.contains(&credential.subject) && (current || !expired)
}

/// Puts come first while slots are free; otherwise each put comes after the delete that frees its slot.
fn order(puts: Vec<CredentialWrite>, deletes: Vec<CredentialWrite>, mut free: usize) -> Vec<CredentialWrite> {
    let mut writes = Vec::new();
    let mut deletes = deletes.into_iter();
    for put in puts {
        let takes_slot = matches!(put, CredentialWrite::Put { replaces: None, .. });
        if takes_slot && free == 0 {
            writes.extend(deletes.next());
            free += 1;
        }
        free -= usize::from(takes_slot);
        writes.push(put);
    }
    writes.extend(deletes);
    writes
}

fn count(inputs: &Inputs<'_>, recorded: &[&str]) -> CredentialCounts {
    let mut counts = CredentialCounts { limit: MAX_CREDENTIALS_PER_IDENTITY, ..CredentialCounts::default() };
    for credential in inputs.existing {
        match inputs.cluster.owner(credential, recorded) {
            Owner::ThisCluster => counts.this_cluster += 1,
            Owner::OtherCluster | Owner::SharedId => counts.other_clusters += 1,
            Owner::Foreign => counts.foreign += 1,
        }
    }
    counts
}

/// With the policy `Observe` nothing is written: what a write would have created is reported as missing.
fn observe(inputs: &Inputs<'_>, plan: &mut Plan) {
    for write in std::mem::take(&mut plan.writes) {
        let CredentialWrite::Put { credential, .. } = write else { continue };
        if let Some(subject) = Subject::parse(&credential.subject) {
            let message = format!(
                "credentialPolicy is Observe and no federated identity credential trusts {subject}: run {}",
                az_create(inputs.identity, &credential)
            );
            plan.trust_states.insert(subject, TrustState::Blocked { reason: Reason::CredentialMissing, message });
        }
    }
}

fn quota_exceeded(inputs: &Inputs<'_>, counts: CredentialCounts) -> TrustState {
    let CredentialCounts { this_cluster, other_clusters, foreign, limit } = counts;
    let total = this_cluster + other_clusters + foreign;
    let share = inputs.max_credentials;
    let remedy = if total < limit {
        format!(
            "this cluster's share is {share}: a cluster operator has to raise spec.existing.maxCredentials, or delete a binding"
        )
    } else {
        "delete a binding, delete a credential in Azure, or use another identity".to_owned()
    };
    let message = format!(
        "{total}/{limit} federated identity credentials under {}: this cluster {this_cluster}, other clusters {other_clusters}, not managed by Ensign {foreign}; {remedy}",
        inputs.identity
    );
    TrustState::Blocked { reason: Reason::QuotaExceeded, message }
}

fn wrong_audience(identity: &ArmId, found: &Credential, desired: &Credential) -> TrustState {
    let message = format!(
        "federated identity credential {} already trusts {}, but for audience {:?} instead of {:?}, and Ensign does not manage it: delete it with {}",
        found.name,
        found.subject,
        found.audiences.join(", "),
        desired.audiences.join(", "),
        az_delete(identity, &found.name)
    );
    TrustState::Blocked { reason: Reason::CredentialConflict, message }
}

fn name_taken(identity: &ArmId, occupant: &Credential) -> TrustState {
    let trusts = match occupant.subject.as_str() {
        "" => "has no subject".to_owned(),
        subject => format!("trusts {subject:?} of issuer {:?}", occupant.issuer),
    };
    let message = format!(
        "federated identity credential {} has the name that Ensign needs, but {trusts}, and Ensign does not manage it: delete it with {}",
        occupant.name,
        az_delete(identity, &occupant.name)
    );
    TrustState::Blocked { reason: Reason::CredentialConflict, message }
}

/// The `az` command that deletes a credential, in backticks.
pub fn az_delete(identity: &ArmId, name: &str) -> String {
    format!(
        "`az identity federated-credential delete --subscription {} --resource-group {} --identity-name {} --name {name} --yes`",
        identity.subscription(),
        identity.resource_group(),
        identity.name()
    )
}

/// The `az` command that creates a credential, in backticks.
pub fn az_create(identity: &ArmId, credential: &Credential) -> String {
    format!(
        "`az identity federated-credential create --subscription {} --resource-group {} --identity-name {} --name {} --issuer {} --subject {} --audiences {}`",
        identity.subscription(),
        identity.resource_group(),
        identity.name(),
        credential.name,
        credential.issuer,
        credential.subject,
        credential.audiences.join(" ")
    )
}

#[cfg(test)]
#[path = "plan_properties.rs"]
mod properties;
#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
