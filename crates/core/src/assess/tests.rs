use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::credentials::names::Subject;
use ensign_api::conditions::{ConditionType, Reason, find};
use ensign_api::keys::CREDENTIALS_FINALIZER;

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
        settle: Duration::ZERO,
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

/// One identity, one binding, one namespace: the plain case, which each test changes a little.
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
        let plain_identity = json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentity",
            "metadata": {"name": "orders", "uid": "mi", "generation": 1, "creationTimestamp": STAMP},
            "spec": {
                "existing": {"resourceID": ID},
                "allowedSubjects": [{"name": "team", "namespace": "shop", "serviceAccounts": ["app"]}],
            },
        });
        let plain_binding = json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityBinding",
            "metadata": {"name": "app", "namespace": "shop", "uid": "mib", "generation": 1, "creationTimestamp": STAMP},
            "spec": {"identityRef": {"name": "orders"}, "serviceAccountName": "app"},
        });
        Self {
            identity: object(merged(plain_identity, identity)),
            binding: object(merged(plain_binding, binding)),
            observed: Observed {
                identity: Some(Ok(azure_identity())),
                credentials: Some(Ok(Vec::new())),
                ..Observed::default()
            },
            settings: settings(),
            terminating: false,
        }
    }

    /// The world after its outcome was written, as a new reconcile finds it.
    pub(super) fn settled(mut self) -> Self {
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

    fn list_fails(mut self, reason: Reason) -> Self {
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
    Failure { reason, message: "Azure said so".into(), retry_after: None }
}

#[test]
fn a_new_binding_is_planned_with_its_cause_and_both_finalizers() {
    let assessment = World::new().assess();
    let cause = Cause { namespace: "shop".into(), binding: "app".into(), uid: "mib".into(), grant: "team".into() };
    assert_eq!(
        assessment.steps,
        [PlannedStep { step: CredentialWrite::Put { credential: ours(), replaces: None }, cause: Some(cause) }]
    );
    assert_eq!(assessment.identities[0].finalizer, Finalizer::Require);
    assert_eq!(assessment.bindings[0].finalizer, Finalizer::Require);
    assert_eq!(assessment.identities[0].status.issuers[0].url, "https://issuer.example/1");
}

#[test]
fn ready_is_true_only_once_azure_has_the_credential() {
    assert_eq!(World::new().ready(), is("False", "CredentialPending"));
    let mut world = World::new();
    world.observed.credentials = Some(Ok(vec![ours()]));
    assert_eq!(world.ready(), is("True", "Ready"));
}

#[test]
fn a_settled_world_assessed_again_changes_nothing() {
    let world = World::new().settled();
    let assessment = world.assess_at("2027-01-01T00:00:00Z".parse().unwrap());
    assert_eq!(assessment.steps, []);
    assert_eq!(Some(&assessment.identities[0].status), world.identity.status.as_ref());
    assert_eq!(Some(&assessment.bindings[0].status), world.binding.status.as_ref());
    assert_eq!(assessment.bindings[0].notes, []);
}

#[test]
fn a_failed_write_is_said_in_its_own_words() {
    let mut world = World::new();
    world.observed.write_failures = [(ours().name, failure(Reason::ResourceLocked))].into();
    assert_eq!(world.ready(), is("False", "ResourceLocked"));
    assert_eq!(world.identity_ready(), is("False", "ResourceLocked"));
}

#[test]
fn what_azure_confirmed_stands_while_azure_is_away() {
    for reason in [Reason::AzureUnavailable, Reason::Throttled, Reason::Forbidden, Reason::CredentialUnavailable] {
        let world = World::new().settled().list_fails(reason);
        assert_eq!(world.ready(), is("True", "Ready"), "{reason}");
        assert_eq!(world.assess().bindings[0].status.client_id.as_deref(), Some("client"), "{reason}");
        assert_eq!(world.assess().steps, []);
    }
    let forbidden = World::new().settled().list_fails(Reason::Forbidden);
    assert_eq!(forbidden.identity_ready(), is("False", "Forbidden"), "but the operator is told");
}

fn waits_for_its_turn() -> Deferral {
    Deferral::Paced { wait: Duration::from_secs(4) }
}

fn message(assessment: &Assessment, kind: ConditionType) -> String {
    find(&assessment.bindings[0].status.conditions, kind).unwrap().message.clone()
}

#[test]
fn a_write_that_waits_for_its_turn_is_no_problem_and_says_so() {
    let mut world = World::new();
    world.observed.postponed = Some(waits_for_its_turn());
    assert_eq!(world.ready(), is("False", "CredentialPending"));
    let assessment = world.assess();
    assert!(message(&assessment, ConditionType::CredentialReady).contains("limits"), "{assessment:?}");
    assert_eq!(assessment.bindings[0].notes, [], "no event");
}

#[test]
fn azure_that_was_not_asked_is_not_known_and_what_it_confirmed_stands() {
    let mut world = World::new();
    (world.observed.identity, world.observed.credentials) = (None, None);
    world.observed.postponed = Some(waits_for_its_turn());
    assert_eq!(world.ready(), is("False", "Pending"));
    assert!(message(&world.assess(), ConditionType::IdentityResolved).contains("limits"));
    let mut settled = World::new().settled();
    settled.observed.credentials = None;
    settled.observed.postponed = Some(waits_for_its_turn());
    assert_eq!(settled.ready(), is("True", "Ready"));
    assert_eq!(Some(&settled.assess().bindings[0].status), settled.binding.status.as_ref(), "status does not churn");
}

#[test]
fn a_deletion_that_waits_for_its_turn_says_so_and_holds_the_binding() {
    let mut world = World::new().settled().delete_binding();
    world.observed.credentials = Some(Ok(vec![ours()]));
    world.observed.postponed = Some(waits_for_its_turn());
    let assessment = world.assess();
    assert_eq!(world.ready(), is("False", "Deleting"));
    assert_eq!((assessment.bindings[0].finalizer, assessment.bindings[0].notes.len()), (Finalizer::Keep, 0));
    world.observed.credentials = Some(Ok(Vec::new()));
    assert_eq!(world.assess().bindings[0].finalizer, Finalizer::Release);
    assert_eq!(
        Some(&world.assess().bindings[0].status),
        world.binding.status.as_ref(),
        "nothing more is written to it"
    );
}

#[test]
fn a_write_that_waits_for_a_look_at_the_identity_says_why() {
    let mut world = World::new().settled();
    world.observed.credentials = Some(Ok(Vec::new()));
    world.observed.identity = Some(Err(failure(Reason::AzureUnavailable)));
    assert!(!world.observed.may_write());
    assert_eq!(world.ready(), is("False", "AzureUnavailable"));
}

#[test]
fn what_passes_by_itself_says_when_to_try_again() {
    let mut world = World::new();
    world.observed.write_failures =
        [("a".into(), failure(Reason::ResourceLocked)), ("b".into(), failure(Reason::Throttled))].into();
    assert_eq!(world.observed.decisive_failure().map(|failure| failure.reason), Some(Reason::Throttled));
}

#[test]
fn an_identity_that_went_is_no_longer_resolved_and_one_that_comes_back_is_planned_again() {
    let gone = World::new().settled().list_fails(Reason::IdentityNotFound);
    assert_eq!(gone.ready(), is("False", "IdentityNotFound"));
    assert_eq!(gone.assess().bindings[0].status.client_id, None);
    let mut back = gone;
    back.binding.status = Some(back.assess().bindings[0].status.clone());
    back.observed.identity = Some(Ok(AzureIdentity { client_id: "new".into(), ..azure_identity() }));
    back.observed.credentials = Some(Ok(Vec::new()));
    assert_eq!(back.assess().steps.len(), 1);
    assert_eq!(back.assess().bindings[0].status.client_id.as_deref(), Some("new"));
}

#[test]
fn an_identity_of_another_tenant_is_refused() {
    let mut world = World::new();
    world.observed.identity = Some(Ok(AzureIdentity { tenant_id: "other".into(), ..azure_identity() }));
    assert_eq!(world.ready(), is("False", "TenantMismatch"));
    assert_eq!(world.assess().steps, []);
}

#[test]
fn an_issuer_that_entra_cannot_reach_stops_every_write() {
    let mut world = World::new().settled();
    world.settings.issuer_refusal = Some("not public".into());
    world.observed.credentials = Some(Ok(vec![ours()]));
    assert_eq!(world.ready(), is("False", "IssuerNotPublic"));
    assert_eq!(world.assess().steps, []);
}

#[test]
fn an_issuer_that_entra_cannot_reach_does_not_stop_a_revocation() {
    let mut world = World::new().settled().delete_binding();
    world.settings.cluster.issuer = "https://kubernetes.default.svc".into();
    world.settings.issuer_refusal = Some("not public".into());
    world.observed.credentials = Some(Ok(vec![ours()]));
    let assessment = world.assess();
    let delete = PlannedStep { step: CredentialWrite::Delete { credential: ours(), after: None }, cause: None };
    assert_eq!(assessment.steps, [delete]);
    assert_eq!(assessment.bindings[0].finalizer, Finalizer::Keep);
    world.observed.credentials = Some(Ok(Vec::new()));
    assert_eq!(world.assess().bindings[0].finalizer, Finalizer::Release);
}

/// What a cluster with this cluster's ID and another issuer wrote.
fn of_a_clone() -> Credential {
    let clone = Cluster { issuer: "https://issuer.example/clone".into(), ..settings().cluster };
    let subject = Subject::new("shop", "app");
    Credential { name: clone.credential_name(&subject), issuer: clone.issuer, ..ours() }
}

#[test]
fn a_copied_cluster_id_is_said_once_and_nothing_of_the_other_cluster_is_touched() {
    let mut world = World::new().settled();
    world.observed.credentials = Some(Ok(vec![ours(), of_a_clone()]));
    let assessment = world.assess();
    assert_eq!(assessment.steps, []);
    let outcome = &assessment.identities[0];
    let said = |status: &ManagedIdentityStatus, kind| find(&status.conditions, kind).cloned();
    let unique = said(&outcome.status, ConditionType::ClusterIDUnique).unwrap();
    assert_eq!((unique.status.as_str(), unique.reason.as_str()), ("False", "ClusterIDShared"));
    assert!(unique.message.contains("https://issuer.example/clone"), "{}", unique.message);
    assert_eq!(said(&outcome.status, ConditionType::Ready).unwrap().status, "True");
    assert_eq!(said(&outcome.status, ConditionType::Stalled), None);
    assert_eq!(outcome.notes[0].reason, Reason::ClusterIDShared);
    assert_eq!(outcome.status.credentials.unwrap().other_clusters, 1);

    world.identity.status = Some(outcome.status.clone());
    assert_eq!(world.assess().identities[0].notes, []);
    let unreachable = world.list_fails(Reason::AzureUnavailable);
    let kept = said(&unreachable.assess().identities[0].status, ConditionType::ClusterIDUnique);
    assert_eq!(kept.map(|condition| condition.message), Some(unique.message));
}

#[test]
fn the_upstreams_webhook_beside_ours_is_said_once_and_stands_while_it_is_not_known() {
    let mut world = World::new().settled();
    world.observed.upstream_webhook = Some(true);
    let assessment = world.assess();
    let outcome = &assessment.identities[0];
    let said = |status: &ManagedIdentityStatus, kind| find(&status.conditions, kind).cloned();
    let absent = said(&outcome.status, ConditionType::UpstreamWebhookAbsent).unwrap();
    assert_eq!((absent.status.as_str(), absent.reason.as_str()), ("False", "UpstreamWebhookPresent"));
    assert_eq!(said(&outcome.status, ConditionType::Ready).unwrap().status, "True");
    assert_eq!(outcome.notes[0].reason, Reason::UpstreamWebhookPresent);

    world.identity.status = Some(outcome.status.clone());
    for known in [Some(true), None] {
        world.observed.upstream_webhook = known;
        let again = &world.assess().identities[0];
        assert_eq!((&again.status.conditions, again.notes.len()), (&outcome.status.conditions, 0), "{known:?}");
    }
    world.observed.upstream_webhook = Some(false);
    assert_eq!(said(&world.assess().identities[0].status, ConditionType::UpstreamWebhookAbsent), None);
}

#[test]
fn a_changed_issuer_is_trusted_beside_the_former_one_until_its_last_token_has_expired() {
    let mut world = World::new().settled();
    world.settings.cluster.issuer = "https://issuer.example/2".into();
    let subject = Subject::new("shop", "app");
    let new = Credential {
        name: world.settings.cluster.credential_name(&subject),
        issuer: "https://issuer.example/2".into(),
        ..ours()
    };
    world.observed.credentials = Some(Ok(vec![ours()]));
    let assessment = world.assess();
    let steps: Vec<_> = assessment.steps.iter().map(|planned| &planned.step).collect();
    assert_eq!(steps, [&CredentialWrite::Put { credential: new.clone(), replaces: None }]);
    let status = &assessment.identities[0].status;
    assert_eq!(status.issuers.len(), 2, "both are recorded before the write");

    world.identity.status = Some(status.clone());
    world.observed.credentials = Some(Ok(vec![ours(), new.clone()]));
    let later = |seconds: i64| STAMP.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds);
    let longest = i64::from(world.identity.spec.max_token_expiration_seconds);
    assert_eq!(world.assess_at(later(longest - 1)).steps, []);
    let expired = world.assess_at(later(longest));
    let delete = PlannedStep { step: CredentialWrite::Delete { credential: ours(), after: None }, cause: None };
    assert_eq!(expired.steps, [delete]);
    assert_eq!(expired.identities[0].status.issuers.len(), 2, "known as ours until it is gone");
    world.observed.credentials = Some(Ok(vec![new]));
    assert_eq!(world.assess_at(later(longest)).identities[0].status.issuers.len(), 1);
}

