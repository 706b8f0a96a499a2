use std::time::Duration;

use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::acceptance::claims::Classes;
use crate::acceptance::scopes::AllowedScopes;
use crate::credentials::names::Subject;
use crate::credentials::ownership::{Cluster, Credential};
use crate::credentials::plan::CredentialWrite;
use crate::failure::Failure;
use crate::own_writes::Confirmed;
use crate::scheduling::rate_limiter::Deferral;
use ensign_api::conditions::{ConditionType, find};
use ensign_api::keys::CREDENTIALS_FINALIZER;
use ensign_api::{ManagedIdentityBinding, ManagedIdentityStatus, NamespacedName};

const ID: &str = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders";
const AUDIENCE: &str = "api://AzureADTokenExchange";
const TENANT: &str = "7e000000-0000-4000-8000-00000000007e";
pub(super) const STAMP: &str = "2026-01-01T00:00:00Z";

fn settings() -> Settings {
    Settings {
        cluster: Cluster {
            id: "one".into(),
            previous_id: None,
            issuer: "https://issuer.example/1".into(),
            audience: AUDIENCE.into(),
        },
        issuer_refusal: None,
        tenant_id: Some(TENANT.into()),
        own_client_id: Some("own".into()),
        allowed_scopes: AllowedScopes::default(),
        roles: None,
        propagation_delay: Duration::ZERO,
    }
}

pub(super) fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

pub(super) fn merged(mut base: Value, over: &Value) -> Value {
    match (&mut base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                let before = base.remove(key).unwrap_or(Value::Null);
                base.insert(key.clone(), merged(before, value));
            }
        }
        (base, over) => *base = over.clone(),
    }
    base
}

/// One identity, one binding and one namespace: the base case, which each test modifies.
pub(super) struct World {
    pub(super) identity: ManagedIdentity,
    pub(super) binding: ManagedIdentityBinding,
    pub(super) observed: Observed,
    pub(super) settings: Settings,
    terminating: bool,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(&json!({}), &json!({}))
    }

    pub(super) fn with(identity: &Value, binding: &Value) -> Self {
        let base_identity = json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentity",
            "metadata": {"name": "orders", "uid": "mi", "generation": 1, "creationTimestamp": STAMP},
            "spec": {
                "existing": {"resourceID": ID},
                "allowedSubjects": [{"name": "team", "namespace": "shop", "serviceAccounts": ["app"]}],
            },
        });
        let base_binding = json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityBinding",
            "metadata": {"name": "app", "namespace": "shop", "uid": "mib", "generation": 1, "creationTimestamp": STAMP},
            "spec": {"identityRef": {"name": "orders"}, "serviceAccountName": "app"},
        });
        Self {
            identity: object(merged(base_identity, identity)),
            binding: object(merged(base_binding, binding)),
            observed: Observed {
                identity: Some(Ok(azure_identity())),
                credentials: Some(Ok(Vec::new())),
                ..Observed::default()
            },
            settings: settings(),
            terminating: false,
        }
    }

    /// The same after a completed reconcile.
    pub(super) fn reconciled(mut self) -> Self {
        self.observed.credentials = Some(Ok(vec![ours()]));
        let assessment = self.assess();
        self.identity.status = Some(assessment.identities[0].status.clone());
        self.binding.status = Some(assessment.bindings[0].status.clone());
        self.identity.metadata.finalizers = Some(vec![CREDENTIALS_FINALIZER.into()]);
        self.binding.metadata.finalizers = Some(vec![CREDENTIALS_FINALIZER.into()]);
        self.observed.identity = None;
        self
    }

    fn delete_binding(mut self) -> Self {
        self.binding.metadata.deletion_timestamp = object(json!(STAMP));
        self
    }

    pub(super) fn delete_identity(mut self) -> Self {
        self.identity.metadata.deletion_timestamp = object(json!(STAMP));
        self
    }

    /// Azure confirmed the deletion of the binding's credential, and a LIST no longer has it.
    pub(super) fn deleted_in_azure(&mut self) {
        self.observed.credentials = Some(Ok(Vec::new()));
        self.observed.confirmed.deleted_credentials.insert(ours().name);
    }

    fn with_list_failure(mut self, reason: Reason) -> Self {
        self.observed.credentials = Some(Err(failure(reason)));
        self
    }

    pub(super) fn assess(&self) -> Assessment {
        self.assess_at(STAMP.parse().unwrap())
    }

    pub(super) fn assess_at(&self, now: Timestamp) -> Assessment {
        let labels = BTreeMap::new();
        let namespace = NamespaceSnapshot {
            labels: &labels,
            terminating: self.terminating,
            bindings: vec![&self.binding],
            classes: Classes::default(),
        };
        let snapshot = Snapshot {
            identities: vec![&self.identity],
            namespaces: [("shop", namespace)].into(),
            ..Snapshot::default()
        };
        assess(&snapshot, &self.observed, &self.settings, now)
    }

    pub(super) fn ready(&self) -> (String, String) {
        condition(&self.assess().bindings[0].status.conditions, ConditionType::Ready)
    }

    pub(super) fn identity_ready(&self) -> (String, String) {
        condition(&self.assess().identities[0].status.conditions, ConditionType::Ready)
    }
}

