//! The difference between the credentials that are wanted and those that stand, as an ordered plan.

use std::collections::{BTreeMap, BTreeSet};

use super::names::Subject;
use super::ownership::{Cluster, Credential, Owner};
use super::rollover::Rollover;
use ensign_api::conditions::Reason;
use ensign_api::{ArmId, CredentialCounts, CredentialOrigin, CredentialPolicy, MAX_CREDENTIALS_PER_IDENTITY};

/// A subject that should be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The subject.
    pub subject: Subject,
    /// The name of the credential that Ensign is known to have written for it.
    pub recorded_name: Option<String>,
}

/// What the plan is made from.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    /// The cluster as Azure sees it.
    pub cluster: &'a Cluster,
    /// The identity; messages name it.
    pub identity: &'a ArmId,
    /// Issuers that this cluster had before, with the moment's answer to whether their last token has expired.
    pub retiring_issuers: &'a [(&'a str, bool)],
    /// Subjects that should be trusted, those who come first for a slot first.
    pub wanted: &'a [Wanted],
    /// The credentials that stand in Azure, all of them.
    pub existing: &'a [Credential],
    /// Whether Ensign may write.
    pub policy: CredentialPolicy,
    /// This cluster's share of Azure's limit.
    pub max_credentials: u32,
}

/// One write to Azure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialWrite {
    /// Create the credential, or set its audience right.
    Put {
        /// What is to stand.
        credential: Credential,
        /// What stands under the name now; it has to be unchanged when the write goes out.
        replaces: Option<Credential>,
    },
    /// Delete the credential.
    Delete {
        /// What stands under the name; it has to be unchanged when the write goes out.
        credential: Credential,
        /// The name of a credential that has to stand before: the trust goes over to it.
        after: Option<String>,
    },
}

impl CredentialWrite {
    /// The name of the credential that the step writes.
    pub fn name(&self) -> &str {
        let (Self::Put { credential, .. } | Self::Delete { credential, .. }) = self;
        &credential.name
    }

    /// Whether what has to stand before the step does. If it does not, no later step may go either.
    pub fn may_go(&self, standing: &[Credential]) -> bool {
        match self {
            Self::Delete { after: Some(name), .. } => standing.iter().any(|credential| credential.name == *name),
            Self::Delete { after: None, .. } | Self::Put { .. } => true,
        }
    }
}

/// Where a wanted subject stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustState {
    /// A credential gives the trust.
    Given {
        /// Its name.
        name: String,
        /// Whether Ensign made it.
        origin: CredentialOrigin,
    },
    /// A step of the plan will give the trust.
    Planned {
        /// The name of the credential to come.
        name: String,
    },
    /// The trust can't be given.
    Blocked {
        /// Why.
        reason: Reason,
        /// Who has to do what.
        message: String,
    },
}

/// What to write, in order, and where each wanted subject stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Writes, in the order in which they have to go out, one at a time.
    pub steps: Vec<CredentialWrite>,
    /// Where each wanted subject stands.
    pub standings: BTreeMap<Subject, TrustState>,
    /// The credentials that stand now, counted.
    pub counts: CredentialCounts,
}