#[test]
fn a_revoked_grant_deletes_and_tells_the_binding_nothing_about_the_identity() {
    let mut world = World::new().settled();
    world.identity.spec.allowed_subjects.clear();
    let assessment = world.assess();
    assert_eq!(
        assessment.steps,
        [PlannedStep { step: CredentialWrite::Delete { credential: ours(), after: None }, cause: None }]
    );
    let status = &assessment.bindings[0].status;
    assert_eq!((status.client_id.as_ref(), status.credential.as_ref()), (None, None));
    assert_eq!(assessment.bindings[0].notes[0].reason, Reason::NotAllowed);
}

#[test]
fn a_revoked_grant_over_a_credential_by_hand_says_that_trust_remains_and_how_to_end_it() {
    let mut world = World::new();
    world.identity.spec.allowed_subjects.clear();
    world.observed.credentials = Some(Ok(vec![by_hand()]));
    let assessment = world.assess();
    assert_eq!(assessment.steps, [], "what is not ours stays");
    let conditions = &assessment.bindings[0].status.conditions;
    assert_eq!(condition(conditions, ConditionType::TrustRevoked), is("False", "ForeignCredential"));
    let message = &find(conditions, ConditionType::TrustRevoked).unwrap().message;
    assert!(message.contains("az identity federated-credential delete") && message.contains("by-hand"), "{message}");
    let told: Vec<_> = assessment.bindings[0].notes.iter().map(|note| note.reason).collect();
    assert_eq!(told, [Reason::ForeignCredential, Reason::NotAllowed]);
}

