//! What becomes of pods, whoever injects: one set of tests that runs where the webhook injects (`tests/integration`) and
//! where the API server does so by itself (`tests/cluster_wide`), each on a real API server with a real controller.
//!
//! The program that these tests are part of says which, in `crate::INJECTION`. Where an outcome is not the same, the
//! difference is one of docs/injection-policy.md.

mod fresh;
mod holding;
mod injection;
mod missed;
mod refusals;
mod rounds;

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
        Mode::Policy => Ensign::by_policies(),
    }
}

/// A team whose namespace nobody has granted anything yet.
pub(crate) fn team(prefix: &str) -> Team {
    let team = Team::of(install(), unique(prefix));
    team.account("app");
    team
}

/// Makes a team's identity, and waits until its pods are judged and injected.
fn grant(team: &Team) {
    team.apply(&team.identity());
    team.apply(&team.binding("probe", "probe"));
    team.account("probe");
    team.wait_ready("probe");
    // A volume under the reserved name is refused for a pod that is to be injected, and by nobody but Ensign.
    let mut clash = pod(&team.name, &json!({"spec": {"serviceAccountName": "probe"}}));
    let plain = clash.clone();
    clash["spec"]["volumes"] = json!([{"name": TOKEN_VOLUME, "emptyDir": {}}]);
    wait_for("pods to be judged", || {
        team.dry_run(&clash).err().filter(|refusal| refusal.contains("rename or remove the volume"))
    });
    // The API server takes policies that inject in apart from those that judge.
    wait_for("pods to be injected", || team.dry_run(&plain).ok().filter(is_injected));
}

/// A team whose pods are injected, with a service account `app` that nothing is bound to.
pub(crate) fn granted_team(prefix: &str) -> Team {
    let team = team(prefix);
    grant(&team);
    team
}

/// The same with a binding of that service account that is ready; answers that too.
fn bound_team(prefix: &str) -> (Team, Value) {
    let team = granted_team(prefix);
    team.apply(&team.binding("app", "app"));
    let binding = team.wait_ready("app");
    (team, binding)
}

/// A refusal of the pod that says this.
fn refused(team: &Team, object: &Value, wanted: &str) -> String {
    wait_for(&format!("the pod to be refused: {wanted}"), || {
        team.dry_run(object).err().filter(|refusal| says(object, refusal, wanted))
    })
}

/// Whether it was Ensign that refused the pod, and in these words. Of several reasons the API server passes one on, so that
/// a labelled pod may hear no more than that no binding that is ready covers it.
fn says(pod: &Value, refusal: &str, wanted: &str) -> bool {
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