pub(super) fn condition(
    conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition],
    kind: ConditionType,
) -> (String, String) {
    let found = find(conditions, kind).unwrap_or_else(|| panic!("no {kind} in {conditions:?}"));
    (found.status.clone(), found.reason.clone())
}

pub(super) fn is(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

pub(super) fn azure_identity() -> AzureIdentity {
    AzureIdentity {
        arm_id: ID.to_lowercase(),
        client_id: "client".into(),
        principal_id: "principal".into(),
        tenant_id: TENANT.into(),
        location: "westeurope".into(),
        tags: BTreeMap::new(),
        isolation_scope: None,
    }
}

pub(super) fn ours() -> Credential {
    let cluster = settings().cluster;
    let subject = Subject::new("shop", "app");
    Credential {
        name: cluster.credential_name(&subject),
        issuer: cluster.issuer,
        subject: subject.to_string(),
        audiences: vec![AUDIENCE.into()],
    }
}

fn by_hand() -> Credential {
    Credential { name: "by-hand".into(), ..ours() }
}

pub(super) fn failure(reason: Reason) -> Failure {
    Failure { reason, message: "Azure's error".into(), retry_after: None }
}

#[test]
fn a_new_binding_is_planned_with_its_cause_and_requires_both_finalizers() {
    let assessment = World::new().assess();
    let cause = Cause { namespace: "shop".into(), binding: "app".into(), uid: "mib".into(), grant: "team".into() };
    assert_eq!(
        assessment.credential_writes,
        [PlannedCredentialWrite {
            write: CredentialWrite::Put { credential: ours(), replaces: None },
            cause: Some(cause)
        }]
    );
    assert_eq!(assessment.identities[0].finalizer, Finalizer::Require);
    assert_eq!(assessment.bindings[0].finalizer, Finalizer::Require);
    assert_eq!(assessment.identities[0].status.issuers[0].url, "https://issuer.example/1");
}

#[test]
fn a_binding_is_ready_only_once_the_credential_exists() {
    assert_eq!(World::new().ready(), is("False", "CredentialPending"));
    let mut world = World::new();
    world.observed.credentials = Some(Ok(vec![ours()]));
    assert_eq!(world.ready(), is("True", "Ready"));
}

#[test]
fn assessing_again_after_a_completed_reconcile_changes_nothing() {
    let world = World::new().reconciled();
    let assessment = world.assess_at("2027-01-01T00:00:00Z".parse().unwrap());
    assert_eq!(assessment.credential_writes, []);
    assert_eq!(Some(&assessment.identities[0].status), world.identity.status.as_ref());
    assert_eq!(Some(&assessment.bindings[0].status), world.binding.status.as_ref());
    assert_eq!(assessment.bindings[0].events, []);
}

#[test]
fn a_failed_write_is_reported_with_its_reason() {
    let mut world = World::new();
    world.observed.write_failures = [(ours().name, failure(Reason::ResourceLocked))].into();
    assert_eq!(world.ready(), is("False", "ResourceLocked"));
    assert_eq!(world.identity_ready(), is("False", "ResourceLocked"));
}

#[test]
fn what_azure_confirmed_still_holds_while_azure_fails() {
    for reason in [Reason::AzureUnavailable, Reason::Throttled, Reason::Forbidden, Reason::CredentialUnavailable] {
        let world = World::new().reconciled().with_list_failure(reason);
        assert_eq!(world.ready(), is("True", "Ready"), "{reason}");
        assert_eq!(world.assess().bindings[0].status.client_id.as_deref(), Some("client"), "{reason}");
        assert_eq!(world.assess().credential_writes, []);
    }
    let forbidden = World::new().reconciled().with_list_failure(Reason::Forbidden);
    assert_eq!(forbidden.identity_ready(), is("False", "Forbidden"), "but it is reported to the operator");
}

fn rate_limited() -> Deferral {
    Deferral::RateLimited { wait: Duration::from_secs(4) }
}

fn message(assessment: &Assessment, kind: ConditionType) -> String {
    find(&assessment.bindings[0].status.conditions, kind).unwrap().message.clone()
}

#[test]
fn a_rate_limited_write_is_reported_as_pending_without_an_event() {
    let mut world = World::new();
    world.observed.postponed = Some(rate_limited());
    assert_eq!(world.ready(), is("False", "CredentialPending"));
    let assessment = world.assess();
    assert!(message(&assessment, ConditionType::CredentialReady).contains("rate-limit budget"), "{assessment:?}");
    assert_eq!(assessment.bindings[0].events, [], "no event");
}

#[test]
fn without_a_request_to_azure_the_state_is_pending_and_what_was_confirmed_still_holds() {
    let mut world = World::new();
    (world.observed.identity, world.observed.credentials) = (None, None);
    world.observed.postponed = Some(rate_limited());
    assert_eq!(world.ready(), is("False", "Pending"));
    assert!(message(&world.assess(), ConditionType::IdentityResolved).contains("rate-limit budget"));
    let mut reconciled = World::new().reconciled();
    reconciled.observed.credentials = None;
    reconciled.observed.postponed = Some(rate_limited());
    assert_eq!(reconciled.ready(), is("True", "Ready"));
    assert_eq!(
        Some(&reconciled.assess().bindings[0].status),
        reconciled.binding.status.as_ref(),
        "the status does not change"
    );
}

#[test]
fn a_rate_limited_deletion_is_reported_and_keeps_the_finalizer() {
    let mut world = World::new().reconciled().delete_binding();
    world.observed.credentials = Some(Ok(vec![ours()]));
    world.observed.postponed = Some(rate_limited());
    let assessment = world.assess();
    assert_eq!(world.ready(), is("False", "Deleting"));
    assert_eq!((assessment.bindings[0].finalizer, assessment.bindings[0].events.len()), (Finalizer::Keep, 0));
    world.deleted_in_azure();
    assert_eq!(world.assess().bindings[0].finalizer, Finalizer::Release);
    assert_eq!(
        Some(&world.assess().bindings[0].status),
        world.binding.status.as_ref(),
        "nothing more is written to it"
    );
}

#[test]
fn a_write_that_waits_until_the_identity_can_be_read_reports_why() {
    let mut world = World::new().reconciled();
    world.observed.credentials = Some(Ok(Vec::new()));
    world.observed.identity = Some(Err(failure(Reason::AzureUnavailable)));
    assert!(!world.observed.may_write());
    assert_eq!(world.ready(), is("False", "AzureUnavailable"));
}

#[test]
fn a_failure_that_is_retried_automatically_determines_when_to_retry() {
    let mut world = World::new();
    world.observed.write_failures =
        [("a".into(), failure(Reason::ResourceLocked)), ("b".into(), failure(Reason::Throttled))].into();
    assert_eq!(world.observed.decisive_failure().map(|failure| failure.reason), Some(Reason::Throttled));
}

#[test]
fn a_deleted_identity_is_no_longer_resolved_and_a_recreated_one_is_planned_again() {
    let gone = World::new().reconciled().with_list_failure(Reason::IdentityNotFound);
    assert_eq!(gone.ready(), is("False", "IdentityNotFound"));
    assert_eq!(gone.assess().bindings[0].status.client_id, None);
    let mut recreated = gone;
    recreated.binding.status = Some(recreated.assess().bindings[0].status.clone());
    recreated.observed.identity = Some(Ok(AzureIdentity { client_id: "new".into(), ..azure_identity() }));
    recreated.observed.credentials = Some(Ok(Vec::new()));
    assert_eq!(recreated.assess().credential_writes.len(), 1);
    assert_eq!(recreated.assess().bindings[0].status.client_id.as_deref(), Some("new"));
}

#[test]
fn an_identity_in_another_tenant_is_rejected() {
    let mut world = World::new();
    world.observed.identity = Some(Ok(AzureIdentity { tenant_id: "other".into(), ..azure_identity() }));
    assert_eq!(world.ready(), is("False", "TenantMismatch"));
    assert_eq!(world.assess().credential_writes, []);
}

#[test]
fn an_issuer_that_entra_cannot_reach_stops_every_write() {
    let mut world = World::new().reconciled();
    world.settings.issuer_refusal = Some("not public".into());
    world.observed.credentials = Some(Ok(vec![ours()]));
    assert_eq!(world.ready(), is("False", "IssuerNotPublic"));
    assert_eq!(world.assess().credential_writes, []);
}

#[test]
fn an_issuer_that_entra_cannot_reach_does_not_stop_a_revocation() {
    let mut world = World::new().reconciled().delete_binding();
    world.settings.cluster.issuer = "https://kubernetes.default.svc".into();
    world.settings.issuer_refusal = Some("not public".into());
    world.observed.credentials = Some(Ok(vec![ours()]));
    let assessment = world.assess();
    let delete =
        PlannedCredentialWrite { write: CredentialWrite::Delete { credential: ours(), after: None }, cause: None };
    assert_eq!(assessment.credential_writes, [delete]);
    assert_eq!(assessment.bindings[0].finalizer, Finalizer::Keep);
    world.deleted_in_azure();
    assert_eq!(world.assess().bindings[0].finalizer, Finalizer::Release);
}

/// A credential of a cluster that has this cluster's ID and another issuer.
fn of_a_clone() -> Credential {
    let clone = Cluster { issuer: "https://issuer.example/clone".into(), ..settings().cluster };
    let subject = Subject::new("shop", "app");
    Credential { name: clone.credential_name(&subject), issuer: clone.issuer, ..ours() }
}

#[test]
fn a_shared_cluster_id_is_reported_once_and_credentials_of_the_other_cluster_are_not_touched() {
    let mut world = World::new().reconciled();
    world.observed.credentials = Some(Ok(vec![ours(), of_a_clone()]));
    let assessment = world.assess();
    assert_eq!(assessment.credential_writes, []);
    let outcome = &assessment.identities[0];
    let found = |status: &ManagedIdentityStatus, kind| find(&status.conditions, kind).cloned();
    let unique = found(&outcome.status, ConditionType::ClusterIDUnique).unwrap();
    assert_eq!((unique.status.as_str(), unique.reason.as_str()), ("False", "ClusterIDShared"));
    assert!(unique.message.contains("https://issuer.example/clone"), "{}", unique.message);
    assert_eq!(found(&outcome.status, ConditionType::Ready).unwrap().status, "True");
    assert_eq!(found(&outcome.status, ConditionType::Stalled), None);
    assert_eq!(outcome.events[0].reason, Reason::ClusterIDShared);
    assert_eq!(outcome.status.credentials.unwrap().other_clusters, 1);

    world.identity.status = Some(outcome.status.clone());
    assert_eq!(world.assess().identities[0].events, []);
    let unreachable = world.with_list_failure(Reason::AzureUnavailable);
    let kept = found(&unreachable.assess().identities[0].status, ConditionType::ClusterIDUnique);
    assert_eq!(kept.map(|condition| condition.message), Some(unique.message));
}

#[test]
fn the_webhook_of_azure_workload_identity_is_reported_once_and_the_condition_is_kept_while_unknown() {
    let mut world = World::new().reconciled();
    world.observed.upstream_webhook = Some(true);
    let assessment = world.assess();
    let outcome = &assessment.identities[0];
    let found = |status: &ManagedIdentityStatus, kind| find(&status.conditions, kind).cloned();
    let absent = found(&outcome.status, ConditionType::UpstreamWebhookAbsent).unwrap();
    assert_eq!((absent.status.as_str(), absent.reason.as_str()), ("False", "UpstreamWebhookPresent"));
    assert_eq!(found(&outcome.status, ConditionType::Ready).unwrap().status, "True");
    assert_eq!(outcome.events[0].reason, Reason::UpstreamWebhookPresent);

    world.identity.status = Some(outcome.status.clone());
    for known in [Some(true), None] {
        world.observed.upstream_webhook = known;
        let again = &world.assess().identities[0];
        assert_eq!((&again.status.conditions, again.events.len()), (&outcome.status.conditions, 0), "{known:?}");
    }
    world.observed.upstream_webhook = Some(false);
    assert_eq!(found(&world.assess().identities[0].status, ConditionType::UpstreamWebhookAbsent), None);
}

#[test]
fn a_new_issuer_is_trusted_beside_the_former_one_until_the_last_token_of_that_has_expired() {
    let mut world = World::new().reconciled();
    world.settings.cluster.issuer = "https://issuer.example/2".into();
    let subject = Subject::new("shop", "app");
    let new = Credential {
        name: world.settings.cluster.credential_name(&subject),
        issuer: "https://issuer.example/2".into(),
        ..ours()
    };
    world.observed.credentials = Some(Ok(vec![ours()]));
    let assessment = world.assess();
    let writes: Vec<_> = assessment.credential_writes.iter().map(|planned| &planned.write).collect();
    assert_eq!(writes, [&CredentialWrite::Put { credential: new.clone(), replaces: None }]);
    let status = &assessment.identities[0].status;
    assert_eq!(status.issuers.len(), 2, "both are recorded before the write");

    world.identity.status = Some(status.clone());
    world.observed.credentials = Some(Ok(vec![ours(), new.clone()]));
    let later = |seconds: i64| STAMP.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds);
    let longest = i64::from(world.identity.spec.max_token_expiration_seconds);
    assert_eq!(world.assess_at(later(longest - 1)).credential_writes, []);
    let expired = world.assess_at(later(longest));
    let delete =
        PlannedCredentialWrite { write: CredentialWrite::Delete { credential: ours(), after: None }, cause: None };
    assert_eq!(expired.credential_writes, [delete]);
    assert_eq!(expired.identities[0].status.issuers.len(), 2, "recognised as ours until it is deleted");
    world.observed.credentials = Some(Ok(vec![new]));
    let late = world.assess_at(later(longest));
    assert_eq!(late.identities[0].status.issuers.len(), 2, "a single LIST without it may be late");
    world.observed.confirmed.absent_issuers.insert("https://issuer.example/1".into());
    assert_eq!(world.assess_at(later(longest)).identities[0].status.issuers.len(), 1);
}