#[test]
fn a_binding_that_is_deleted_waits_for_its_credential_to_go() {
    let world = World::new().settled().delete_binding();
    let assessment = world.assess();
    assert_eq!(assessment.steps.len(), 1);
    assert_eq!(assessment.bindings[0].finalizer, Finalizer::Keep);
    let mut done = world;
    done.observed.credentials = Some(Ok(Vec::new()));
    assert_eq!(done.assess().bindings[0].finalizer, Finalizer::Release);
}

#[test]
fn a_deletion_that_azure_does_not_confirm_is_blocked_and_says_the_way_out() {
    for reason in [Reason::AzureUnavailable, Reason::Forbidden] {
        let binding = World::new().settled().delete_binding().list_fails(reason);
        assert_eq!(binding.assess().bindings[0].finalizer, Finalizer::Keep);
        assert_eq!(binding.ready(), is("False", "DeletionBlocked"));
        let identity = World::new().settled().delete_identity().list_fails(reason);
        assert_eq!(identity.assess().identities[0].finalizer, Finalizer::Keep);
        assert_eq!(identity.identity_ready(), is("False", "DeletionBlocked"));
    }
}

#[test]
fn an_identity_that_azure_does_not_have_holds_nobody() {
    let binding = World::new().settled().delete_binding().list_fails(Reason::IdentityNotFound);
    assert_eq!(binding.assess().bindings[0].finalizer, Finalizer::Release);
    let identity = World::new().settled().delete_identity().list_fails(Reason::IdentityNotFound);
    assert_eq!(identity.assess().identities[0].finalizer, Finalizer::Release);
}

