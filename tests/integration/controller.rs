//! The controller on a real API server, against the emulator.

use ensign_azure_emulator::state::{Credential, DenyPolicy, Lock, LockLevel};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use ensign_testkit::controller_process::OWN_CLIENT_ID;
use ensign_testkit::objects::{Team, condition_of, kubectl, wait_for};

#[test]
fn a_binding_gets_its_credential_and_is_ready() {
    let team = Team::new("plain");
    team.apply(&team.identity());
    team.apply(&team.binding("app", "app"));
    let binding = team.wait_ready("app");
    let subject = format!("system:serviceaccount:{}:app", team.name);
    let status = &binding["status"];
    assert_eq!(status["subject"], subject);
    assert_eq!(status["credential"]["origin"], "Created");
    assert_eq!(status["credential"]["issuer"], team.ensign.control_plane.issuer);
    let name = status["credential"]["name"].as_str().expect("a name").to_owned();
    assert_eq!(team.credentials(), [(name, subject)]);
    assert_eq!(team.arm_writes(), 1);
    let identity = team.wait_condition("mi", &team.name, "Ready", "True", "Ready");
    assert_eq!(identity["status"]["clientID"], status["clientID"]);
    assert_eq!(identity["status"]["credentials"]["thisCluster"], 1);
    assert_eq!(identity["status"]["bindings"], 1);
}

#[test]
fn finalizer_and_issuer_record_precede_the_first_write() {
    let team = Team::new("order");
    team.apply(&team.identity());
    team.apply(&team.binding("app", "app"));
    let binding = team.wait_ready("app");
    assert_eq!(binding["metadata"]["finalizers"], json!(["ensign.dev/credentials"]));
    let identity = team.get("mi", &team.name).expect("the identity");
    assert_eq!(identity["metadata"]["finalizers"], json!(["ensign.dev/credentials"]));
    assert_eq!(identity["status"]["issuers"][0]["url"], team.ensign.control_plane.issuer);
    // The order of arrival, from the audit log and the emulator's log.
    let put = team.ensign.arm_writes(&team.name)[0].time;
    let patched = |kind: &str, name: &str, subresource: Option<&str>| {
        wait_for("the audit record of a patch", || {
            let events = team.ensign.control_plane.audit_events_with(&team.name);
            let found = events.iter().find(|event| {
                event["verb"] == "patch"
                    && event["objectRef"]["resource"] == kind
                    && event["objectRef"]["name"] == name
                    && event["objectRef"]["subresource"].as_str() == subresource
                    && (kind == "managedidentities" || event["objectRef"]["namespace"] == team.name.as_str())
            })?;
            found["requestReceivedTimestamp"].as_str()?.parse::<Timestamp>().ok()
        })
    };
    assert!(patched("managedidentitybindings", "app", None) < put);
    assert!(patched("managedidentities", &team.name, None) < put);
    assert!(patched("managedidentities", &team.name, Some("status")) < put);
}

#[test]
fn deleting_the_binding_deletes_its_credential() {
    let team = Team::new("delete");
    team.apply(&team.identity());
    team.apply(&team.binding("app", "app"));
    team.wait_ready("app");
    team.delete("mib", "app");
    team.wait_deleted("mib", "app");
    assert_eq!(team.credentials(), [], "the binding is deleted only after its credential");
    team.wait_condition("mi", &team.name, "Ready", "True", "Ready");
}

#[test]
fn two_bindings_of_one_service_account_share_a_credential_until_the_last_is_deleted() {
    let team = Team::new("share");
    team.apply(&team.identity());
    team.apply(&team.binding("one", "app"));
    team.apply(&team.binding("two", "app"));
    team.wait_ready("one");
    team.wait_ready("two");
    assert_eq!(team.credentials().len(), 1);
    team.delete("mib", "one");
    team.wait_deleted("mib", "one");
    assert_eq!(team.credentials().len(), 1);
    team.delete("mib", "two");
    team.wait_deleted("mib", "two");
    assert_eq!(team.credentials(), []);
}

