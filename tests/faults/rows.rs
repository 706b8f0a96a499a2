//! The rows of the matrix that no generated plan covers: scenarios with a fault of their own inside.

use std::sync::Arc;
use std::time::Duration;

use ensign::emulator::state::{DenyPolicy, Lock, LockLevel};
use serde_json::json;

use super::clock::lock;
use super::gate::{GateAction, GateRule};
use super::oracles::Licence;
use super::plan::{Fault, Plan};
use super::scenarios::{Scenario, begin};
use super::world::{Checked, RESYNC, World};

const BINDING: &str = "ManagedIdentityBinding";
const IDENTITY: &str = "ManagedIdentity";
const BINDINGS: &str = "/apis/ensign.dev/v1alpha1/managedidentitybindings";
const IDENTITIES: &str = "/apis/ensign.dev/v1alpha1/managedidentities";
const NAMESPACES: &str = "/api/v1/namespaces";

macro_rules! rows {
    ($($row:expr, $name:ident $(, $licence:ident)?;)*) => {
        static ROWS: &[(&[u32], Scenario, Licence)] = &[$((
            &$row,
            Scenario { name: stringify!($name), run: $name, rows: &$row },
            Licence { $($licence: true,)? ..Licence::NONE },
        ),)*];
    };
}

rows! {
    [3], revoked_unseen;
    [3], deleted_unseen;
    [3], label_unseen;
    [3], claim_unseen;
    [4], old_list_knows_a_binding_too_many;
    [4], old_list_lacks_a_binding;
    [5], made_and_deleted_unseen;
    [5], same_name_new_uid_unseen, stripped;
    [7], other_subscriptions_go_on;
    [7], a_subscription_waits_as_one;
    [7], kubernetes_goes_on_in_a_pause;
    [7], the_limits_are_kept;
    [12], stale_list_is_no_storm;
    [14, 25], forbidden_is_not_gone;
    [10, 25], trouble_is_not_gone;
    [10, 25], a_page_for_people_is_not_gone;
    [16], watches_cut_and_expired;
    [16], half_open_watch;
    [18], poison_is_one_objects_problem;
    [24], drift_is_repaired_once;
    [25], no_parent_releases;
    [28], owner_of_twins_goes;
    [29], clone_of_a_cluster, rivals;
    [30], stripped_finalizer, stripped;
    [30], tenants_cannot_abandon;
    [31], locked;
    [31], forbidden_by_policy;
    [9, 32], revoked_over_an_adopted_credential;
    [9, 32], taken_name_is_left;
    [29], own_prefix_is_not_ownership;
    [26], create_goes_before_delete;
}

/// A plan for each scenario of this file.
pub fn plans() -> Vec<Plan> {
    let plan = |(rows, scenario, licence): &'static (&[u32], Scenario, Licence)| Plan {
        id: scenario.name.replace('_', "-"),
        rows: rows.to_vec(),
        scenario,
        fault: Fault::None,
        licence: *licence,
        compared: false,
        quick: true,
    };
    ROWS.iter().map(plan).collect()
}

fn settled(world: &Arc<World>) -> Checked {
    begin(world)?;
    world.binding("shop", "app", "orders", "app");
    world.ready("shop", "app")?;
    world.identity_ready("orders")
}

/// Nothing is written to Azure while a drift period passes.
fn azure_untouched(world: &World) -> Checked {
    let before = world.azure_writes().len();
    world.pass_slowly(RESYNC * 5 / 4)?;
    let after = world.azure_writes();
    if after.len() == before { Ok(()) } else { Err(format!("written on an old word: {:?}", &after[before..])) }
}

fn revoked_unseen(world: &Arc<World>) -> Checked {
    settled(world)?;
    world.gate.hold(&[IDENTITIES]);
    world.patch(IDENTITY, "", "orders", &json!({"spec": {"allowedSubjects": []}}));
    world.meddle("orders", &world.credential_name("shop", "app"), None);
    azure_untouched(world)?;
    world.gate.release();
    world.refused("shop", "app", "NotAllowed")?;
    world.trusts("orders", &[])
}

