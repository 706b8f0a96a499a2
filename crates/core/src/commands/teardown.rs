//! `ensign teardown`: the same cleanup as if every object were being deleted, except that the objects stay.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;

use crate::credentials::ownership::{Cluster, Credential, Owner};
use crate::credentials::plan::az_delete;
use crate::failure::Failure;
use ensign_api::conditions::{ConditionType, Reason, Verdict, condition};
use ensign_api::{
    ArmId, CredentialOrigin, ManagedIdentity, ManagedIdentityBinding, ManagedIdentityBindingStatus,
    ManagedIdentityStatus,
};

/// What to do with the credentials that Ensign wrote in this cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Disposal {
    /// Delete them, which revokes the trust.
    Delete,
    /// Keep them; their subjects are still trusted.
    Abandon,
}

/// A credential that remains in Azure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Remaining {
    /// Its name.
    pub name: String,
    /// The subject that it trusts.
    pub subject: String,
    /// The issuer that it trusts.
    pub issuer: String,
    /// Whether Ensign in this cluster wrote it.
    pub ours: bool,
    /// The command that deletes it.
    pub command: String,
}

/// The result for one identity in Azure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IdentityReport {
    /// Its ARM ID; empty for bindings to a `ManagedIdentity` that does not exist.
    #[serde(rename = "armID")]
    pub arm_id: String,
    /// Names of credentials that were deleted.
    pub deleted: Vec<String>,
    /// Remaining credentials that trust service accounts of this cluster.
    pub remaining: Vec<Remaining>,
    /// Whether `remaining` was read from Azure; otherwise it is from the status of bindings.
    pub asked_azure: bool,
    /// Objects whose finalizers were removed.
    pub released: Vec<String>,
    /// What went wrong, and who has to do what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The result of a teardown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The cluster ID.
    #[serde(rename = "clusterID")]
    pub cluster_id: String,
    /// What was to be done with the credentials.
    pub credentials: Disposal,
    /// Whether the webhook and the admission policies no longer inject pods.
    pub injection_ended: bool,
    /// Number of gated pods whose gate was removed.
    pub pods_started: usize,
    /// The result for each identity.
    pub identities: Vec<IdentityReport>,
    /// Problems that do not concern an identity.
    pub problems: Vec<String>,
}

impl Report {
    /// Whether there were no problems.
    pub fn is_complete(&self) -> bool {
        self.problems.is_empty() && self.identities.iter().all(|identity| identity.problem.is_none())
    }
}

/// The object as if its deletion had been requested at `now`.
#[must_use]
pub fn marked_for_deletion<K: ResourceExt + Clone>(object: &K, now: Timestamp) -> K {
    let mut object = object.clone();
    object.meta_mut().deletion_timestamp.get_or_insert(Time(now));
    object
}

/// The existing credentials under an identity that trust service accounts of this cluster.
pub fn remaining(cluster: &Cluster, recorded: &[&str], id: &ArmId, existing: &[Credential]) -> Vec<Remaining> {
    let trusts_this_cluster = |credential: &&Credential| {
        credential.issuer == cluster.issuer || recorded.contains(&credential.issuer.as_str())
    };
    existing
        .iter()
        .filter(trusts_this_cluster)
        .map(|credential| Remaining {
            name: credential.name.clone(),
            subject: credential.subject.clone(),
            issuer: credential.issuer.clone(),
            ours: cluster.owner(credential, recorded) == Owner::ThisCluster,
            command: az_delete(id, &credential.name).trim_matches('`').to_owned(),
        })
        .collect()
}

/// The same from the status of bindings, for when Azure does not respond.
pub fn recorded<'a>(id: &ArmId, bindings: impl IntoIterator<Item = &'a ManagedIdentityBinding>) -> Vec<Remaining> {
    let mut found = BTreeMap::new();
    for status in bindings.into_iter().filter_map(|binding| binding.status.as_ref()) {
        let Some((credential, subject)) = status.credential.as_ref().zip(status.subject.as_ref()) else { continue };
        found.insert(
            credential.name.clone(),
            Remaining {
                name: credential.name.clone(),
                subject: subject.clone(),
                issuer: credential.issuer.clone(),
                ours: credential.origin == CredentialOrigin::Created,
                command: az_delete(id, &credential.name).trim_matches('`').to_owned(),
            },
        );
    }
    found.into_values().collect()
}

/// The status of a binding whose credential was deleted; `None` if it has no credential that Ensign wrote.
///
/// If the status still reported `Ready`, the first pods after a reinstall would start without a working identity.
pub fn binding_status(binding: &ManagedIdentityBinding, now: Timestamp) -> Option<ManagedIdentityBindingStatus> {
    let before = binding.status.as_ref()?;
    before.credential.as_ref().filter(|credential| credential.origin == CredentialOrigin::Created)?;
    let mut after = before.clone();
    after.credential = None;
    let kinds = [ConditionType::Ready, ConditionType::CredentialReady];
    after.conditions = uninstalled(&before.conditions, &kinds, binding.metadata.generation, now);
    Some(after)
}

/// The status of a `ManagedIdentity` whose credentials of this cluster were deleted; `None` if it needs no change.
pub fn identity_status(identity: &ManagedIdentity, now: Timestamp) -> Option<ManagedIdentityStatus> {
    let before = identity.status.as_ref()?;
    before.credentials.as_ref().filter(|counts| counts.this_cluster > 0)?;
    let mut after = before.clone();
    if let Some(counts) = &mut after.credentials {
        counts.this_cluster = 0;
    }
    after.conditions = uninstalled(&before.conditions, &[ConditionType::Ready], identity.metadata.generation, now);
    Some(after)
}