#[test]
fn a_binding_without_a_grant_is_rejected_and_nothing_is_written_to_azure() {
    let team = Team::new("denied");
    let mut identity = team.identity();
    identity["spec"]["allowedSubjects"] = json!([]);
    team.apply(&identity);
    team.apply(&team.binding("app", "app"));
    let binding = team.wait_condition("mib", "app", "Accepted", "False", "NotAllowed");
    let accepted = condition_of(&binding, "Accepted").expect("a condition");
    let message = accepted["message"].as_str().expect("a message");
    assert!(message.contains("a cluster operator has to add an entry to its spec.allowedSubjects"), "{message}");
    assert!(message.contains(&format!("service account app of namespace {}", team.name)), "{message}");
    assert_eq!(condition_of(&binding, "Stalled").expect("stalled")["status"], "True");
    assert_eq!(binding["status"].get("clientID"), None, "a rejected binding gets no client ID");
    wait_for("one Warning event", || (team.warnings("app").len() == 1).then_some(()));
    assert_eq!(team.warnings("app")[0].0, "NotAllowed");
    // The identity itself is checked in Azure; after that, everything to be written has been written.
    team.wait_condition("mi", &team.name, "Ready", "True", "Ready");
    assert_eq!(team.arm_writes(), 0);
}

#[test]
fn adding_a_grant_accepts_a_rejected_binding_and_removing_it_revokes_the_trust() {
    let team = Team::new("grant");
    let mut without = team.identity();
    without["spec"]["allowedSubjects"] = json!([]);
    team.apply(&without);
    team.apply(&team.binding("app", "app"));
    team.wait_condition("mib", "app", "Accepted", "False", "NotAllowed");
    team.apply(&team.identity());
    team.wait_ready("app");
    team.apply(&without);
    team.wait_condition("mib", "app", "Accepted", "False", "NotAllowed");
    wait_for("the credential to be revoked", || team.credentials().is_empty().then_some(()));
}

#[test]
fn removing_the_namespace_label_revokes_the_trust() {
    let team = Team::new("label");
    let mut identity = team.identity();
    identity["spec"]["allowedSubjects"] = json!([
        {"name": "preview", "namespaceSelector": {"matchLabels": {"for": team.name}}, "serviceAccounts": ["*"]}
    ]);
    team.apply(&identity);
    team.apply(&team.binding("app", "app"));
    team.wait_condition("mib", "app", "Accepted", "False", "NotAllowed");
    let label = format!("for={}", team.name);
    kubectl(team.ensign.control_plane, &["label", "namespace", &team.name, &label]);
    team.wait_ready("app");
    kubectl(team.ensign.control_plane, &["label", "namespace", &team.name, "for-"]);
    team.wait_condition("mib", "app", "Accepted", "False", "NotAllowed");
    wait_for("the credential to be revoked", || team.credentials().is_empty().then_some(()));
}

#[test]
fn a_binding_before_its_identity_reports_it_and_recovers() {
    let team = Team::new("early");
    team.apply(&team.binding("app", "app"));
    team.wait_condition("mib", "app", "Accepted", "False", "ManagedIdentityNotFound");
    team.apply(&team.identity());
    team.wait_ready("app");
}

#[test]
fn a_binding_whose_identity_does_not_exist_can_be_deleted() {
    let team = Team::new("orphan");
    team.apply(&team.binding("app", "app"));
    team.wait_condition("mib", "app", "Accepted", "False", "ManagedIdentityNotFound");
    team.delete("mib", "app");
    team.wait_deleted("mib", "app");
}

#[test]
fn deleting_the_managed_identity_revokes_its_bindings_first() {
    let team = Team::new("identity");
    team.apply(&team.identity());
    team.apply(&team.binding("app", "app"));
    team.wait_ready("app");
    team.delete("mi", &team.name);
    team.wait_deleted("mi", &team.name);
    assert_eq!(team.credentials(), []);
    team.wait_condition("mib", "app", "Accepted", "False", "ManagedIdentityNotFound");
    team.delete("mib", "app");
    team.wait_deleted("mib", "app");
}

#[test]
fn a_missing_identity_is_reported_and_found_once_it_exists() {
    let team = Team::new("missing");
    let mut identity = team.identity();
    let absent = format!("{}-absent", team.name);
    identity["spec"]["existing"]["resourceID"] = json!(team.ensign.arm_id(&absent));
    team.apply(&identity);
    team.apply(&team.binding("app", "app"));
    let binding = team.wait_condition("mib", "app", "IdentityResolved", "False", "IdentityNotFound");
    assert_eq!(condition_of(&binding, "Stalled").expect("stalled")["reason"], "IdentityNotFound");
    assert_eq!(team.ensign.arm_writes(&absent).len(), 0);
    team.ensign.azure_identity(&absent, None, &[]);
    // Touching the object triggers a check immediately.
    kubectl(team.ensign.control_plane, &["annotate", "mi", &team.name, "looked=again"]);
    team.wait_ready("app");
}