fn deleted_unseen(world: &Arc<World>) -> Checked {
    settled(world)?;
    world.gate.hold(&[BINDINGS]);
    world.delete(BINDING, "shop", "app");
    world.meddle("orders", &world.credential_name("shop", "app"), None);
    azure_untouched(world)?;
    world.gate.release();
    world.binding_gone("shop", "app")?;
    world.trusts("orders", &[])
}

fn label_unseen(world: &Arc<World>) -> Checked {
    world.namespace("shop", &json!({"team": "orders"}));
    world.azure_identity("orders", &[]);
    let selector = json!({"matchLabels": {"team": "orders"}});
    let grants = json!([{"name": "team", "namespaceSelector": selector, "serviceAccounts": ["*"]}]);
    world.managed_identity("orders", "orders", &grants, &json!({}));
    world.start();
    world.binding("shop", "app", "orders", "app");
    world.ready("shop", "app")?;
    world.gate.hold(&[NAMESPACES]);
    world.patch("Namespace", "", "shop", &json!({"metadata": {"labels": {"team": "payments"}}}));
    world.meddle("orders", &world.credential_name("shop", "app"), None);
    azure_untouched(world)?;
    world.gate.release();
    world.refused("shop", "app", "NotAllowed")?;
    world.trusts("orders", &[])
}

/// A new binding wants what the deletion of the old one is about to take away.
fn claim_unseen(world: &Arc<World>) -> Checked {
    settled(world)?;
    world.azure_fails(&json!([{"match": {"method": "GET"}, "times": 1000, "action": {"status": 503}}]));
    world.delete(BINDING, "shop", "app");
    world.quiet(std::time::Instant::now())?;
    world.gate.hold(&[BINDINGS]);
    world.binding("shop", "heir", "orders", "app");
    let finalizer = json!({"metadata": {"finalizers": [super::history::FINALIZER]}});
    world.patch(BINDING, "shop", "heir", &finalizer);
    world.azure_fails(&json!([]));
    azure_untouched(world)?;
    world.gate.release();
    world.binding_gone("shop", "app")?;
    world.ready("shop", "heir")?;
    world.trusts("orders", &[("shop", "app")])
}

fn restart_onto(world: &Arc<World>, list: &bytes::Bytes) {
    world.gate.rule(GateRule {
        method: "GET",
        contains: vec![format!("{BINDINGS}?")],
        skip: 0,
        times: 1,
        action: GateAction::Replay(list.clone()),
        fired: Arc::default(),
    });
    world.gate.hold(&[BINDINGS]);
    world.probe.crash_now();
}

fn old_list_knows_a_binding_too_many(world: &Arc<World>) -> Checked {
    settled(world)?;
    // The list of a controller that starts now has the binding.
    world.probe.crash_now();
    world.pass_slowly(RESYNC * 5 / 4)?;
    let old = world.gate.last_list(BINDINGS);
    world.delete(BINDING, "shop", "app");
    world.binding_gone("shop", "app")?;
    restart_onto(world, &old);
    azure_untouched(world)?;
    world.gate.release();
    world.until("the binding to be forgotten", |_| Ok(()))?;
    world.trusts("orders", &[])
}

fn old_list_lacks_a_binding(world: &Arc<World>) -> Checked {
    settled(world)?;
    world.probe.crash_now();
    world.pass_slowly(RESYNC * 5 / 4)?;
    let old = world.gate.last_list(BINDINGS);
    world.binding("shop", "more", "orders", "more");
    world.ready("shop", "more")?;
    restart_onto(world, &old);
    azure_untouched(world)?;
    world.gate.release();
    world.ready("shop", "more")?;
    world.trusts("orders", &[("shop", "app"), ("shop", "more")])
}

fn made_and_deleted_unseen(world: &Arc<World>) -> Checked {
    settled(world)?;
    let before = world.azure_writes().len();
    world.gate.hold(&[BINDINGS]);
    world.binding("shop", "brief", "orders", "brief");
    world.delete(BINDING, "shop", "brief");
    world.gate.release();
    world.pass_slowly(RESYNC * 5 / 4)?;
    if world.azure_writes().len() != before {
        return Err("something was written for a binding that came and went".to_owned());
    }
    world.trusts("orders", &[("shop", "app")])
}

