//! Taking Ensign down: what would be done if every object were being deleted, but the objects stay.

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

/// What becomes of the credentials that this cluster's Ensign wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Disposal {
    /// They are deleted: nobody is trusted through them any more.
    Delete,
    /// They stay, and go on giving trust.
    Abandon,
}

/// What stands in Azure after all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Remaining {
    /// Its name.
    pub name: String,
    /// Who is trusted through it.
    pub subject: String,
    /// By which issuer.
    pub issuer: String,
    /// Whether Ensign wrote it in this cluster.
    pub ours: bool,
    /// The command that deletes it.
    pub command: String,
}

/// What became of one identity in Azure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IdentityReport {
    /// Its ARM ID; empty for bindings to a `ManagedIdentity` that is not there.
    #[serde(rename = "armID")]
    pub arm_id: String,
    /// Names of credentials that were deleted.
    pub deleted: Vec<String>,
    /// What gives trust to service accounts of this cluster all the same.
    pub remaining: Vec<Remaining>,
    /// Whether Azure said what remains; else it is what status says.
    pub asked_azure: bool,
    /// Objects that nothing in Azure holds any more.
    pub released: Vec<String>,
    /// What went wrong, and who has to do what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What became of everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The ID that this cluster's credentials are written with.
    #[serde(rename = "clusterID")]
    pub cluster_id: String,
    /// What was to become of the credentials.
    pub credentials: Disposal,
    /// Whether pods are sent to the webhook or changed by policies no longer.
    pub injection_ended: bool,
    /// Held pods that were let go.
    pub pods_started: usize,
    /// Each identity.
    pub identities: Vec<IdentityReport>,
    /// What went wrong apart from identities.
    pub problems: Vec<String>,
}

impl Report {
    /// Whether nothing is left to do.
    pub fn is_complete(&self) -> bool {
        self.problems.is_empty() && self.identities.iter().all(|identity| identity.problem.is_none())
    }
}

/// The object as if it were being deleted from this moment on.
#[must_use]
pub fn leaving<K: ResourceExt + Clone>(object: &K, now: Timestamp) -> K {
    let mut object = object.clone();
    object.meta_mut().deletion_timestamp.get_or_insert(Time(now));
    object
}

/// What gives trust to this cluster's service accounts, of what stands under an identity.
pub fn remaining(cluster: &Cluster, recorded: &[&str], id: &ArmId, standing: &[Credential]) -> Vec<Remaining> {
    let concerns = |credential: &&Credential| {
        credential.issuer == cluster.issuer || recorded.contains(&credential.issuer.as_str())
    };
    standing
        .iter()
        .filter(concerns)
        .map(|credential| Remaining {
            name: credential.name.clone(),
            subject: credential.subject.clone(),
            issuer: credential.issuer.clone(),
            ours: cluster.owner(credential, recorded) == Owner::ThisCluster,
            command: az_delete(id, &credential.name).trim_matches('`').to_owned(),
        })
        .collect()
}

/// The same as status has it, where Azure does not say.
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

/// The status of a binding whose credential was deleted; `None` if it says nothing of one.
///
/// A status that went on saying `Ready` would let pods start without a working identity when Ensign is installed again,
/// until the controller has looked.
pub fn binding_status(binding: &ManagedIdentityBinding, now: Timestamp) -> Option<ManagedIdentityBindingStatus> {
    let before = binding.status.as_ref()?;
    before.credential.as_ref().filter(|credential| credential.origin == CredentialOrigin::Created)?;
    let mut after = before.clone();
    after.credential = None;
    let kinds = [ConditionType::Ready, ConditionType::CredentialReady];
    after.conditions = torn_down(&before.conditions, &kinds, binding.metadata.generation, now);
    Some(after)
}

/// The status of a `ManagedIdentity` under which this cluster has no credential any more; `None` if that is what it says.
pub fn identity_status(identity: &ManagedIdentity, now: Timestamp) -> Option<ManagedIdentityStatus> {
    let before = identity.status.as_ref()?;
    before.credentials.as_ref().filter(|counts| counts.this_cluster > 0)?;
    let mut after = before.clone();
    if let Some(counts) = &mut after.credentials {
        counts.this_cluster = 0;
    }
    after.conditions = torn_down(&before.conditions, &[ConditionType::Ready], identity.metadata.generation, now);
    Some(after)
}

/// What teardown does not take back: an identity that Ensign made and is to delete, and roles that it gave.
pub fn still_made(name: &str) -> String {
    format!(
        "ManagedIdentity {name} stays: Ensign made its identity, or gave it roles, and takes them back only when the object is deleted. A cluster operator has to delete the bindings on ManagedIdentityClasses and ManagedIdentity {name} while a controller runs, and then run teardown again; or give them up with --credentials abandon"
    )
}

fn torn_down(before: &[Condition], kinds: &[ConditionType], generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    let verdict = Verdict::bad(
        Reason::Uninstalled,
        "Ensign was taken down in this cluster and deleted the federated identity credential: a cluster operator has to install it again",
    );
    let hints = [ConditionType::Reconciling, ConditionType::Stalled];
    let replaced = |condition: &&Condition| kinds.iter().chain(&hints).all(|kind| condition.type_ != kind.as_str());
    let kept = before.iter().filter(replaced).cloned();
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
    /// Somebody has to act first, or it takes too long.
    GiveUp,
}

/// How to go on after `attempt` failures in a row, with so much patience left.
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
    fn a_binding_whose_credential_is_gone_does_not_say_that_it_serves() {
        let after = binding_status(&binding("Created"), now()).unwrap();
        assert_eq!((after.credential, after.client_id.as_deref()), (None, Some("c")));
        let is = |kind| is_true(&after.conditions, kind);
        assert!(!is(ConditionType::Ready) && !is(ConditionType::CredentialReady));
        assert!(is(ConditionType::Accepted) && is(ConditionType::Stalled));
    }

    #[test]
    fn a_binding_that_uses_a_credential_of_somebody_else_goes_on_saying_so() {
        assert_eq!(binding_status(&binding("Adopted"), now()), None);
        let mut said = binding("Created");
        said.status = binding_status(&said, now());
        assert_eq!(binding_status(&said, now()), None, "and it is said once");
    }

    #[test]
    fn an_object_that_is_being_deleted_keeps_its_time() {
        let living = leaving(&binding("Created"), now());
        assert_eq!(living.metadata.deletion_timestamp, Some(Time(now())));
        let later = Timestamp::from_second(1_900_000_000).unwrap();
        assert_eq!(leaving(&living, later).metadata.deletion_timestamp, Some(Time(now())));
    }

    #[test]
    fn what_remains_is_what_this_clusters_issuers_give_and_says_whose_it_is() {
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
        let said = recorded(&ID.parse().unwrap(), [&binding("Created"), &binding("Created")]);
        assert_eq!(said.iter().map(|one| (one.name.as_str(), one.ours)).collect::<Vec<_>>(), [("fic", true)]);
    }

    #[test]
    fn what_passes_by_itself_is_waited_for_and_nothing_else_is() {
        let failure = |reason| Failure { reason, message: String::new(), retry_after: None };
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        assert_eq!(after(&failure(Reason::Throttled), second, minute), Next::Again(second));
        assert_eq!(after(&failure(Reason::Throttled), minute, second), Next::GiveUp);
        assert_eq!(after(&failure(Reason::Forbidden), second, minute), Next::GiveUp);
    }
}