#[test]
fn a_binding_whose_grant_was_revoked_loses_its_credential_and_learns_nothing_about_the_identity() {
    let mut world = World::new().reconciled();
    world.identity.spec.allowed_subjects.clear();
    let assessment = world.assess();
    assert_eq!(
        assessment.credential_writes,
        [PlannedCredentialWrite { write: CredentialWrite::Delete { credential: ours(), after: None }, cause: None }]
    );
    let status = &assessment.bindings[0].status;
    assert_eq!((status.client_id.as_ref(), status.credential.as_ref()), (None, None));
    assert_eq!(assessment.bindings[0].events[0].reason, Reason::NotAllowed);
}

#[test]
fn after_a_revoked_grant_a_credential_created_by_hand_is_reported_with_the_command_to_delete_it() {
    let mut world = World::new();
    world.identity.spec.allowed_subjects.clear();
    world.observed.credentials = Some(Ok(vec![by_hand()]));
    let assessment = world.assess();
    assert_eq!(assessment.credential_writes, [], "a foreign credential is kept");
    let conditions = &assessment.bindings[0].status.conditions;
    assert_eq!(condition(conditions, ConditionType::TrustRevoked), is("False", "ForeignCredential"));
    let message = &find(conditions, ConditionType::TrustRevoked).unwrap().message;
    assert!(message.contains("az identity federated-credential delete") && message.contains("by-hand"), "{message}");
    let events: Vec<_> = assessment.bindings[0].events.iter().map(|event| event.reason).collect();
    assert_eq!(events, [Reason::ForeignCredential, Reason::NotAllowed]);
}