fn same_name_new_uid_unseen(world: &Arc<World>) -> Checked {
    settled(world)?;
    // Azure is away, so that the deletion is seen and can't be done; somebody else does it.
    world.azure_fails(&json!([{"match": {"method": "GET"}, "times": 1000, "action": {"status": 503}}]));
    world.delete(BINDING, "shop", "app");
    world.quiet(std::time::Instant::now())?;
    world.gate.hold(&[BINDINGS]);
    world.patch(BINDING, "shop", "app", &json!({"metadata": {"finalizers": []}}));
    world.happens("the old binding to be gone", |world| world.live(BINDING, "shop", "app").is_none())?;
    world.meddle("orders", &world.credential_name("shop", "app"), None);
    world.binding("shop", "app", "orders", "app");
    let held = json!({"metadata": {"finalizers": [super::history::FINALIZER]}});
    world.patch(BINDING, "shop", "app", &held);
    world.azure_fails(&json!([]));
    world.pass_slowly(RESYNC * 5 / 4)?;
    let now = world.live(BINDING, "shop", "app").unwrap_or_default();
    if now["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
        return Err("the finalizer of another object of the same name was taken off".to_owned());
    }
    if !now["status"]["conditions"].is_null() {
        return Err("another object of the same name got the status".to_owned());
    }
    world.gate.release();
    world.ready("shop", "app")?;
    world.trusts("orders", &[("shop", "app")])
}

fn other_subscriptions_go_on(world: &Arc<World>) -> Checked {
    settled(world)?;
    world.azure_identity("far", &[]);
    world.managed_identity("far", "far", &json!([world.grant("shop")]), &json!({}));
    world.identity_ready("far")?;
    let near = world.azure.info().subscription_id.clone();
    let action = json!({"status": 429, "code": "SubscriptionRequestsThrottled", "retryAfter": "600"});
    world.azure_fails(&json!([{"match": {"pathContains": near}, "action": action}]));
    let from = world.clock.passed();
    world.binding("shop", "near", "orders", "near");
    world.quiet(std::time::Instant::now())?;
    world.binding("shop", "far", "far", "far");
    world.ready("shop", "far")?;
    if world.clock.passed() >= from + Duration::from_secs(600) {
        return Err("the other subscription waited too".to_owned());
    }
    world.ready("shop", "near")
}

/// Every identity of the subscription hears of a pause that Azure asked one of them for.
fn a_subscription_waits_as_one(world: &Arc<World>) -> Checked {
    settled(world)?;
    world.identity("audit");
    world.identity_ready("audit")?;
    pause_reads(world, Duration::from_secs(600))?;
    let asked = world.azure_log().len();
    for name in ["one", "two"] {
        world.binding("shop", name, "audit", name);
        let more = format!("more-{name}");
        world.binding("shop", &more, "orders", &more);
        world.pass_slowly(Duration::from_secs(250))?;
    }
    let more = world.azure_log().len() - asked;
    if more > 0 {
        return Err(format!("{more} requests before the pause was over"));
    }
    world.ready("shop", "one")?;
    world.ready("shop", "more-two")?;
    world.trusts("audit", &[("shop", "one"), ("shop", "two")])
}

/// Azure asks for a pause of the subscription's reads, as soon as something is read.
fn pause_reads(world: &Arc<World>, pause: Duration) -> Checked {
    let code = "SubscriptionRequestsThrottled";
    let action = json!({"status": 429, "code": code, "retryAfter": pause.as_secs().to_string()});
    world.azure_fails(&json!([{"match": {"method": "GET"}, "action": action}]));
    world.binding("shop", "unlucky", "orders", "unlucky");
    world.refused("shop", "unlucky", "Throttled")
}

