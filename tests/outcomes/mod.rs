//! What happens to pods in either mode: one set of tests that runs with the webhook (`tests/integration`) and
//! with admission policies (`tests/cluster_wide`), each on a real API server with a real controller.
//!
//! `crate::INJECTION` is the mode of the program that these tests are part of. Where an outcome differs, the
//! difference is one of docs/injection-policy.md.

mod denials;
mod deployment_before_binding;
mod gating;
mod injection;
mod new_bindings;
mod uninjected;

use ensign_api::keys::TOKEN_VOLUME;
use ensign_core::cel::Mode;
use serde_json::{Value, json};

use crate::INJECTION;
use ensign_testkit::ensign::Ensign;
use ensign_testkit::objects::{Team, unique, wait_for};
use ensign_testkit::pods::{is_injected, pod};

/// The install that all of these tests share.
fn install() -> &'static Ensign {
    match INJECTION {
        Mode::Webhook => Ensign::shared(),
        Mode::Policy => Ensign::with_policies(),
    }
}

/// A team whose namespace has no grant yet.
pub(crate) fn team(prefix: &str) -> Team {
    let team = Team::of(install(), unique(prefix));
    team.account("app");
    team
}

/// Creates a team's identity, and waits until its pods are validated and injected.
fn grant(team: &Team) {
    team.apply(&team.identity());
    team.apply(&team.binding("probe", "probe"));
    team.account("probe");
    team.wait_ready("probe");
    // Only Ensign denies a volume under the reserved name, in a pod that would be injected.
    let mut clash = pod(&team.name, &json!({"spec": {"serviceAccountName": "probe"}}));
    let plain = clash.clone();
    clash["spec"]["volumes"] = json!([{"name": TOKEN_VOLUME, "emptyDir": {}}]);
    wait_for("pods to be validated", || {
        team.dry_run(&clash).err().filter(|refusal| refusal.contains("rename or remove the volume"))
    });
    // The API server loads mutating policies independently of validating ones.
    wait_for("pods to be injected", || team.dry_run(&plain).ok().filter(is_injected));
}

/// A team whose pods are injected, with a service account `app` that has no binding.
pub(crate) fn granted_team(prefix: &str) -> Team {
    let team = team(prefix);
    grant(&team);
    team
}

/// The same with a ready binding of that service account, which is returned too.
fn bound_team(prefix: &str) -> (Team, Value) {
    let team = granted_team(prefix);
    team.apply(&team.binding("app", "app"));
    let binding = team.wait_ready("app");
    (team, binding)
}

/// Waits until the pod is denied with this message.
fn wait_denied(team: &Team, object: &Value, wanted: &str) -> String {
    wait_for(&format!("the pod to be denied: {wanted}"), || {
        team.dry_run(object).err().filter(|refusal| is_denied_with(object, refusal, wanted))
    })
}

/// Whether Ensign denied the pod, with this message. The API server returns one of several denials, so
/// for a labelled pod it may be only that no ready binding covers it.
fn is_denied_with(pod: &Value, refusal: &str, wanted: &str) -> bool {
    let [by_webhook, by_policy] = ["denied the request: ", "denied request: "].map(|words| refusal.contains(words));
    match INJECTION {
        Mode::Webhook => by_webhook && refusal.contains(wanted),
        Mode::Policy => {
            let is_labelled = pod["metadata"]["labels"].get(ensign_api::keys::INJECT_LABEL).is_some();
            by_policy
                && (refusal.contains(wanted) || is_labelled && refusal.contains("no ready ManagedIdentityBinding"))
        }
    }
}
