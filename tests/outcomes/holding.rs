//! Pods that are held until their identity works, and let go by the controller.
//!
//! The clock stands until a test moves it, so that every pod that is made meanwhile is held.

use ensign_api::keys::{HELD_LABEL, IDENTITY_GATE, INJECT_LABEL, INJECTED_BY_ANNOTATION};
use ensign_core::cel::Mode;
use serde_json::{Value, json};

use crate::INJECTION;
use ensign_testkit::holding::{HoldStage, SETTLE};
use ensign_testkit::objects::unique;
use ensign_testkit::pods::{gates, is_held, is_injected};

#[test]
fn a_pod_that_is_held_survives_a_restart_of_the_controller_and_says_what_it_waits_for() {
    let stage = HoldStage::enter(INJECTION);
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
    let stage = HoldStage::enter(INJECTION);
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
    let stage = HoldStage::enter(INJECTION);
    let _controller = stage.start(&unique("deleted"));
    let team = stage.team("deleted");
    team.bind();
    let pod = team.held_pod(&json!({}));
    team.team.unbind("app");
    team.wait_let_go(&pod);
    let (kind, text) = team.wait_event(&pod, "StartedWithoutIdentity");
    assert!(kind == "Warning" && text.contains("Entra will reject its token"), "{kind}: {text}");
}

#[test]
fn a_pod_whose_binding_is_refused_is_let_go_with_the_reason() {
    let stage = HoldStage::enter(INJECTION);
    let _controller = stage.start(&unique("refused"));
    let team = stage.team("refused");
    team.bind();
    let pod = team.held_pod(&json!({}));
    team.team.grant(&json!([]));
    team.wait_let_go(&pod);
    let (_, text) = team.wait_event(&pod, "StartedWithoutIdentity");
    assert!(text.contains("is no longer accepted (NotAllowed)"), "{text}");
}

#[test]
fn a_binding_that_becomes_immediate_lets_its_pods_go() {
    let stage = HoldStage::enter(INJECTION);
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
    let stage = HoldStage::enter(INJECTION);
    let _controller = stage.start(&unique("stuck"));
    let team = stage.team("stuck");
    team.team.bind_observed();
    stage.wait_for("the binding to say what is missing", || {
        let binding = team.team.get("mib", "app")?;
        binding["status"]["conditions"].to_string().contains("CredentialMissing").then_some(())
    });
    let pod = team.held_pod(&json!({}));
    let (kind, text) = team.wait_event(&pod, "CredentialMissing");
    assert!(kind == "Warning" && text.contains("someone has to act") && text.contains("az identity"), "{kind}: {text}");
    // Everything that could make it say the same again.
    team.patch("pod", &pod, &json!({"metadata": {"annotations": {"looked": "again"}}}));
    stage.clock.pass(SETTLE / 2);
    team.patch("mib", "app", &json!({"spec": {"injection": {"startPolicy": "Immediate"}}}));
    team.wait_let_go(&pod);
    assert_eq!(team.events(&pod).iter().filter(|(_, reason, _)| reason == "CredentialMissing").count(), 1);
}

#[test]
fn a_pod_that_names_its_node_is_never_held_and_the_webhook_tells_its_creator() {
    let stage = HoldStage::enter(INJECTION);
    let _controller = stage.start(&unique("node"));
    let team = stage.team("node");
    team.bind();
    let bound = team.pod(&json!({"spec": {"nodeName": "node-1"}}));
    let made = stage.wait_for("the pod to be admitted", || team.create(&bound, &["--dry-run=server"]).ok());
    assert!(is_injected(&made) && !is_held(&made), "{made:#}");
    let said = team.create(&bound, &["--warnings-as-errors"]);
    match INJECTION {
        Mode::Webhook => {
            let said = said.expect_err("a warning");
            assert!(said.contains("spec.nodeName") && said.contains("can't be gated"), "{said}");
        }
        // A mutating policy can't warn: docs/injection-policy.md.
        Mode::Policy => drop(said.expect("admitted without a warning")),
    }
}

#[test]
fn a_held_pod_whose_label_a_tenant_took_away_is_found_and_let_go() {
    let stage = HoldStage::enter(INJECTION);
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
    let stage = HoldStage::enter(INJECTION);
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
    let stage = HoldStage::enter(INJECTION);
    let _controller = stage.start(&unique("annotated"));
    let team = stage.team("annotated");
    team.bind();
    let pod = team.held_pod(&json!({}));
    let nonsense = json!({INJECTED_BY_ANNOTATION: "../../x?y=ManagedIdentity/z,Ünknown=ManagedIdentity/z"});
    team.patch("pod", &pod, &json!({"metadata": {"annotations": nonsense}}));
    team.wait_let_go(&pod);
}
