//! Pods that are held until their identity works, with the real webhook, controller and `ReplicaSet` controller.
//!
//! The clock stands until a test moves it, so that every pod that is made meanwhile is held.

use std::collections::BTreeMap;

use ensign::api::keys::{HELD_LABEL, IDENTITY_GATE, INJECT_LABEL, INJECTED_BY_ANNOTATION};
use serde_json::{Value, json};

use crate::support::holding::{HoldStage, SETTLE, apply_all, gates, is_held, is_injected};
use crate::support::objects::{kubectl, unique};

/// Azure takes 20 credentials under an identity.
const BATCH: usize = 20;
const BATCHES: usize = 5;

/// Everything of a batch is labelled with its name.
struct Batch<'a> {
    stage: &'a HoldStage,
    name: String,
}

impl Batch<'_> {
    fn namespaces(&self) -> Vec<String> {
        (0..BATCH).map(|index| format!("{}-{index}", self.name)).collect()
    }

    fn each(&self, object: impl Fn(&str) -> Value) {
        let objects: Vec<Value> = self.namespaces().iter().map(|namespace| object(namespace)).collect();
        apply_all(self.stage.stage.control_plane, &objects);
    }

    /// Objects of the batch by namespace.
    fn list(&self, kind: &str) -> BTreeMap<String, Vec<Value>> {
        let selector = format!("batch={}", self.name);
        let arguments = ["get", kind, "--all-namespaces", "--selector", &selector, "--output", "json"];
        let list: Value = serde_json::from_str(&kubectl(self.stage.stage.control_plane, &arguments)).expect("a list");
        let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for item in list["items"].as_array().cloned().unwrap_or_default() {
            found.entry(item["metadata"]["namespace"].as_str().unwrap_or_default().to_owned()).or_default().push(item);
        }
        found
    }

    /// Waits until each namespace has one object of the kind that is as it should be.
    fn wait_each(&self, what: &str, kind: &str, fits: impl Fn(&Value) -> bool) -> BTreeMap<String, Value> {
        self.stage.wait_for(what, || {
            let found = self.list(kind);
            let fitting = found.into_iter().filter(|(_, all)| all.len() == 1 && fits(&all[0]));
            let fitting: BTreeMap<String, Value> = fitting.map(|(name, mut all)| (name, all.remove(0))).collect();
            (fitting.len() == BATCH).then_some(fitting)
        })
    }
}

/// A hundred rounds, a batch of them at a time.
#[test]
fn a_deployment_before_its_binding_comes_up_injected_held_and_released_by_itself() {
    let stage = HoldStage::enter();
    let _controller = stage.start(&unique("rounds"));
    for _ in 0..BATCHES {
        let identity = stage.stage.team("rounds");
        let batch = Batch { stage: &stage, name: identity.name.clone() };
        let labels = json!({"batch": batch.name});
        batch.each(
            |name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}),
        );
        batch.each(|namespace| {
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "app", "namespace": namespace}})
        });
        batch.each(|namespace| {
            let labels = json!({"app": "app", "batch": batch.name, INJECT_LABEL: "true"});
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app", "namespace": namespace},
                "spec": {
                    "selector": {"matchLabels": {"app": "app"}},
                    "template": {"metadata": {"labels": labels}, "spec": {
                        "serviceAccountName": "app", "containers": [{"name": "app", "image": "app:1"}],
                    }},
                },
            })
        });
        batch.wait_each("the pods to be refused", "replicasets", |set| {
            set["status"]["conditions"].to_string().contains("Create a ManagedIdentityBinding")
        });
        identity
            .grant(&json!([{"name": "all", "namespaceSelector": {"matchLabels": labels}, "serviceAccounts": ["app"]}]));
        batch.each(|namespace| {
            json!({
                "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityBinding",
                "metadata": {"name": "app", "namespace": namespace},
                "spec": {"identityRef": {"name": batch.name}, "serviceAccountName": "app"},
            })
        });
        let held = batch.wait_each("a pod in each namespace", "pods", |_| true);
        for pod in held.values() {
            assert!(is_injected(pod) && is_held(pod), "{pod:#}");
        }
        stage.clock.pass(SETTLE);
        let released = batch.wait_each("the pods to be released", "pods", |pod| gates(pod).is_empty());
        for (namespace, pod) in &released {
            assert_eq!(pod["metadata"]["uid"], held[namespace]["metadata"]["uid"], "the very pod");
            assert!(is_injected(pod) && pod["metadata"]["labels"].get(HELD_LABEL).is_none(), "{pod:#}");
        }
    }
}