/// Plans the writes that bring Azure to what is wanted. Applying the plan and planning again gives no steps, unless
/// something was repaired: a credential of a former issuer gives way to it only once it stands.
pub fn plan(inputs: &Inputs<'_>) -> Plan {
    let recorded: Vec<&str> = inputs.retiring_issuers.iter().map(|(issuer, _)| *issuer).collect();
    let (ours, others): (Vec<&Credential>, Vec<&Credential>) = inputs
        .existing
        .iter()
        .partition(|credential| inputs.cluster.owner(credential, &recorded) == Owner::ThisCluster);
    let counts = count(inputs, &recorded);
    let wanted_subjects: BTreeSet<String> = inputs.wanted.iter().map(|wanted| wanted.subject.to_string()).collect();

    let mut standings = BTreeMap::new();
    let mut puts = Vec::new();
    let mut lacking = Vec::new();
    for wanted in inputs.wanted {
        match stand(inputs, wanted, &ours, &others) {
            Found::Standing(standing) => drop(standings.insert(wanted.subject.clone(), standing)),
            Found::Repair(step, name) => {
                standings.insert(wanted.subject.clone(), TrustState::Planned { name });
                puts.push(step);
            }
            Found::Lacking(step) => lacking.push((wanted, step)),
        }
    }
    let (kept, unwanted): (Vec<&Credential>, Vec<&Credential>) =
        ours.iter().partition(|credential| keeps(inputs, credential, &wanted_subjects));
    let mut deletes: Vec<CredentialWrite> = unwanted
        .iter()
        .map(|unwanted| CredentialWrite::Delete { credential: (*unwanted).clone(), after: None })
        .collect();

    // Who has a free slot, then who gets one that a credential of a former issuer gives up.
    let limit = MAX_CREDENTIALS_PER_IDENTITY as usize;
    // What is repaired under a name of ours was not counted as ours before.
    let repairs = |put: &&CredentialWrite| matches!(put, CredentialWrite::Put { replaces: Some(there), .. } if others.contains(&there));
    let share = (inputs.max_credentials as usize).saturating_sub(puts.iter().filter(repairs).count());
    let share = share.min(limit.saturating_sub(others.len()));
    let room = share.saturating_sub(kept.len()).min(lacking.len());
    let former: Vec<&Credential> =
        kept.iter().copied().filter(|credential| credential.issuer != inputs.cluster.issuer).collect();
    // Who has trust to lose comes first.
    lacking.sort_by_key(|(wanted, _)| {
        let subject = wanted.subject.to_string();
        former.iter().all(|credential| credential.subject != subject)
    });
    let short = lacking.split_off(room);
    let free_afterwards = limit.saturating_sub(kept.len() + others.len() + room);
    let mut swaps = Rollover::new(former, free_afterwards);
    for (subject, standing) in &standings {
        if let TrustState::Given { name, .. } = standing {
            swaps.cover(&subject.to_string(), name);
        }
    }
    let mut waiting = Vec::new();
    for (wanted, step) in short {
        let over_share = kept.len() > share && !swaps.has_former(&wanted.subject.to_string());
        let covered = if over_share { None } else { swaps.next_covered() };
        match covered {
            Some(covered) => {
                deletes.push(covered.give_way());
                lacking.push((wanted, step));
            }
            None => waiting.push((wanted, step, over_share)),
        }
    }
    for (wanted, step) in &lacking {
        standings.insert(wanted.subject.clone(), TrustState::Planned { name: step.name().to_owned() });
        swaps.cover(&wanted.subject.to_string(), step.name());
    }
    puts.extend(lacking.into_iter().map(|(_, step)| step));
    let mut steps = order(puts, deletes, limit.saturating_sub(inputs.existing.len()));
    for (wanted, step, over_share) in waiting {
        let name = step.name().to_owned();
        let swapped = if over_share { None } else { swaps.swap(&wanted.subject.to_string(), &name, step) };
        let standing = match swapped {
            Some(swap) => {
                steps.extend(swap);
                TrustState::Planned { name }
            }
            None => quota_exceeded(inputs, counts),
        };
        standings.insert(wanted.subject.clone(), standing);
    }
    let mut plan = Plan { steps, standings, counts };
    if inputs.policy == CredentialPolicy::Observe {
        observe(inputs, &mut plan);
    }
    plan
}

enum Found {
    Standing(TrustState),
    Repair(CredentialWrite, String),
    Lacking(CredentialWrite),
}

fn stand(inputs: &Inputs<'_>, wanted: &Wanted, ours: &[&Credential], others: &[&Credential]) -> Found {
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
            Found::Standing(TrustState::Given { name, origin: CredentialOrigin::Created })
        } else {
            // Its name may be that of the cluster's previous ID; Azure would not take the same trust twice.
            let credential = Credential { name: name.clone(), ..desired };
            Found::Repair(CredentialWrite::Put { credential, replaces: Some((*mine).clone()) }, name)
        };
    }
    if let Some(foreign) = others.iter().find(same_trust) {
        let right_audience = foreign.audiences == desired.audiences;
        return Found::Standing(if right_audience {
            TrustState::Given { name: foreign.name.clone(), origin: CredentialOrigin::Adopted }
        } else {
            wrong_audience(inputs.identity, foreign, &desired)
        });
    }
    if let Some(occupant) = others.iter().find(|other| other.name == desired.name) {
        // Only a name that Ensign is known to have written may be overwritten: somebody edited our credential.
        // Not even then if somebody else who is wanted has come to depend on it.
        let depends =
            |other: &Wanted| occupant.issuer == desired.issuer && occupant.subject == other.subject.to_string();
        let written_by_us = wanted.recorded_name.as_ref() == Some(&desired.name) && !inputs.wanted.iter().any(depends);
        return if written_by_us {
            let name = desired.name.clone();
            Found::Repair(CredentialWrite::Put { credential: desired, replaces: Some((*occupant).clone()) }, name)
        } else {
            Found::Standing(name_taken(inputs.identity, occupant))
        };
    }
    Found::Lacking(CredentialWrite::Put { credential: desired, replaces: None })
}