/// What Kubernetes alone decides is decided and told while Azure may not be asked.
fn kubernetes_goes_on_in_a_pause(world: &Arc<World>) -> Checked {
    settled(world)?;
    world.namespace("elsewhere", &json!({}));
    pause_reads(world, Duration::from_secs(600))?;
    let from = world.clock.passed();
    world.binding("elsewhere", "stranger", "orders", "stranger");
    world.refused("elsewhere", "stranger", "NotAllowed")?;
    world.binding("shop", "friend", "orders", "friend");
    world.condition(BINDING, "shop", "friend", "Accepted", "True", "Accepted")?;
    world.delete(BINDING, "shop", "app");
    world.until("the deletion to say what it waits for", |world| {
        let left = world.live(BINDING, "shop", "app").ok_or("it was released though Azure was not asked")?;
        let ready = super::goals::condition_of(&left, "Ready");
        let blocked = ready.is_some_and(|ready| ready["reason"] == "DeletionBlocked");
        if blocked { Ok(()) } else { Err(format!("{ready:?}")) }
    })?;
    world.patch(IDENTITY, "", "orders", &json!({"spec": {"allowedSubjects": []}}));
    world.refused("shop", "friend", "NotAllowed")?;
    if world.clock.passed() >= from + Duration::from_secs(60) {
        return Err("what Kubernetes alone decides waited for Azure".to_owned());
    }
    world.binding_gone("shop", "app")?;
    world.trusts("orders", &[])
}

/// More is asked for than Azure's limits let through at once, and Azure never has to refuse.
fn the_limits_are_kept(world: &Arc<World>) -> Checked {
    const ALL: u32 = 20;
    const AGAIN: u32 = 8;
    world.azure.limit_requests(Some(world.clock.clone()));
    begin(world)?;
    let name = |number: u32| format!("app-{number}");
    (0..ALL).for_each(|number| world.binding("shop", &name(number), "orders", &name(number)));
    (0..ALL).try_for_each(|number| world.ready("shop", &name(number)))?;
    let from = world.clock.passed();
    (0..AGAIN).for_each(|number| world.delete(BINDING, "shop", &name(number)));
    (0..AGAIN).try_for_each(|number| world.binding_gone("shop", &name(number)))?;
    (0..AGAIN).for_each(|number| world.binding("shop", &name(number), "orders", &name(number)));
    (0..AGAIN).try_for_each(|number| world.ready("shop", &name(number)))?;
    // One write in four seconds, and some time for the last of a batch.
    let (took, limit) = (world.clock.passed().saturating_sub(from), Duration::from_secs(4) * (2 * AGAIN));
    if took > limit * 2 {
        return Err(format!("{took:?} for what the limit allows in {limit:?}"));
    }
    Ok(())
}

fn stale_list_is_no_storm(world: &Arc<World>) -> Checked {
    begin(world)?;
    let list = json!({"method": "GET", "pathContains": "federatedIdentityCredentials?"});
    world.azure_fails(&json!([{"match": list, "times": 4, "action": {"status": 200, "body": {"value": []}}}]));
    world.binding("shop", "app", "orders", "app");
    world.ready("shop", "app")?;
    world.pass_slowly(RESYNC * 6)?;
    let puts = world.azure_writes().len();
    if puts > 4 { Err(format!("{puts} writes for one credential")) } else { world.trusts("orders", &[("shop", "app")]) }
}

/// The binding stays, and so does its credential, until Azure can be asked.
fn held_while(world: &Arc<World>, answer: &serde_json::Value) -> Checked {
    settled(world)?;
    world.azure_fails(&json!([{"match": {"method": "GET"}, "times": 100_000, "action": answer}]));
    world.delete(BINDING, "shop", "app");
    world.pass_slowly(Duration::from_secs(3 * 3600))?;
    let binding = world.live(BINDING, "shop", "app").ok_or("the binding was released though Azure was not asked")?;
    if super::goals::condition_of(&binding, "Ready").is_none_or(|ready| ready["status"] != "False") {
        return Err(format!("nobody is told why the deletion takes long: {}", binding["status"]));
    }
    world.trusts("orders", &[("shop", "app")])?;
    let asked = world.azure_log().len();
    if asked > 250 {
        return Err(format!("{asked} requests in three hours of trouble"));
    }
    world.azure_fails(&json!([]));
    world.binding_gone("shop", "app")?;
    world.trusts("orders", &[])
}