#[test]
fn the_younger_of_two_objects_on_one_identity_is_a_duplicate() {
    let team = Team::new("twins");
    team.apply(&team.identity());
    team.wait_condition("mi", &team.name, "Ready", "True", "Ready");
    let mut twin = team.identity();
    let twin_name = format!("{}-twin", team.name);
    twin["metadata"]["name"] = json!(twin_name);
    let id = team.ensign.arm_id(&team.name).replace("resourceGroups", "RESOURCEGROUPS");
    twin["spec"]["existing"]["resourceID"] = json!(id);
    team.apply(&twin);
    team.wait_condition("mi", &twin_name, "Accepted", "False", "DuplicateIdentity");
    let mut binding = team.binding("app", "app");
    binding["spec"]["identityRef"]["name"] = json!(twin_name);
    team.apply(&binding);
    team.wait_condition("mib", "app", "Accepted", "False", "ManagedIdentityNotAccepted");
    team.delete("mi", &twin_name);
    team.wait_deleted("mi", &twin_name);
    assert_eq!(team.arm_writes(), 0, "the duplicate never writes, not even on deletion");
}

#[test]
fn a_conflict_names_the_winner_and_is_resolved_by_its_deletion() {
    let team = Team::new("conflict");
    let other = Team::new("conflict-other");
    team.apply(&team.identity());
    let mut audit = other.identity();
    audit["spec"]["allowedSubjects"][0]["namespace"] = json!(team.name);
    other.apply(&audit);
    // Between bindings of the same second, the name decides.
    team.apply(&team.binding("a-first", "app"));
    team.wait_ready("a-first");
    let mut second = team.binding("b-second", "app");
    second["spec"]["identityRef"]["name"] = json!(other.name);
    team.apply(&second);
    let binding = team.wait_condition("mib", "b-second", "Accepted", "False", "Conflict");
    let message = condition_of(&binding, "Accepted").expect("a condition")["message"].clone();
    assert!(message.as_str().expect("a message").contains("binding a-first is older"), "{message}");
    assert_eq!(other.arm_writes(), 0);
    team.delete("mib", "a-first");
    team.wait_ready("b-second");
}

#[test]
fn a_credential_created_by_hand_is_adopted_and_unchanged() {
    let team = Team::new("adopt");
    let subject = format!("system:serviceaccount:{}:app", team.name);
    team.ensign.azure_identity_with(&team.name, &[by_hand(&team, &subject)]);
    team.apply(&team.identity());
    team.apply(&team.binding("app", "app"));
    let binding = team.wait_ready("app");
    assert_eq!(binding["status"]["credential"]["origin"], "Adopted");
    assert_eq!(binding["status"]["credential"]["name"], "by-hand");
    team.delete("mib", "app");
    team.wait_deleted("mib", "app");
    assert_eq!(team.credentials(), [("by-hand".to_owned(), subject)]);
    assert_eq!(team.arm_writes(), 0);
}

#[test]
fn odd_and_long_names_get_valid_distinct_credentials() {
    let team = Team::new("names");
    let mut identity = team.identity();
    let long_namespace = format!("{}-{}", team.name, "n".repeat(62 - team.name.len()));
    let long_account = "s".repeat(253);
    kubectl(team.ensign.control_plane, &["create", "namespace", &long_namespace]);
    identity["spec"]["allowedSubjects"]
        .as_array_mut()
        .expect("a list")
        .push(json!({"name": "long", "namespace": long_namespace, "serviceAccounts": [long_account]}));
    team.apply(&identity);
    team.apply(&team.binding("dotted", "a.b"));
    team.apply(&team.binding("dashed", "a-b"));
    let mut long = team.binding("long", &long_account);
    long["metadata"]["namespace"] = json!(long_namespace);
    team.apply(&long);
    team.wait_ready("dotted");
    team.wait_ready("dashed");
    wait_for("the third credential", || (team.credentials().len() == 3).then_some(()));
    let names: std::collections::BTreeSet<_> = team.credentials().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 3);
    assert!(names.iter().all(|name| name.len() <= 120), "{names:?}");
}

#[test]
fn a_restart_changes_nothing_in_azure_or_kubernetes() {
    let team = Team::new("restart");
    team.apply(&team.identity());
    team.apply(&team.binding("app", "app"));
    team.wait_ready("app");
    let identity = team.wait_condition("mi", &team.name, "Ready", "True", "Ready");
    let binding = team.get("mib", "app").expect("the binding");
    let (writes, lists) = (team.arm_writes(), team.ensign.arm_lists(&team.name));
    team.ensign.restart_controller();
    wait_for("the new controller to check the identity", || (team.ensign.arm_lists(&team.name) > lists).then_some(()));
    // That check is over once the next change of the same identity has been handled.
    team.apply(&team.binding("later", "app"));
    team.wait_ready("later");
    assert_eq!(team.arm_writes(), writes);
    let version = |object: &serde_json::Value| object["metadata"]["resourceVersion"].clone();
    assert_eq!(version(&team.get("mib", "app").expect("the binding")), version(&binding));
    let bindings = |object: &serde_json::Value| object["status"]["bindings"].clone();
    let after = team.wait_condition("mi", &team.name, "Ready", "True", "Ready");
    assert_eq!((bindings(&identity), bindings(&after)), (json!(1), json!(2)));
}