/// The message for an identity that Ensign created or assigned roles to, which teardown does not undo.
pub fn not_released(name: &str) -> String {
    format!(
        "ManagedIdentity {name} is not released: Ensign created its identity or assigned roles to it, and deletes them only together with the object. While a controller runs, a cluster operator has to delete ManagedIdentity {name} and the bindings that reference ManagedIdentityClasses, and then run teardown again; or abandon them with --credentials abandon"
    )
}

fn uninstalled(
    before: &[Condition],
    kinds: &[ConditionType],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let verdict = Verdict::bad(
        Reason::Uninstalled,
        "Ensign was uninstalled from this cluster and deleted the federated identity credential: a cluster operator has to reinstall it",
    );
    let hints = [ConditionType::Reconciling, ConditionType::Stalled];
    let unaffected = |condition: &&Condition| kinds.iter().chain(&hints).all(|kind| condition.type_ != kind.as_str());
    let kept = before.iter().filter(unaffected).cloned();
    let stalled =
        condition(ConditionType::Stalled, &Verdict { status: Some(true), ..verdict.clone() }, generation, before, now);
    let new = kinds.iter().map(|kind| condition(*kind, &verdict, generation, before, now));
    new.chain(kept).chain([stalled]).collect()
}

/// What to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Try again after this time.
    Again(Duration),
    /// Someone has to act first, or the time left is too short.
    GiveUp,
}

/// What to do after `failure`, given the `wait` before the next attempt and the time `left`.
pub fn after(failure: &Failure, wait: Duration, left: Duration) -> Next {
    if failure.is_transient() && wait <= left { Next::Again(wait) } else { Next::GiveUp }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::credentials::names::Subject;
    use ensign_api::conditions::is_true;

    const ID: &str = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders";

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn binding(origin: &str) -> ManagedIdentityBinding {
        let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": kind, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        serde_json::from_value(json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityBinding", "metadata": {"name": "orders", "namespace": "shop"},
            "spec": {"identityRef": {"name": "orders"}, "serviceAccountName": "orders"},
            "status": {
                "subject": "system:serviceaccount:shop:orders", "clientID": "c",
                "credential": {"name": "fic", "issuer": "https://i.example", "origin": origin, "confirmedSince": "2026-01-01T00:00:00Z"},
                "conditions": [condition("Ready"), condition("Accepted"), condition("CredentialReady")],
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_binding_whose_credential_was_deleted_is_not_ready() {
        let after = binding_status(&binding("Created"), now()).unwrap();
        assert_eq!((after.credential, after.client_id.as_deref()), (None, Some("c")));
        let is = |kind| is_true(&after.conditions, kind);
        assert!(!is(ConditionType::Ready) && !is(ConditionType::CredentialReady));
        assert!(is(ConditionType::Accepted) && is(ConditionType::Stalled));
    }

    #[test]
    fn the_status_of_a_binding_with_an_adopted_credential_does_not_change() {
        assert_eq!(binding_status(&binding("Adopted"), now()), None);
        let mut reported = binding("Created");
        reported.status = binding_status(&reported, now());
        assert_eq!(binding_status(&reported, now()), None, "the status is written once");
    }

    #[test]
    fn an_object_that_is_being_deleted_keeps_its_deletion_time() {
        let deleting = marked_for_deletion(&binding("Created"), now());
        assert_eq!(deleting.metadata.deletion_timestamp, Some(Time(now())));
        let later = Timestamp::from_second(1_900_000_000).unwrap();
        assert_eq!(marked_for_deletion(&deleting, later).metadata.deletion_timestamp, Some(Time(now())));
    }

    #[test]
    fn remaining_credentials_are_those_of_this_clusters_issuers_and_name_their_owner() {
        let (audience, issuer) = ("aud".to_owned(), "https://i.example".to_owned());
        let cluster =
            Cluster { id: "one".into(), previous_id: None, issuer: issuer.clone(), audience: audience.clone() };
        let subject = Subject::new("shop", "orders");
        let ours = Credential {
            name: cluster.credential_name(&subject),
            issuer,
            subject: subject.to_string(),
            audiences: vec![audience],
        };
        let by_hand = Credential { name: "by-hand".into(), ..ours.clone() };
        let elsewhere = Credential { issuer: "https://other.example".into(), ..ours.clone() };
        let left = remaining(&cluster, &[], &ID.parse().unwrap(), &[ours, by_hand, elsewhere]);
        assert_eq!(left.iter().map(|one| one.ours).collect::<Vec<_>>(), [true, false]);
        assert!(left[1].command.starts_with("az identity federated-credential delete"), "{left:?}");
        assert!(left[1].command.contains("--name by-hand"), "{left:?}");
        let from_status = recorded(&ID.parse().unwrap(), [&binding("Created"), &binding("Created")]);
        assert_eq!(from_status.iter().map(|one| (one.name.as_str(), one.ours)).collect::<Vec<_>>(), [("fic", true)]);
    }

    #[test]
    fn only_failures_that_are_retried_automatically_are_waited_for() {
        let failure = |reason| Failure { reason, message: String::new(), retry_after: None };
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        assert_eq!(after(&failure(Reason::Throttled), second, minute), Next::Again(second));
        assert_eq!(after(&failure(Reason::Throttled), minute, second), Next::GiveUp);
        assert_eq!(after(&failure(Reason::Forbidden), second, minute), Next::GiveUp);
    }
}