fn forbidden_is_not_gone(world: &Arc<World>) -> Checked {
    held_while(world, &json!({"status": 403, "code": "AuthorizationFailed"}))
}

fn trouble_is_not_gone(world: &Arc<World>) -> Checked {
    held_while(world, &json!({"status": 500, "code": "InternalServerError"}))
}

fn a_page_for_people_is_not_gone(world: &Arc<World>) -> Checked {
    held_while(world, &json!({"status": 404, "html": true}))
}

fn watches_cut_and_expired(world: &Arc<World>) -> Checked {
    settled(world)?;
    for (round, account) in ["one", "two", "three"].into_iter().enumerate() {
        world.gate.rule(GateRule {
            method: "GET",
            contains: vec!["watch=true".to_owned()],
            skip: 0,
            times: 2 + u32::try_from(round).expect("a few"),
            action: GateAction::Answer { status: 410, retry_after: None },
            fired: Arc::default(),
        });
        world.gate.cut();
        world.binding("shop", account, "orders", account);
        // The watches come back on the real clock.
        world.happens("the binding to be ready", |world| {
            let binding = world.live(BINDING, "shop", account).unwrap_or_default();
            super::goals::condition_of(&binding, "Ready").is_some_and(|ready| ready["status"] == "True")
        })?;
    }
    world.trusts("orders", &[("shop", "app"), ("shop", "one"), ("shop", "two"), ("shop", "three")])
}

fn half_open_watch(world: &Arc<World>) -> Checked {
    settled(world)?;
    world.gate.hold(&[BINDINGS, IDENTITIES, NAMESPACES]);
    world.binding("shop", "more", "orders", "more");
    world.delete(BINDING, "shop", "app");
    azure_untouched(world)?;
    world.gate.cut();
    world.gate.release();
    world.happens("the new binding to be seen", |world| {
        world.live(BINDING, "shop", "more").is_some_and(|binding| binding["status"].is_object())
    })?;
    world.ready("shop", "more")?;
    world.binding_gone("shop", "app")?;
    world.trusts("orders", &[("shop", "more")])
}