#[test]
fn only_an_operator_can_give_up_what_azure_does_not_confirm() {
    let annotation = json!({"metadata": {"annotations": {"ensign.dev/abandon": "true"}}});
    let away = |world: World| world.settled().delete_binding().list_fails(Reason::AzureUnavailable).assess();
    let by_tenant = away(World::with(&json!({}), &annotation));
    assert_eq!(by_tenant.bindings[0].finalizer, Finalizer::Keep);
    let by_operator = away(World::with(&annotation, &json!({})));
    assert_eq!(by_operator.bindings[0].finalizer, Finalizer::Release);
    assert!(by_operator.bindings[0].notes.iter().any(|note| note.reason == Reason::Abandoned));

    let identity = World::with(&annotation, &json!({})).settled().delete_identity().list_fails(Reason::Forbidden);
    let assessment = identity.assess();
    assert_eq!(assessment.identities[0].finalizer, Finalizer::Release);
    assert!(assessment.identities[0].notes.iter().any(|note| note.reason == Reason::Abandoned));
}

/// The world after its controller was limited to another resource group, in which Azure was not asked any more.
fn out_of_scope(mut world: World) -> World {
    let scope = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg2";
    world.settings.allowed_scopes = AllowedScopes::new([scope.parse().unwrap()]);
    let unasked = world.settings.allowed_scopes.unasked(&ID.parse().unwrap());
    world.observed = Observed { identity: unasked.map(Err), ..Observed::default() };
    world
}