#[test]
fn the_deletion_of_a_binding_waits_for_that_of_its_credential() {
    let world = World::new().reconciled().delete_binding();
    let assessment = world.assess();
    assert_eq!(assessment.credential_writes.len(), 1);
    assert_eq!(assessment.bindings[0].finalizer, Finalizer::Keep);
    let mut done = world;
    done.deleted_in_azure();
    assert_eq!(done.assess().bindings[0].finalizer, Finalizer::Release);
}

/// The write that deletes what a LIST does not show.
fn deletion_by_name() -> [PlannedCredentialWrite; 1] {
    [PlannedCredentialWrite { write: CredentialWrite::Delete { credential: ours(), after: None }, cause: None }]
}

#[test]
fn a_credential_is_deleted_with_its_binding_although_no_list_shows_it() {
    let mut world = World::new().reconciled().delete_binding();
    for listed in [Ok(Vec::new()), Err(failure(Reason::IdentityNotFound))] {
        world.observed.credentials = Some(listed);
        let assessment = world.assess();
        assert_eq!(assessment.credential_writes, deletion_by_name());
        assert_eq!(assessment.bindings[0].finalizer, Finalizer::Keep);
    }
    // Its status was lost, or never written: then the name is computed.
    world.binding.status = None;
    assert_eq!(world.assess().credential_writes, deletion_by_name());
    let mut both = world.delete_identity();
    assert_eq!(both.assess().identities[0].finalizer, Finalizer::Keep);
    both.observed.confirmed.deleted_credentials.insert(ours().name);
    assert_eq!(both.assess().identities[0].finalizer, Finalizer::Release);
}