#[test]
fn a_pod_that_is_held_survives_a_restart_of_the_controller_and_says_what_it_waits_for() {
    let stage = HoldStage::enter();
    let controller = stage.start(&unique("restart"));
    let team = stage.team("restart");
    team.bind();
    let pod = team.held_pod(&json!({}));
    let (kind, text) = team.wait_event(&pod, "Settling");
    assert!(
        kind == "Normal" && text.contains("ManagedIdentityBinding app works") && text.contains("Entra gets until"),
        "{kind}: {text}"
    );
    assert_eq!(controller.stop(), Ok(()));
    stage.clock.pass(SETTLE);
    assert!(is_held(&team.get(&pod)), "nobody is there to let it go");
    let name = unique("restarted");
    let _controller = stage.start(&name);
    team.wait_let_go(&pod);
    let lifts =
        stage.stage.kubernetes_writes(&name).into_iter().filter(|write| write.contains(&format!("/pods/{pod}")));
    assert_eq!(lifts.count(), 1, "gate and label go in one write");
}

#[test]
fn the_gates_of_others_stay() {
    let stage = HoldStage::enter();
    let _controller = stage.start(&unique("gates"));
    let team = stage.team("gates");
    team.bind();
    let quota = "example.com/quota";
    let pod = team.held_pod(&json!({"spec": {"schedulingGates": [{"name": quota}]}}));
    stage.clock.pass(SETTLE);
    assert_eq!(gates(&team.wait_let_go(&pod)), [quota]);
}

#[test]
fn a_pod_whose_binding_is_deleted_is_let_go_with_an_event() {
    let stage = HoldStage::enter();
    let _controller = stage.start(&unique("deleted"));
    let team = stage.team("deleted");
    team.bind();
    let pod = team.held_pod(&json!({}));
    team.team.unbind("app");
    team.wait_let_go(&pod);
    let (kind, text) = team.wait_event(&pod, "StartedWithoutIdentity");
    assert!(kind == "Warning" && text.contains("Entra will refuse its token"), "{kind}: {text}");
}

#[test]
fn a_pod_whose_binding_is_refused_is_let_go_with_the_reason() {
    let stage = HoldStage::enter();
    let _controller = stage.start(&unique("refused"));
    let team = stage.team("refused");
    team.bind();
    let pod = team.held_pod(&json!({}));
    team.team.grant(&json!([]));
    team.wait_let_go(&pod);
    let (_, text) = team.wait_event(&pod, "StartedWithoutIdentity");
    assert!(text.contains("is not accepted any more (NotAllowed)"), "{text}");
}

#[test]
fn a_binding_that_becomes_immediate_lets_its_pods_go() {
    let stage = HoldStage::enter();
    let _controller = stage.start(&unique("immediate"));
    let team = stage.team("immediate");
    team.bind();
    let pod = team.held_pod(&json!({}));
    team.patch("mib", "app", &json!({"spec": {"injection": {"startPolicy": "Immediate"}}}));
    team.wait_let_go(&pod);
    assert!(team.wait_event(&pod, "StartedWithoutIdentity").1.contains("spec.injection.startPolicy"));
}

