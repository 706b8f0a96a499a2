use serde_json::{Value, json};

use super::*;

fn binding(change: &Value) -> ManagedIdentityBinding {
    let mut object = json!({
        "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityBinding",
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {"identityRef": {"name": "orders"}, "serviceAccountName": "app"},
    });
    json_patch::merge(&mut object, change);
    serde_json::from_value(object).unwrap()
}

fn pod(name: &str, change: &Value) -> ObjectMeta {
    let mut pod = json!({"name": name, "namespace": "shop", "labels": {"app": "orders"}});
    json_patch::merge(&mut pod, change);
    serde_json::from_value(pod).unwrap()
}

fn owned(name: &str, kind: &str, owner: &str, labels: &Value) -> ObjectMeta {
    let owner = json!({"apiVersion": "apps/v1", "kind": kind, "name": owner, "uid": "1", "controller": true});
    pod(name, &json!({"labels": labels, "ownerReferences": [owner]}))
}

fn found(binding: &ManagedIdentityBinding, pods: &[ObjectMeta]) -> UninjectedPods {
    let mut uninjected = UninjectedPods::default();
    for pod in pods {
        uninjected.look_at(binding, pod, &["app"]);
    }
    uninjected
}

fn count(change: &Value) -> usize {
    found(&binding(&json!({})), &[pod("a", change)]).pods()
}

fn message(pods: &[ObjectMeta]) -> String {
    let verdict = found(&binding(&json!({})), pods).verdict("shop").expect("uninjected pods");
    assert_eq!((verdict.status, verdict.reason), (Some(false), Reason::PodsNotInjected));
    verdict.message
}

#[test]
fn a_pod_without_this_binding_in_its_annotation_is_uninjected() {
    let by = |text: &str| json!({"annotations": {INJECTED_BY_ANNOTATION: text}});
    assert_eq!(count(&json!({})), 1);
    assert_eq!(count(&by("audit=ManagedIdentity/audit")), 1);
    assert_eq!(count(&by("orders=ManagedIdentity/orders")), 0);
    assert_eq!(count(&by("audit=ManagedIdentity/audit,orders=ManagedIdentity/orders")), 0);
}

#[test]
fn pods_that_the_binding_does_not_cover_are_not_counted() {
    assert_eq!(count(&json!({"labels": {INJECT_LABEL: "false"}})), 0);
    assert_eq!(count(&json!({"annotations": {MIRROR_ANNOTATION: "x"}})), 0);
    assert_eq!(count(&json!({"deletionTimestamp": "2026-01-01T00:00:00Z"})), 0);
    let pods = [pod("a", &json!({}))];
    let of = |spec: Value| found(&binding(&json!({"spec": spec})), &pods).pods();
    assert_eq!(of(json!({"podSelector": {"matchLabels": {"app": "pay"}}})), 0);
    assert_eq!(of(json!({"podSelector": {"matchLabels": {"app": "orders"}}})), 1);
    assert_eq!(of(json!({"podSelector": {}})), 1);
    assert_eq!(of(json!({"injection": {"mode": "None"}})), 0);
    assert_eq!(of(json!({"injection": {"containers": {"include": ["other"]}}})), 0);
    assert_eq!(of(json!({"injection": {"containers": {"exclude": ["proxy"]}}})), 1);
}

#[test]
fn the_message_names_workloads_and_how_to_restart_them() {
    let hash = json!({"pod-template-hash": "5d9"});
    let text = message(&[
        owned("api-5d9-a", "ReplicaSet", "api-5d9", &hash),
        owned("api-5d9-b", "ReplicaSet", "api-5d9", &hash),
        owned("db-0", "StatefulSet", "db", &json!({})),
    ]);
    for part in [
        "3 pods were",
        "deployment/api (2 pods)",
        "statefulset/db (1 pod)",
        "`kubectl rollout restart deployment/api -n shop`",
        "`kubectl rollout restart statefulset/db -n shop`",
    ] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    assert!(!text.contains("recreate"), "{text}");
}

#[test]
fn pods_that_no_rollout_restarts_have_to_be_recreated() {
    let text = message(&[pod("bare", &json!({}))]);
    assert!(text.contains("1 pod was") && text.contains("pod/bare"), "{text}");
    assert!(text.contains("delete and recreate these pods"), "{text}");
    let text =
        message(&[owned("x", "ReplicaSet", "by-hand", &json!({})), owned("y", "DaemonSet", "agent", &json!({}))]);
    assert!(text.contains("replicaset/by-hand") && text.contains("recreate the other pods"), "{text}");
    assert!(!text.contains("restart replicaset"), "{text}");
}

#[test]
fn five_workloads_are_named_in_order_and_the_others_counted() {
    let pods: Vec<_> = (0..8).rev().map(|index| pod(&format!("pod-{index}"), &json!({}))).collect();
    let text = message(&pods);
    assert!(
        text.contains("pod/pod-0 (1 pod), pod/pod-1 (1 pod)") && text.contains("pod/pod-4 (1 pod) and 3 more"),
        "{text}"
    );
    let reversed: Vec<_> = pods.into_iter().rev().collect();
    assert_eq!(message(&reversed), text, "the order of the list does not matter");
}

#[test]
fn without_uninjected_pods_there_is_no_condition_and_before_the_first_scan_it_is_kept() {
    let published = Verdict::bad(Reason::PodsNotInjected, "as before");
    let before = [ensign_api::conditions::condition(
        ConditionType::PodsInjected,
        &published,
        None,
        &[],
        k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
    )];
    assert_eq!(verdict(None, &before, "shop"), Some(published));
    assert_eq!(verdict(None, &[], "shop"), None);
    assert_eq!(verdict(Some(&UninjectedPods::default()), &before, "shop"), None);
}