#[test]
fn a_credential_is_deleted_with_its_grant_although_no_list_shows_it() {
    let mut world = World::new().reconciled();
    world.identity.spec.allowed_subjects.clear();
    world.observed.credentials = Some(Ok(Vec::new()));
    let assessment = world.assess();
    assert_eq!(assessment.credential_writes, deletion_by_name());
    assert!(assessment.bindings[0].status.credential.is_some(), "it is on record until Azure confirms the deletion");
    world.binding.status = Some(assessment.bindings[0].status.clone());
    assert_eq!(world.assess().credential_writes, deletion_by_name());
    world.deleted_in_azure();
    let assessment = world.assess();
    assert_eq!((assessment.credential_writes.len(), &assessment.bindings[0].status.credential), (0, &None));
    world.binding.status = Some(assessment.bindings[0].status.clone());
    world.observed.confirmed = Confirmed::default();
    assert_eq!(world.assess().credential_writes, [], "nothing is written at rest");
}

#[test]
fn nothing_is_deleted_by_name_for_a_binding_for_which_nothing_was_written() {
    let mut world = World::new().delete_binding();
    world.observed.credentials = Some(Ok(Vec::new()));
    let assessment = world.assess();
    assert_eq!((assessment.credential_writes.len(), assessment.bindings[0].finalizer), (0, Finalizer::Release));
    let mut world = World::new();
    world.observed.credentials = Some(Ok(vec![by_hand()]));
    let adopted = world.assess();
    world.identity.status = Some(adopted.identities[0].status.clone());
    world.binding.status = Some(adopted.bindings[0].status.clone());
    world.binding.metadata.finalizers = Some(vec![CREDENTIALS_FINALIZER.into()]);
    let world = world.delete_binding();
    let assessment = world.assess();
    assert_eq!((assessment.credential_writes.len(), assessment.bindings[0].finalizer), (0, Finalizer::Release));
    let observes = json!({"spec": {"existing": {"credentialPolicy": "Observe"}}});
    let mut world = World::with(&observes, &json!({})).reconciled().delete_binding();
    world.observed.credentials = Some(Ok(Vec::new()));
    assert_eq!(world.assess().credential_writes, []);
}