#[test]
fn ensigns_own_identity_is_never_used_for_workloads() {
    let team = Team::new("own");
    team.ensign.azure_identity(&team.name, Some(OWN_CLIENT_ID), &[]);
    team.apply(&team.identity());
    team.apply(&team.binding("app", "app"));
    team.wait_condition("mi", &team.name, "Accepted", "False", "OwnIdentity");
    team.wait_condition("mib", "app", "Accepted", "False", "ManagedIdentityNotAccepted");
    assert_eq!(team.arm_writes(), 0);
}

#[test]
fn observe_writes_nothing_and_becomes_ready_once_the_command_is_run() {
    let team = Team::new("observe");
    let mut identity = team.identity();
    identity["spec"]["existing"]["credentialPolicy"] = json!("Observe");
    team.apply(&identity);
    team.apply(&team.binding("app", "app"));
    let binding = team.wait_condition("mib", "app", "CredentialReady", "False", "CredentialMissing");
    let message = condition_of(&binding, "CredentialReady").expect("a condition")["message"].clone();
    let message = message.as_str().expect("a message");
    assert!(message.contains("az identity federated-credential create"), "{message}");
    assert_eq!(binding["metadata"].get("finalizers"), None, "what Ensign does not write needs no finalizer");
    let subject = format!("system:serviceaccount:{}:app", team.name);
    team.ensign.azure_identity_with(&team.name, &[by_hand(&team, &subject)]);
    kubectl(team.ensign.control_plane, &["annotate", "mi", &team.name, "looked=again"]);
    team.wait_ready("app");
    assert_eq!(team.arm_writes(), 0);
}

#[test]
fn a_lock_and_a_policy_have_their_own_reasons() {
    for (prefix, reason) in [("lock", "ResourceLocked"), ("policy", "PolicyDenied")] {
        let team = Team::new(prefix);
        let scope = team.ensign.arm_id(&team.name);
        team.ensign.azure.with_state(|state| match reason {
            "ResourceLocked" => state.locks.push(Lock { scope, level: LockLevel::ReadOnly }),
            _ => state.deny_policies.push(DenyPolicy { name: "no".into(), scope, resource_type: None, wrapped: false }),
        });
        team.apply(&team.identity());
        team.apply(&team.binding("app", "app"));
        team.wait_condition("mib", "app", "CredentialReady", "False", reason);
        assert_eq!(team.credentials(), []);
    }
}

#[test]
fn a_deletion_that_azure_forbids_waits_until_an_operator_abandons_it() {
    let team = Team::new("abandon");
    team.apply(&team.identity());
    team.apply(&team.binding("app", "app"));
    team.wait_ready("app");
    let scope = team.ensign.arm_id(&team.name);
    team.ensign.azure.with_state(|state| state.locks.push(Lock { scope, level: LockLevel::CanNotDelete }));
    team.delete("mib", "app");
    team.wait_condition("mib", "app", "Ready", "False", "DeletionBlocked");
    // A tenant's own annotation is ignored.
    let annotate = ["annotate", "--namespace", &team.name, "mib", "app", "ensign.dev/abandon=true"];
    kubectl(team.ensign.control_plane, &annotate);
    let writes = team.arm_writes();
    wait_for("a retry", || (team.arm_writes() > writes).then_some(()));
    assert!(team.get("mib", "app").is_some());
    kubectl(team.ensign.control_plane, &["annotate", "mi", &team.name, "ensign.dev/abandon=true"]);
    team.wait_deleted("mib", "app");
    assert_eq!(team.credentials().len(), 1, "it is left in Azure, and an event reports it");
    wait_for("the event", || team.warnings("app").iter().any(|(reason, _)| reason == "Abandoned").then_some(()));
}

