//! Pods that are gated until their identity works, and ungated by the controller.
//!
//! The clock does not advance on its own, so every pod that is created meanwhile is gated.

use ensign_api::keys::{GATED_LABEL, IDENTITY_GATE, INJECT_LABEL, INJECTED_BY_ANNOTATION};
use ensign_core::cel::Mode;
use serde_json::{Value, json};

use crate::INJECTION;
use ensign_testkit::gating::{GatingTestbed, SETTLE};
use ensign_testkit::objects::unique;
use ensign_testkit::pods::{gates, is_gated, is_injected};

#[test]
fn a_gated_pod_survives_a_controller_restart_and_reports_what_it_waits_for() {
    let testbed = GatingTestbed::acquire(INJECTION);
    let controller = testbed.start(&unique("restart"));
    let team = testbed.team("restart");
    team.bind();
    let pod = team.gated_pod(&json!({}));
    let (kind, text) = team.wait_event(&pod, "Propagating");
    assert!(
        kind == "Normal" && text.contains("ManagedIdentityBinding app is ready") && text.contains("allowing until"),
        "{kind}: {text}"
    );
    assert_eq!(controller.stop(), Ok(()));
    testbed.clock.advance(SETTLE);
    assert!(is_gated(&team.get_pod(&pod)), "no controller runs that could ungate it");
    let name = unique("restarted");
    let _controller = testbed.start(&name);
    team.wait_ungated(&pod);
    let lifts = testbed.kubernetes_writes(&name).into_iter().filter(|write| write.contains(&format!("/pods/{pod}")));
    assert_eq!(lifts.count(), 1, "gate and label are removed in one write");
}

#[test]
fn other_scheduling_gates_are_kept() {
    let testbed = GatingTestbed::acquire(INJECTION);
    let _controller = testbed.start(&unique("gates"));
    let team = testbed.team("gates");
    team.bind();
    let quota = "example.com/quota";
    let pod = team.gated_pod(&json!({"spec": {"schedulingGates": [{"name": quota}]}}));
    testbed.clock.advance(SETTLE);
    assert_eq!(gates(&team.wait_ungated(&pod)), [quota]);
}

#[test]
fn a_pod_whose_binding_is_deleted_is_ungated_with_an_event() {
    let testbed = GatingTestbed::acquire(INJECTION);
    let _controller = testbed.start(&unique("deleted"));
    let team = testbed.team("deleted");
    team.bind();
    let pod = team.gated_pod(&json!({}));
    team.unbind("app");
    team.wait_ungated(&pod);
    let (kind, text) = team.wait_event(&pod, "StartedWithoutIdentity");
    assert!(kind == "Warning" && text.contains("Entra will reject its token"), "{kind}: {text}");
}

#[test]
fn a_pod_whose_binding_is_rejected_is_ungated_with_the_reason() {
    let testbed = GatingTestbed::acquire(INJECTION);
    let _controller = testbed.start(&unique("refused"));
    let team = testbed.team("refused");
    team.bind();
    let pod = team.gated_pod(&json!({}));
    team.grant(&json!([]));
    team.wait_ungated(&pod);
    let (_, text) = team.wait_event(&pod, "StartedWithoutIdentity");
    assert!(text.contains("is no longer accepted (NotAllowed)"), "{text}");
}

#[test]
fn a_binding_that_becomes_immediate_ungates_its_pods() {
    let testbed = GatingTestbed::acquire(INJECTION);
    let _controller = testbed.start(&unique("immediate"));
    let team = testbed.team("immediate");
    team.bind();
    let pod = team.gated_pod(&json!({}));
    team.patch("mib", "app", &json!({"spec": {"injection": {"startPolicy": "Immediate"}}}));
    team.wait_ungated(&pod);
    assert!(team.wait_event(&pod, "StartedWithoutIdentity").1.contains("spec.injection.startPolicy"));
}

#[test]
fn a_pod_that_needs_human_action_waits_and_reports_it_once() {
    let testbed = GatingTestbed::acquire(INJECTION);
    let _controller = testbed.start(&unique("stuck"));
    let team = testbed.team("stuck");
    team.bind_observed();
    testbed.wait_for("the binding to say what is missing", || {
        let binding = team.get("mib", "app")?;
        binding["status"]["conditions"].to_string().contains("CredentialMissing").then_some(())
    });
    let pod = team.gated_pod(&json!({}));
    let (kind, text) = team.wait_event(&pod, "CredentialMissing");
    assert!(kind == "Warning" && text.contains("someone has to act") && text.contains("az identity"), "{kind}: {text}");
    // Everything that could make it report the same again.
    team.patch("pod", &pod, &json!({"metadata": {"annotations": {"looked": "again"}}}));
    testbed.clock.advance(SETTLE / 2);
    team.patch("mib", "app", &json!({"spec": {"injection": {"startPolicy": "Immediate"}}}));
    team.wait_ungated(&pod);
    assert_eq!(team.events(&pod).iter().filter(|(_, reason, _)| reason == "CredentialMissing").count(), 1);
}