#[test]
fn a_deletion_that_azure_does_not_confirm_is_blocked() {
    for reason in [Reason::AzureUnavailable, Reason::Forbidden] {
        let binding = World::new().reconciled().delete_binding().with_list_failure(reason);
        assert_eq!(binding.assess().bindings[0].finalizer, Finalizer::Keep);
        assert_eq!(binding.ready(), is("False", "DeletionBlocked"));
        let identity = World::new().reconciled().delete_identity().with_list_failure(reason);
        assert_eq!(identity.assess().identities[0].finalizer, Finalizer::Keep);
        assert_eq!(identity.identity_ready(), is("False", "DeletionBlocked"));
    }
}

#[test]
fn a_missing_identity_blocks_no_deletion() {
    let mut binding = World::new().reconciled().delete_binding().with_list_failure(Reason::IdentityNotFound);
    binding.observed.confirmed.deleted_credentials.insert(ours().name);
    assert_eq!(binding.assess().bindings[0].finalizer, Finalizer::Release);
    let mut identity = World::new().reconciled().delete_identity().with_list_failure(Reason::IdentityNotFound);
    identity.observed.confirmed.deleted_credentials.insert(ours().name);
    assert_eq!(identity.assess().identities[0].finalizer, Finalizer::Release);
}

#[test]
fn only_an_operator_can_abandon_what_azure_does_not_confirm() {
    let annotation = json!({"metadata": {"annotations": {"ensign.dev/abandon": "true"}}});
    let unavailable =
        |world: World| world.reconciled().delete_binding().with_list_failure(Reason::AzureUnavailable).assess();
    let by_tenant = unavailable(World::with(&json!({}), &annotation));
    assert_eq!(by_tenant.bindings[0].finalizer, Finalizer::Keep);
    let by_operator = unavailable(World::with(&annotation, &json!({})));
    assert_eq!(by_operator.bindings[0].finalizer, Finalizer::Release);
    assert!(by_operator.bindings[0].events.iter().any(|event| event.reason == Reason::Abandoned));

    let identity =
        World::with(&annotation, &json!({})).reconciled().delete_identity().with_list_failure(Reason::Forbidden);
    let assessment = identity.assess();
    assert_eq!(assessment.identities[0].finalizer, Finalizer::Release);
    assert!(assessment.identities[0].events.iter().any(|event| event.reason == Reason::Abandoned));
}