/// Whether one of our own credentials stays.
fn keeps(inputs: &Inputs<'_>, credential: &Credential, wanted: &BTreeSet<String>) -> bool {
    let expired = inputs.retiring_issuers.iter().any(|(issuer, expired)| *issuer == credential.issuer && *expired);
    let current = credential.issuer == inputs.cluster.issuer;
    wanted.contains(&credential.subject) && (current || !expired)
}

/// Puts go first while they fit; a delete goes before the puts that need its slot.
fn order(puts: Vec<CredentialWrite>, deletes: Vec<CredentialWrite>, mut free: usize) -> Vec<CredentialWrite> {
    let mut steps = Vec::new();
    let mut deletes = deletes.into_iter();
    for put in puts {
        let takes_slot = matches!(put, CredentialWrite::Put { replaces: None, .. });
        if takes_slot && free == 0 {
            steps.extend(deletes.next());
            free += 1;
        }
        free -= usize::from(takes_slot);
        steps.push(put);
    }
    steps.extend(deletes);
    steps
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

/// `Observe` never writes: what a write would have given is said to be missing.
fn observe(inputs: &Inputs<'_>, plan: &mut Plan) {
    for step in std::mem::take(&mut plan.steps) {
        let CredentialWrite::Put { credential, .. } = step else { continue };
        if let Some(subject) = Subject::parse(&credential.subject) {
            let message = format!(
                "credentialPolicy is Observe and no federated identity credential trusts {subject}: run {}",
                az_create(inputs.identity, &credential)
            );
            plan.standings.insert(subject, TrustState::Blocked { reason: Reason::CredentialMissing, message });
        }
    }
}

fn quota_exceeded(inputs: &Inputs<'_>, counts: CredentialCounts) -> TrustState {
    let CredentialCounts { this_cluster, other_clusters, foreign, limit } = counts;
    let total = this_cluster + other_clusters + foreign;
    let share = inputs.max_credentials;
    let cure = if total < limit {
        format!(
            "this cluster's share is {share}: a cluster operator has to raise spec.existing.maxCredentials, or delete a binding"
        )
    } else {
        "delete a binding, remove a credential in Azure, or use another identity".to_owned()
    };
    let message = format!(
        "{total}/{limit} federated identity credentials under {}: this cluster {this_cluster}, other clusters {other_clusters}, by hand {foreign}; {cure}",
        inputs.identity
    );
    TrustState::Blocked { reason: Reason::QuotaExceeded, message }
}

fn wrong_audience(identity: &ArmId, found: &Credential, desired: &Credential) -> TrustState {
    let message = format!(
        "federated identity credential {} already trusts {} but for audience {:?} instead of {:?}, and Ensign did not make it: remove it with {}",
        found.name,
        found.subject,
        found.audiences.join(", "),
        desired.audiences.join(", "),
        az_delete(identity, &found.name)
    );
    TrustState::Blocked { reason: Reason::CredentialConflict, message }
}

fn name_taken(identity: &ArmId, occupant: &Credential) -> TrustState {
    let message = format!(
        "federated identity credential {} has the name that Ensign needs but trusts {:?} of issuer {:?}, and Ensign did not write that: remove it with {}",
        occupant.name,
        occupant.subject,
        occupant.issuer,
        az_delete(identity, &occupant.name)
    );
    TrustState::Blocked { reason: Reason::CredentialConflict, message }
}

/// The command that deletes a credential by hand.
pub fn az_delete(identity: &ArmId, name: &str) -> String {
    format!(
        "`az identity federated-credential delete --subscription {} --resource-group {} --identity-name {} --name {name} --yes`",
        identity.subscription(),
        identity.resource_group(),
        identity.name()
    )
}

fn az_create(identity: &ArmId, credential: &Credential) -> String {
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