#[test]
fn outside_of_the_allowed_scopes_an_identity_is_refused_and_nothing_is_planned() {
    for world in [out_of_scope(World::new()), out_of_scope(World::new().settled())] {
        let before = world.identity.status.clone().unwrap_or_default();
        let assessment = world.assess();
        assert_eq!(assessment.steps, []);
        let outcome = &assessment.identities[0];
        assert_eq!(condition(&outcome.status.conditions, ConditionType::Accepted), is("False", "ScopeNotAllowed"));
        assert_eq!(world.identity_ready(), is("False", "ScopeNotAllowed"));
        assert_eq!(outcome.status.issuers, before.issuers, "what was written is not forgotten");
        assert_eq!(world.ready(), is("False", "ManagedIdentityNotAccepted"));
        assert_eq!((outcome.finalizer, assessment.bindings[0].finalizer), (Finalizer::Keep, Finalizer::Keep));
    }
}

#[test]
fn outside_of_the_allowed_scopes_a_deletion_waits_until_the_scopes_are_widened_or_an_operator_gives_up() {
    let annotation = json!({"metadata": {"annotations": {"ensign.dev/abandon": "true"}}});
    let binding = out_of_scope(World::new().settled().delete_binding());
    assert_eq!(binding.assess().bindings[0].finalizer, Finalizer::Keep);
    assert_eq!(binding.ready(), is("False", "DeletionBlocked"));
    let conditions = &binding.assess().bindings[0].status.conditions;
    let message = &find(conditions, ConditionType::Ready).unwrap().message;
    assert!(message.contains("--azure-allowed-scopes") && message.contains("ensign.dev/abandon"), "{message}");

    let identity = out_of_scope(World::new().settled().delete_identity());
    assert_eq!(identity.assess().identities[0].finalizer, Finalizer::Keep);
    assert_eq!(identity.identity_ready(), is("False", "DeletionBlocked"));

    let given_up = out_of_scope(World::with(&annotation, &json!({})).settled().delete_binding()).assess();
    assert_eq!(given_up.bindings[0].finalizer, Finalizer::Release);
    assert!(given_up.bindings[0].notes.iter().any(|note| note.reason == Reason::Abandoned));
}

#[test]
fn outside_of_the_allowed_scopes_what_was_never_written_holds_nobody() {
    let binding = out_of_scope(World::new().delete_binding());
    assert_eq!(binding.assess().bindings[0].finalizer, Finalizer::Release);
    let identity = out_of_scope(World::new().delete_identity());
    assert_eq!(identity.assess().identities[0].finalizer, Finalizer::Release);
}