/// The same after the controller was restricted to another resource group, so that no request to Azure was made.
fn out_of_scope(mut world: World) -> World {
    let scope = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg2";
    world.settings.allowed_scopes = AllowedScopes::new([scope.parse().unwrap()]);
    let unasked = world.settings.allowed_scopes.unasked(&ID.parse().unwrap());
    world.observed = Observed { identity: unasked.map(Err), ..Observed::default() };
    world
}

#[test]
fn an_identity_outside_the_allowed_scopes_is_rejected_and_nothing_is_planned() {
    for world in [out_of_scope(World::new()), out_of_scope(World::new().reconciled())] {
        let before = world.identity.status.clone().unwrap_or_default();
        let assessment = world.assess();
        assert_eq!(assessment.credential_writes, []);
        let outcome = &assessment.identities[0];
        assert_eq!(condition(&outcome.status.conditions, ConditionType::Accepted), is("False", "ScopeNotAllowed"));
        assert_eq!(world.identity_ready(), is("False", "ScopeNotAllowed"));
        assert_eq!(outcome.status.issuers, before.issuers, "the record of what was written is kept");
        assert_eq!(world.ready(), is("False", "ManagedIdentityNotAccepted"));
        assert_eq!((outcome.finalizer, assessment.bindings[0].finalizer), (Finalizer::Keep, Finalizer::Keep));
    }
}

#[test]
fn outside_the_allowed_scopes_a_deletion_waits_until_the_scopes_are_widened_or_an_operator_abandons_it() {
    let annotation = json!({"metadata": {"annotations": {"ensign.dev/abandon": "true"}}});
    let binding = out_of_scope(World::new().reconciled().delete_binding());
    assert_eq!(binding.assess().bindings[0].finalizer, Finalizer::Keep);
    assert_eq!(binding.ready(), is("False", "DeletionBlocked"));
    let conditions = &binding.assess().bindings[0].status.conditions;
    let message = &find(conditions, ConditionType::Ready).unwrap().message;
    assert!(message.contains("--azure-allowed-scopes") && message.contains("ensign.dev/abandon"), "{message}");

    let identity = out_of_scope(World::new().reconciled().delete_identity());
    assert_eq!(identity.assess().identities[0].finalizer, Finalizer::Keep);
    assert_eq!(identity.identity_ready(), is("False", "DeletionBlocked"));

    let abandoned = out_of_scope(World::with(&annotation, &json!({})).reconciled().delete_binding()).assess();
    assert_eq!(abandoned.bindings[0].finalizer, Finalizer::Release);
    assert!(abandoned.bindings[0].events.iter().any(|event| event.reason == Reason::Abandoned));
}

#[test]
fn outside_the_allowed_scopes_a_binding_without_a_credential_can_be_deleted() {
    let binding = out_of_scope(World::new().delete_binding());
    assert_eq!(binding.assess().bindings[0].finalizer, Finalizer::Release);
    let identity = out_of_scope(World::new().delete_identity());
    assert_eq!(identity.assess().identities[0].finalizer, Finalizer::Release);
}