#[test]
fn a_pod_with_a_node_name_is_never_gated_and_the_webhook_warns_about_it() {
    let testbed = GatingTestbed::acquire(INJECTION);
    let _controller = testbed.start(&unique("node"));
    let team = testbed.team("node");
    team.bind();
    let bound = team.pod(&json!({"spec": {"nodeName": "node-1"}}));
    let made = testbed.wait_for("the pod to be admitted", || team.create(&bound, &["--dry-run=server"]).ok());
    assert!(is_injected(&made) && !is_gated(&made), "{made:#}");
    let create = || team.create(&bound, &["--warnings-as-errors", "--dry-run=server"]);
    match INJECTION {
        Mode::Webhook => {
            let said = create().expect_err("a warning");
            assert!(said.contains("spec.nodeName") && said.contains("can't be gated"), "{said}");
        }
        // A mutating policy can't warn: docs/injection-policy.md. The webhook of an earlier test may still be called for a moment.
        Mode::Policy => drop(testbed.wait_for("the pod to be admitted without a warning", || create().ok())),
    }
}

#[test]
fn a_gated_pod_whose_label_a_tenant_removed_is_found_and_ungated() {
    let testbed = GatingTestbed::acquire(INJECTION);
    let controller = testbed.start(&unique("stripped"));
    let team = testbed.team("stripped");
    team.bind();
    let (seen, unseen) = (team.gated_pod(&json!({})), team.gated_pod(&json!({})));
    let strip = |pod: &str| team.patch("pod", pod, &json!({"metadata": {"labels": {GATED_LABEL: null}}}));
    strip(&seen);
    assert_eq!(controller.stop(), Ok(()));
    // No controller sees the removal of this label.
    strip(&unseen);
    let _controller = testbed.start(&unique("stripped"));
    testbed.clock.advance(SETTLE);
    team.wait_ungated(&seen);
    team.wait_ungated(&unseen);
}

#[test]
fn the_label_alone_has_no_effect_and_a_gate_set_by_a_user_is_removed() {
    let testbed = GatingTestbed::acquire(INJECTION);
    let name = unique("spoofed");
    let _controller = testbed.start(&name);
    let team = testbed.team("spoofed");
    let unbound = |labels: &Value, gates: &Value| {
        team.pod(&json!({"metadata": {"labels": labels}, "spec": {"schedulingGates": gates}}))
    };
    let label = json!({INJECT_LABEL: null, GATED_LABEL: "true"});
    let labelled = team.create(&unbound(&label, &json!([])), &[]).expect("admitted");
    let gated = team.create(&unbound(&label, &json!([{"name": IDENTITY_GATE}])), &[]).expect("admitted");
    let gated = gated["metadata"]["name"].as_str().expect("a name").to_owned();
    team.wait_ungated(&gated);
    assert!(team.wait_event(&gated, "StartedWithoutIdentity").1.contains("do not set it"));
    // The first pod has been checked by now.
    let labelled_name = labelled["metadata"]["name"].as_str().expect("a name");
    let written = |write: &String| write.contains(&format!("/pods/{labelled_name}"));
    assert!(!testbed.kubernetes_writes(&name).iter().any(written));
    assert_eq!(team.get_pod(labelled_name)["metadata"]["labels"][GATED_LABEL], "true");
}

#[test]
fn an_annotation_written_by_a_tenant_blocks_no_pod() {
    let testbed = GatingTestbed::acquire(INJECTION);
    let _controller = testbed.start(&unique("annotated"));
    let team = testbed.team("annotated");
    team.bind();
    let pod = team.gated_pod(&json!({}));
    let nonsense = json!({INJECTED_BY_ANNOTATION: "../../x?y=ManagedIdentity/z,Ünknown=ManagedIdentity/z"});
    team.patch("pod", &pod, &json!({"metadata": {"annotations": nonsense}}));
    team.wait_ungated(&pod);
}