#[test]
fn widened_scopes_let_everything_go_on_where_it_was() {
    let mut world = out_of_scope(World::new().settled());
    let refused = world.assess();
    world.identity.status = Some(refused.identities[0].status.clone());
    world.binding.status = Some(refused.bindings[0].status.clone());
    world.settings.allowed_scopes = AllowedScopes::default();
    world.observed =
        Observed { identity: Some(Ok(azure_identity())), credentials: Some(Ok(vec![ours()])), ..Observed::default() };
    assert_eq!(world.assess().steps, [], "the credential was there all the time");
    assert_eq!(world.ready(), is("True", "Ready"));
}

#[test]
fn abandoning_does_not_skip_what_azure_can_still_do() {
    let annotation = json!({"metadata": {"annotations": {"ensign.dev/abandon": "true"}}});
    let world = World::with(&annotation, &json!({})).settled().delete_binding();
    let assessment = world.assess();
    assert_eq!(assessment.steps.len(), 1, "Azure answers, so the credential is deleted");
    assert_eq!(assessment.bindings[0].finalizer, Finalizer::Keep);
}

#[test]
fn an_identity_that_is_deleted_takes_every_credential_of_this_cluster_with_it() {
    let mut world = World::new().settled().delete_identity();
    world.observed.credentials = Some(Ok(vec![ours(), by_hand_elsewhere()]));
    let assessment = world.assess();
    assert_eq!(
        assessment.steps,
        [PlannedStep { step: CredentialWrite::Delete { credential: ours(), after: None }, cause: None }]
    );
    assert_eq!(assessment.identities[0].finalizer, Finalizer::Keep);
    let ready = condition(&assessment.bindings[0].status.conditions, ConditionType::Ready);
    assert_eq!(ready, is("False", "ManagedIdentityNotFound"));
}

fn by_hand_elsewhere() -> Credential {
    Credential { name: "other".into(), subject: "repo:org/app".into(), ..ours() }
}

#[test]
fn observe_needs_no_finalizer_and_names_the_command() {
    let world = World::with(&json!({"spec": {"existing": {"credentialPolicy": "Observe"}}}), &json!({}));
    let assessment = world.assess();
    assert_eq!(assessment.steps, []);
    assert_eq!(assessment.bindings[0].finalizer, Finalizer::Keep);
    assert_eq!(assessment.identities[0].finalizer, Finalizer::Keep);
    assert_eq!(world.ready(), is("False", "CredentialMissing"));
}

#[test]
fn a_namespace_that_is_going_away_gets_no_events() {
    let mut world = World::new();
    world.identity.spec.allowed_subjects.clear();
    world.terminating = true;
    assert_eq!(world.assess().bindings[0].notes, []);
}

#[test]
fn a_service_account_is_annotated_only_for_who_asks_and_freed_afterwards() {
    assert_eq!(World::new().settled().assess().bindings[0].annotations, None);
    let asking = json!({"spec": {"injection": {"annotateServiceAccount": true}}});
    let mut world = World::with(&json!({}), &asking).settled();
    let present = Annotations::Present { client_id: "client".into(), tenant_id: TENANT.into() };
    assert_eq!(world.assess().bindings[0].annotations, Some(present));
    world.binding.spec.injection.annotate_service_account = false;
    assert_eq!(world.assess().bindings[0].annotations, Some(Annotations::Absent));
}

#[test]
fn a_clash_over_annotations_is_a_condition_and_no_reason_not_to_be_ready() {
    let asking = json!({"spec": {"injection": {"annotateServiceAccount": true}}});
    let mut world = World::with(&json!({}), &asking).settled();
    let key = ("shop".to_owned(), "app".to_owned());
    world.observed.annotated = [(key, Annotated::Clash("helm owns it".into()))].into();
    let assessment = world.assess();
    let conditions = &assessment.bindings[0].status.conditions;
    assert_eq!(condition(conditions, ConditionType::ServiceAccountAnnotated), is("False", "AnnotationConflict"));
    assert_eq!(condition(conditions, ConditionType::Ready), is("True", "Ready"));
    assert_eq!(assessment.bindings[0].notes[0].reason, Reason::AnnotationConflict);
}