#[test]
fn once_the_scopes_are_widened_everything_continues_as_before() {
    let mut world = out_of_scope(World::new().reconciled());
    let rejected = world.assess();
    world.identity.status = Some(rejected.identities[0].status.clone());
    world.binding.status = Some(rejected.bindings[0].status.clone());
    world.settings.allowed_scopes = AllowedScopes::default();
    world.observed =
        Observed { identity: Some(Ok(azure_identity())), credentials: Some(Ok(vec![ours()])), ..Observed::default() };
    assert_eq!(world.assess().credential_writes, [], "the credential still exists");
    assert_eq!(world.ready(), is("True", "Ready"));
}

#[test]
fn abandoning_does_not_skip_deletions_that_are_still_possible() {
    let annotation = json!({"metadata": {"annotations": {"ensign.dev/abandon": "true"}}});
    let world = World::with(&annotation, &json!({})).reconciled().delete_binding();
    let assessment = world.assess();
    assert_eq!(assessment.credential_writes.len(), 1, "Azure responds, so the credential is deleted");
    assert_eq!(assessment.bindings[0].finalizer, Finalizer::Keep);
}

#[test]
fn deleting_an_identity_deletes_every_credential_of_this_cluster() {
    let mut world = World::new().reconciled().delete_identity();
    world.observed.credentials = Some(Ok(vec![ours(), by_hand_elsewhere()]));
    let assessment = world.assess();
    assert_eq!(
        assessment.credential_writes,
        [PlannedCredentialWrite { write: CredentialWrite::Delete { credential: ours(), after: None }, cause: None }]
    );
    assert_eq!(assessment.identities[0].finalizer, Finalizer::Keep);
    let ready = condition(&assessment.bindings[0].status.conditions, ConditionType::Ready);
    assert_eq!(ready, is("False", "ManagedIdentityNotFound"));
}

fn by_hand_elsewhere() -> Credential {
    Credential { name: "other".into(), subject: "repo:org/app".into(), ..ours() }
}

#[test]
fn observe_needs_no_finalizer() {
    let world = World::with(&json!({"spec": {"existing": {"credentialPolicy": "Observe"}}}), &json!({}));
    let assessment = world.assess();
    assert_eq!(assessment.credential_writes, []);
    assert_eq!(assessment.bindings[0].finalizer, Finalizer::Keep);
    assert_eq!(assessment.identities[0].finalizer, Finalizer::Keep);
    assert_eq!(world.ready(), is("False", "CredentialMissing"));
}

#[test]
fn no_events_are_published_in_a_terminating_namespace() {
    let mut world = World::new();
    world.identity.spec.allowed_subjects.clear();
    world.terminating = true;
    assert_eq!(world.assess().bindings[0].events, []);
}

#[test]
fn a_service_account_is_annotated_only_on_request_and_the_annotations_are_removed_afterwards() {
    assert_eq!(World::new().reconciled().assess().bindings[0].annotations, None);
    let annotating = json!({"spec": {"injection": {"annotateServiceAccount": true}}});
    let mut world = World::with(&json!({}), &annotating).reconciled();
    let present = Annotations::Present { client_id: "client".into(), tenant_id: TENANT.into() };
    assert_eq!(world.assess().bindings[0].annotations, Some(present));
    world.binding.spec.injection.annotate_service_account = false;
    assert_eq!(world.assess().bindings[0].annotations, Some(Annotations::Absent));
}

#[test]
fn a_conflict_over_annotations_is_a_condition_that_does_not_affect_ready() {
    let annotating = json!({"spec": {"injection": {"annotateServiceAccount": true}}});
    let mut world = World::with(&json!({}), &annotating).reconciled();
    let key = NamespacedName::new("shop", "app");
    world.observed.annotated = [(key, Annotated::Clash("helm owns it".into()))].into();
    let assessment = world.assess();
    let conditions = &assessment.bindings[0].status.conditions;
    assert_eq!(condition(conditions, ConditionType::ServiceAccountAnnotated), is("False", "AnnotationConflict"));
    assert_eq!(condition(conditions, ConditionType::Ready), is("True", "Ready"));
    assert_eq!(assessment.bindings[0].events[0].reason, Reason::AnnotationConflict);
}