#[test]
fn removing_the_finalizer_does_not_keep_the_credential() {
    let team = Team::new("strip");
    team.apply(&team.identity());
    team.apply(&team.binding("app", "app"));
    team.wait_ready("app");
    let strip = ["patch", "mib", "app", "--namespace", &team.name, "--type=json", "--patch"];
    let patch = r#"[{"op": "remove", "path": "/metadata/finalizers"}]"#;
    kubectl(team.ensign.control_plane, &[&strip[..], &[patch]].concat());
    wait_for("the finalizer to be restored", || {
        let binding = team.get("mib", "app")?;
        (binding["metadata"]["finalizers"] == json!(["ensign.dev/credentials"])).then_some(())
    });
    // Removed and deleted at once, before the controller can restore it.
    team.delete("mib", "app");
    kubectl(team.ensign.control_plane, &["delete", "mib", "app", "--namespace", &team.name, "--ignore-not-found"]);
    wait_for("the credential to be deleted", || team.credentials().is_empty().then_some(()));
}

#[test]
fn a_service_account_is_annotated_on_request_and_cleaned_up_afterwards() {
    let team = Team::new("annotate");
    kubectl(team.ensign.control_plane, &["create", "serviceaccount", "app", "--namespace", &team.name]);
    team.apply(&team.identity());
    let mut binding = team.binding("app", "app");
    binding["spec"]["injection"] = json!({"annotateServiceAccount": true});
    team.apply(&binding);
    let bound = team.wait_condition("mib", "app", "ServiceAccountAnnotated", "True", "Annotated");
    let annotations = || team.get("sa", "app").expect("the service account")["metadata"]["annotations"].clone();
    assert_eq!(annotations()["azure.workload.identity/client-id"], bound["status"]["clientID"]);
    assert_eq!(annotations()["azure.workload.identity/tenant-id"], bound["status"]["tenantID"]);
    team.delete("mib", "app");
    team.wait_deleted("mib", "app");
    assert_eq!(annotations(), serde_json::Value::Null);
}

#[test]
fn annotations_of_another_owner_are_kept_and_reported() {
    let team = Team::new("owned");
    kubectl(team.ensign.control_plane, &["create", "serviceaccount", "app", "--namespace", &team.name]);
    let by_helm =
        ["annotate", "serviceaccount", "app", "--namespace", &team.name, "azure.workload.identity/client-id=mine"];
    kubectl(team.ensign.control_plane, &by_helm);
    team.apply(&team.identity());
    let mut binding = team.binding("app", "app");
    binding["spec"]["injection"] = json!({"annotateServiceAccount": true});
    team.apply(&binding);
    team.wait_condition("mib", "app", "ServiceAccountAnnotated", "False", "AnnotationConflict");
    team.wait_ready("app");
    let account = team.get("sa", "app").expect("the service account");
    assert_eq!(account["metadata"]["annotations"]["azure.workload.identity/client-id"], "mine");
}

#[test]
fn revoking_a_credential_created_by_hand_reports_that_trust_remains() {
    let team = Team::new("remains");
    let subject = format!("system:serviceaccount:{}:app", team.name);
    team.ensign.azure_identity_with(&team.name, &[by_hand(&team, &subject)]);
    let mut identity = team.identity();
    identity["spec"]["allowedSubjects"] = json!([]);
    team.apply(&identity);
    team.apply(&team.binding("app", "app"));
    team.wait_condition("mib", "app", "TrustRevoked", "False", "ForeignCredential");
    assert_eq!(team.credentials(), [("by-hand".to_owned(), subject)]);
}

#[test]
fn the_21st_credential_is_rejected_with_the_count_and_written_when_a_slot_is_freed() {
    let team = Team::new("quota");
    let taken: Vec<_> = (0..20)
        .map(|n| Credential { name: format!("hand-{n}"), ..by_hand(&team, &format!("repo:org/app-{n}")) })
        .collect();
    team.ensign.azure_identity_with(&team.name, &taken);
    team.apply(&team.identity());
    team.apply(&team.binding("app", "app"));
    let binding = team.wait_condition("mib", "app", "CredentialReady", "False", "QuotaExceeded");
    let message = condition_of(&binding, "CredentialReady").expect("a condition")["message"].clone();
    assert!(message.as_str().expect("a message").starts_with("20/20"), "{message}");
    assert_eq!(team.arm_writes(), 0, "no attempt is made");
    team.ensign.azure_identity_with(&team.name, &taken[1..]);
    kubectl(team.ensign.control_plane, &["annotate", "mi", &team.name, "looked=again"]);
    team.wait_ready("app");
}

fn by_hand(team: &Team, subject: &str) -> Credential {
    Credential {
        name: "by-hand".to_owned(),
        issuer: team.ensign.control_plane.issuer.clone(),
        subject: subject.to_owned(),
        audiences: vec!["api://AzureADTokenExchange".to_owned()],
        written_at: Timestamp::UNIX_EPOCH,
    }
}