fn poison_is_one_objects_problem(world: &Arc<World>) -> Checked {
    world.gate.replace(r#""serviceAccountName":"poison""#, r#""serviceAccountName":{"not":"text"}"#);
    begin(world)?;
    world.binding("shop", "poison", "orders", "poison");
    world.binding("shop", "app", "orders", "app");
    world.ready("shop", "app")?;
    world.probe.crash_now();
    world.binding("shop", "later", "orders", "later");
    world.ready("shop", "later")?;
    world.delete(BINDING, "shop", "app");
    world.binding_gone("shop", "app")?;
    world.trusts("orders", &[("shop", "later")])
}

fn drift_is_repaired_once(world: &Arc<World>) -> Checked {
    settled(world)?;
    let mut foreign = world.credential("foreign", "elsewhere", "x");
    "https://another.faults.test".clone_into(&mut foreign.issuer);
    world.meddle("orders", "foreign", Some(foreign.clone()));
    let name = world.credential_name("shop", "app");
    let right = world.credential(&name, "shop", "app");
    let mut audience = right.clone();
    audience.audiences = vec!["api://Else".to_owned()];
    let mut subject = right.clone();
    "system:serviceaccount:elsewhere:intruder".clone_into(&mut subject.subject);
    for edited in [None, Some(audience), Some(subject)] {
        let before = world.azure_writes().len();
        world.meddle("orders", &name, edited);
        world.pass_slowly(RESYNC * 5 / 4)?;
        let writes = world.azure_writes().len() - before;
        if writes != 1 {
            return Err(format!("{writes} writes for one drift"));
        }
        let stands = world.credentials("orders").into_iter().find(|found| found.name == name);
        if stands.is_none_or(|found| found.subject != right.subject || found.audiences != right.audiences) {
            return Err("the drift was not repaired".to_owned());
        }
    }
    let found = world.credentials("orders").into_iter().find(|found| found.name == "foreign");
    if found == Some(foreign) { Ok(()) } else { Err("a foreign credential changed".to_owned()) }
}

fn no_parent_releases(world: &Arc<World>) -> Checked {
    settled(world)?;
    world.remove_azure_identity("orders");
    world.delete(BINDING, "shop", "app");
    world.binding_gone("shop", "app")?;
    world.delete(IDENTITY, "", "orders");
    world.gone(IDENTITY, "", "orders")
}

fn owner_of_twins_goes(world: &Arc<World>) -> Checked {
    settled(world)?;
    world.managed_identity("orders-twin", "orders", &json!([world.grant("shop")]), &json!({}));
    world.condition(IDENTITY, "", "orders-twin", "Accepted", "False", "DuplicateIdentity")?;
    world.binding("shop", "other", "orders-twin", "other");
    world.refused("shop", "other", "ManagedIdentityNotAccepted")?;
    world.delete(IDENTITY, "", "orders");
    world.gone(IDENTITY, "", "orders")?;
    world.ready("shop", "other")?;
    world.trusts("orders", &[("shop", "other")])
}

fn clone_of_a_cluster(world: &Arc<World>) -> Checked {
    let twin = World::beside(&format!("{}c", world.plan), world.mutant, world.azure.clone());
    "https://issuer.faults.test/clone".clone_into(&mut lock(&twin.issuer));
    settled(world)?;
    twin.namespace("shop", &json!({}));
    twin.managed_identity("orders", "orders", &json!([twin.grant("shop")]), &json!({}));
    twin.start();
    let result = beside(world, &twin);
    twin.stop()?;
    result
}

fn beside(world: &Arc<World>, twin: &Arc<World>) -> Checked {
    twin.binding("shop", "app", "orders", "app");
    twin.ready("shop", "app")?;
    let both = [world.subject("shop", "app").to_string(), twin.subject("shop", "app").to_string()];
    let stand = |wanted: &[String]| {
        let found: Vec<String> = world.credentials("orders").into_iter().map(|found| found.subject).collect();
        let right = wanted.len() == found.len() && wanted.iter().all(|one| found.contains(one));
        if right { Ok(()) } else { Err(format!("{found:?} stand instead of {wanted:?}")) }
    };
    for one in [world, twin] {
        one.probe.crash_now();
        one.pass_slowly(RESYNC * 5 / 2)?;
        stand(&both)?;
    }
    if world.azure_writes().len() != 2 {
        return Err("the two clusters wrote more than one credential each".to_owned());
    }
    world.delete(BINDING, "shop", "app");
    world.binding_gone("shop", "app")?;
    stand(&both[1..])
}

fn stripped_finalizer(world: &Arc<World>) -> Checked {
    settled(world)?;
    world.gate.hold(&[BINDINGS]);
    world.patch(BINDING, "shop", "app", &json!({"metadata": {"finalizers": []}}));
    world.delete(BINDING, "shop", "app");
    world.gate.release();
    world.happens("the binding to be gone", |world| world.live(BINDING, "shop", "app").is_none())?;
    world.trusts("orders", &[])
}

fn tenants_cannot_abandon(world: &Arc<World>) -> Checked {
    settled(world)?;
    world.patch(BINDING, "shop", "app", &json!({"metadata": {"annotations": {"ensign.dev/abandon": "true"}}}));
    world.azure_fails(&json!([{"match": {"method": "GET"}, "times": 3, "action": {"status": 500}}]));
    world.delete(BINDING, "shop", "app");
    world.binding_gone("shop", "app")?;
    world.trusts("orders", &[])
}

/// A refusal that somebody has to lift: its own reason, tried slowly, never read as anything else.
fn lifted(world: &Arc<World>, reason: &str, lift: impl Fn()) -> Checked {
    world.binding("shop", "more", "orders", "more");
    world.refused("shop", "more", reason)?;
    let before = world.azure_writes().len();
    world.pass_slowly(Duration::from_secs(3600))?;
    let tries = world.azure_writes().len() - before;
    if tries == 0 || tries > 30 {
        return Err(format!("{tries} tries in an hour"));
    }
    lift();
    world.ready("shop", "more")
}

fn locked(world: &Arc<World>) -> Checked {
    settled(world)?;
    let scope = world.arm_id("orders").in_answers();
    world.azure.with_state(|state| state.locks.push(Lock { scope, level: LockLevel::ReadOnly }));
    lifted(world, "ResourceLocked", || world.azure.with_state(|state| state.locks.clear()))?;
    world.trusts("orders", &[("shop", "app"), ("shop", "more")])
}

fn forbidden_by_policy(world: &Arc<World>) -> Checked {
    settled(world)?;
    let scope = world.arm_id("orders").in_answers();
    let policy: DenyPolicy =
        serde_json::from_value(json!({"name": "no-federation", "scope": scope})).expect("a policy");
    world.azure.with_state(|state| state.deny_policies.push(policy));
    lifted(world, "PolicyDenied", || world.azure.with_state(|state| state.deny_policies.clear()))?;
    world.trusts("orders", &[("shop", "app"), ("shop", "more")])
}

fn revoked_over_an_adopted_credential(world: &Arc<World>) -> Checked {
    world.namespace("shop", &json!({}));
    world.identity("orders");
    world.meddle("orders", "by-hand", Some(world.credential("by-hand", "shop", "app")));
    world.start();
    world.binding("shop", "app", "orders", "app");
    world.ready("shop", "app")?;
    world.patch(IDENTITY, "", "orders", &json!({"spec": {"allowedSubjects": []}}));
    world.refused("shop", "app", "NotAllowed")?;
    world.pass_slowly(RESYNC * 5 / 4)?;
    world.trusts("orders", &[("shop", "app")])
}

fn taken_name_is_left(world: &Arc<World>) -> Checked {
    world.namespace("shop", &json!({}));
    world.identity("orders");
    let name = world.credential_name("shop", "app");
    let taken = world.credential(&name, "elsewhere", "intruder");
    world.meddle("orders", &name, Some(taken.clone()));
    world.start();
    world.binding("shop", "app", "orders", "app");
    world.refused("shop", "app", "CredentialConflict")?;
    world.pass_slowly(RESYNC * 5 / 4)?;
    if world.credentials("orders") == [taken] { Ok(()) } else { Err("a foreign credential changed".to_owned()) }
}

fn create_goes_before_delete(world: &Arc<World>) -> Checked {
    settled(world)?;
    // Azure comes back when both are wanted.
    world.azure_fails(&json!([{"match": {"method": "GET"}, "times": 1000, "action": {"status": 503}}]));
    world.delete(BINDING, "shop", "app");
    world.binding("shop", "more", "orders", "more");
    world.happens("the new binding to be seen", |world| {
        world.live(BINDING, "shop", "more").is_some_and(|binding| binding["status"].is_object())
    })?;
    world.quiet(std::time::Instant::now())?;
    world.azure_fails(&json!([]));
    world.binding_gone("shop", "app")?;
    world.ready("shop", "more")?;
    let methods: Vec<String> = world.azure_writes().into_iter().map(|entry| entry.method).collect();
    if methods == ["PUT", "PUT", "DELETE"] { Ok(()) } else { Err(format!("{methods:?}")) }
}

/// Names that look like ours, but do not recompute or are of another issuer.
fn own_prefix_is_not_ownership(world: &Arc<World>) -> Checked {
    settled(world)?;
    let ours = world.credential_name("shop", "app");
    let (stem, _) = ours.rsplit_once('-').expect("a name with a hash");
    let forged = format!("{stem}-0123456789abcdef");
    world.meddle("orders", &forged, Some(world.credential(&forged, "elsewhere", "forged")));
    let mut cluster = world.azure_cluster();
    "https://unrecorded.faults.test".clone_into(&mut cluster.issuer);
    let copied = cluster.credential_name(&world.subject("shop", "copied"));
    let mut foreign = world.credential(&copied, "shop", "copied");
    foreign.issuer.clone_from(&cluster.issuer);
    world.meddle("orders", &copied, Some(foreign));
    azure_untouched(world)?;
    world.delete(BINDING, "shop", "app");
    world.binding_gone("shop", "app")?;
    let left = world.credentials("orders").len();
    if left == 2 { Ok(()) } else { Err(format!("{left} foreign credentials are left of 2")) }
}