#[test]
fn a_pod_that_only_a_person_can_help_waits_and_says_so_once() {
    let stage = HoldStage::enter();
    let _controller = stage.start(&unique("stuck"));
    let team = stage.team("stuck");
    team.team.bind_observed();
    stage.wait_for("the binding to say what is missing", || {
        let binding = team.team.get("mib", "app")?;
        binding["status"]["conditions"].to_string().contains("CredentialMissing").then_some(())
    });
    let pod = team.held_pod(&json!({}));
    let (kind, text) = team.wait_event(&pod, "CredentialMissing");
    assert!(
        kind == "Warning" && text.contains("somebody has to act") && text.contains("az identity"),
        "{kind}: {text}"
    );
    // Everything that could make it say the same again.
    team.patch("pod", &pod, &json!({"metadata": {"annotations": {"looked": "again"}}}));
    stage.clock.pass(SETTLE / 2);
    team.patch("mib", "app", &json!({"spec": {"injection": {"startPolicy": "Immediate"}}}));
    team.wait_let_go(&pod);
    assert_eq!(team.events(&pod).iter().filter(|(_, reason, _)| reason == "CredentialMissing").count(), 1);
}

#[test]
fn a_pod_that_names_its_node_is_never_held_and_its_creator_is_told() {
    let stage = HoldStage::enter();
    let _controller = stage.start(&unique("node"));
    let team = stage.team("node");
    team.bind();
    let bound = team.pod(&json!({"spec": {"nodeName": "node-1"}}));
    let made = stage.wait_for("the pod to be admitted", || team.create(&bound, &["--dry-run=server"]).ok());
    assert!(is_injected(&made) && !is_held(&made), "{made:#}");
    let said = team.create(&bound, &["--warnings-as-errors"]).expect_err("a warning");
    assert!(said.contains("spec.nodeName") && said.contains("can't be held"), "{said}");
}

#[test]
fn a_held_pod_whose_label_a_tenant_took_away_is_found_and_let_go() {
    let stage = HoldStage::enter();
    let controller = stage.start(&unique("stripped"));
    let team = stage.team("stripped");
    team.bind();
    let (seen, unseen) = (team.held_pod(&json!({})), team.held_pod(&json!({})));
    let strip = |pod: &str| team.patch("pod", pod, &json!({"metadata": {"labels": {HELD_LABEL: null}}}));
    strip(&seen);
    assert_eq!(controller.stop(), Ok(()));
    // No controller sees how this label goes.
    strip(&unseen);
    let _controller = stage.start(&unique("stripped"));
    stage.clock.pass(SETTLE);
    team.wait_let_go(&seen);
    team.wait_let_go(&unseen);
}

#[test]
fn the_label_alone_says_nothing_and_a_gate_that_a_user_set_is_lifted() {
    let stage = HoldStage::enter();
    let name = unique("spoofed");
    let _controller = stage.start(&name);
    let team = stage.team("spoofed");
    let unbound = |labels: &Value, gates: &Value| {
        team.pod(&json!({"metadata": {"labels": labels}, "spec": {"schedulingGates": gates}}))
    };
    let label = json!({INJECT_LABEL: null, HELD_LABEL: "true"});
    let labelled = team.create(&unbound(&label, &json!([])), &[]).expect("admitted");
    let gated = team.create(&unbound(&label, &json!([{"name": IDENTITY_GATE}])), &[]).expect("admitted");
    let gated = gated["metadata"]["name"].as_str().expect("a name").to_owned();
    team.wait_let_go(&gated);
    assert!(team.wait_event(&gated, "StartedWithoutIdentity").1.contains("do not set it"));
    // The pod that came first has been looked at by now.
    let labelled_name = labelled["metadata"]["name"].as_str().expect("a name");
    let written = |write: &String| write.contains(&format!("/pods/{labelled_name}"));
    assert!(!stage.stage.kubernetes_writes(&name).iter().any(written));
    assert_eq!(team.get(labelled_name)["metadata"]["labels"][HELD_LABEL], "true");
}

#[test]
fn an_annotation_that_a_tenant_wrote_strands_nothing() {
    let stage = HoldStage::enter();
    let _controller = stage.start(&unique("annotated"));
    let team = stage.team("annotated");
    team.bind();
    let pod = team.held_pod(&json!({}));
    let nonsense = json!({INJECTED_BY_ANNOTATION: "../../x?y=ManagedIdentity/z,Ünknown=ManagedIdentity/z"});
    team.patch("pod", &pod, &json!({"metadata": {"annotations": nonsense}}));
    team.wait_let_go(&pod);
}
