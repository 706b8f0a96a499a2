//! Plans generated from reference runs: one for each point and moment, and one for each way in which a request can fail.

use ensign_controller::Phase;
use serde_json::{Value, json};

use super::gate::GateAction;
use super::harness::IN_TWO_MINUTES;
use super::oracles::Allowances;
use super::plan::{Fault, Plan};
use super::scenarios::{self, Scenario};

/// The reference run of a scenario.
pub fn reference(scenario: &'static Scenario) -> Plan {
    plan(scenario, "reference", &[], Fault::None)
}

/// Plans for every point that the reference run reached.
pub fn at_points(scenario: &'static Scenario, points: &[String]) -> Vec<Plan> {
    let mut plans = Vec::new();
    for (index, point) in points.iter().enumerate() {
        let of_roles = point.starts_with("assign-role") || point.starts_with("unassign-role");
        let name = brief(point).replace(" under ", ".").replace(['/', ' ', '#'], ".").replace("..", ".");
        let mut add = |what: &str, rows: &[u32], fault: Fault| {
            // Other faults at points that roles share with other scenarios are covered there.
            if scenario.name.ends_with("roles") && !of_roles && !what.starts_with("crash") {
                return;
            }
            let mut plan = plan(scenario, &format!("{name}/{what}"), rows, fault);
            plan.quick = scenario.name == "create" && index % 2 == 0 && what == "crash-applied";
            plans.push(plan);
        };
        let in_azure = point.starts_with("put") || point.starts_with("delete") || of_roles;
        let is_event = point.starts_with("event");
        let crash: &[u32] = if point.starts_with("add-finalizer") || point.starts_with("put") { &[1, 2] } else { &[1] };
        add("crash-applied", crash, Fault::Crash(point.clone(), Phase::Applied));
        if is_event {
            continue;
        }
        add("crash-before", crash, Fault::Crash(point.clone(), Phase::Before));
        add("crash-answered", crash, Fault::Crash(point.clone(), Phase::Answered));
        let is_status = point.starts_with("status");
        if !is_status || index % 3 == 0 {
            add("answer-lost", if in_azure { &[11] } else { &[15] }, Fault::AnswerLost(point.clone()));
            add("server-trouble", if in_azure { &[10] } else { &[17] }, Fault::Trouble(point.clone()));
        }
        if !in_azure && (!is_status || index % 3 == 1) {
            add("conflict", &[15], Fault::Conflict(point.clone()));
        }
        if in_azure && index < 6 {
            add("clock-forward", &[22], Fault::ClockJump(point.clone(), 10));
            add("clock-back", &[22], Fault::ClockJump(point.clone(), -10));
        }
    }
    plans
}

/// A point without an assignment's subscription and resource group, which are the same in all plans.
fn brief(point: &str) -> String {
    let Some((before, after)) = point.split_once(" in /subscriptions/") else { return point.to_owned() };
    let act = before.split(' ').next().unwrap_or_default();
    let (scope, object) = after.split_once(" for ").unwrap_or((after, ""));
    format!("{act} {} {object}", scope.rsplit('/').next().unwrap_or_default())
}

/// Failures of Azure by name, with the rows of the matrix.
fn failures() -> Vec<(&'static str, &'static [u32], Value)> {
    let concurrent = "ConcurrentFederatedIdentityCredentialsWritesForSingleManagedIdentity";
    let throttled = "SubscriptionRequestsThrottled";
    vec![
        ("429-seconds", &[7], json!({"status": 429, "code": throttled, "retryAfter": "77"})),
        ("429-date", &[7], json!({"status": 429, "code": throttled, "retryAfter": IN_TWO_MINUTES})),
        ("429-bare", &[7], json!({"status": 429, "code": throttled})),
        ("409-concurrent", &[8], json!({"status": 409, "code": concurrent})),
        ("500", &[10], json!({"status": 500, "code": "InternalServerError"})),
        ("503", &[10], json!({"status": 503, "code": "ServiceUnavailable", "retryAfter": "5"})),
        ("reset", &[10], json!("drop-before")),
        ("html-200", &[10], json!("html")),
        ("html-404", &[10], json!({"status": 404, "html": true})),
        ("html-503", &[10], json!({"status": 503, "html": true})),
        ("half-a-json", &[10, 11], json!("truncated-json")),
        ("applied-then-500", &[11], json!("apply-then-500")),
        ("applied-then-dropped", &[11], json!("apply-then-drop")),
        ("401", &[14], json!({"status": 401, "code": "InvalidAuthenticationToken"})),
        ("403", &[14], json!({"status": 403, "code": "AuthorizationFailed"})),
    ]
}

/// Each failure at each operation of Azure.
pub fn azure_failures() -> Vec<Plan> {
    let get = json!({"method": "GET", "pathContains": "/userAssignedIdentities/orders?"});
    let list = json!({"method": "GET", "pathContains": "federatedIdentityCredentials?"});
    let mut plans = Vec::new();
    for (name, rows, action) in failures() {
        let writes = name.starts_with("409");
        let mut add = |scenario: &str, what: &str, matching: &Value, nth: u32, times: u32| {
            let rule = json!([{"match": matching, "nth": nth, "times": times, "action": action}]);
            let id = format!("azure/{what}/{name}");
            plans.push(plan_named(scenarios::named(scenario), &id, rows, Fault::Azure(rule)));
        };
        add("delete", "put", &json!({"method": "PUT"}), 1, 1);
        add("revoke", "put-thrice", &json!({"method": "PUT"}), 2, 3);
        add("delete", "delete", &json!({"method": "DELETE"}), 1, 1);
        add("revoke", "delete-thrice", &json!({"method": "DELETE"}), 1, 3);
        if !writes {
            add("create", "get", &get, 1, 1);
            for nth in [1, 3, 4, 5] {
                add("delete", &format!("list-{nth}"), &list, nth, 2);
            }
            let page = json!({"method": "GET", "pathContains": "skiptoken"});
            for nth in [1, 3, 5] {
                let rule = json!([{"match": page, "nth": nth, "times": 2, "action": action}]);
                let id = format!("azure/page-2-{nth}/{name}");
                plans.push(plan_named(scenarios::named("pages"), &id, &[13], Fault::Azure(rule)));
            }
        }
    }
    for (operation, matching) in
        [("put", json!({"method": "PUT"})), ("delete", json!({"method": "DELETE"})), ("list", list)]
    {
        let rule = json!([{"match": matching, "nth": 1, "action": {"delayMs": 22_000}}]);
        let id = format!("azure/{operation}/timeout");
        let plan = plan_named(scenarios::named("delete"), &id, &[10], Fault::Azure(rule));
        // The client has given up on such a write, but it is applied.
        let allowances = Allowances { stale_write: operation == "put", ..Allowances::NONE };
        plans.push(Plan { allowances, ..plan });
    }
    plans
}

/// Each scenario with reads that are always as late as the controller has to expect: then nothing more is written than with
/// reads that do not lag.
pub fn late_reads() -> Vec<Plan> {
    let late = |scenario: &'static Scenario| {
        let action = json!({"stale": {"seconds": 100}});
        let rule = json!([{"match": {"kind": "arm-read"}, "times": 100_000, "action": action}]);
        let mut plan = plan(scenario, "late-reads", &[33], Fault::Azure(rule));
        plan.quick = matches!(scenario.name, "delete" | "provisioned");
        plan
    };
    scenarios::ALL.iter().map(late).collect()
}

/// For minutes, Entra does not know a new identity: its first credential is refused, with a status that is not known for
/// certain.
pub fn unknown_in_entra() -> Vec<Plan> {
    let message = "MS Graph resource not found during Federated Identity Credential creation.";
    let refused = |status: u16| {
        let puts = json!({"method": "PUT", "pathContains": "/federatedIdentityCredentials/"});
        let action = json!({"status": status, "code": if status == 404 { "NotFound" } else { "BadRequest" }, "message": message});
        let rule = json!([{"match": puts, "times": 5, "action": action}]);
        plan_named(scenarios::named("provisioned"), &format!("azure/put/{status}-graph"), &[36], Fault::Azure(rule))
    };
    [400, 404].map(refused).into()
}

/// Failures at each operation on roles: the general ones that matter there, and those that
/// only roles have.
pub fn role_failures() -> Vec<Plan> {
    let of_roles: [(&'static str, &'static [u32], Value); 3] = [
        ("409-exists", &[8], json!({"status": 409, "code": "RoleAssignmentExists"})),
        ("400-unknown-principal", &[12], json!({"status": 400, "code": "PrincipalNotFound"})),
        ("404-unknown-scope", &[10], json!({"status": 404, "code": "ResourceNotFound"})),
    ];
    let some = ["429-seconds", "500", "reset", "html-404", "half-a-json", "applied-then-dropped", "401", "403"];
    let general = failures().into_iter().filter(|(name, ..)| some.contains(name));
    let mut plans = Vec::new();
    for (name, rows, action) in general.chain(of_roles) {
        let mut add = |what: &str, method: &str, path: &str, nth: u32, times: u32| {
            let matching = json!({"method": method, "pathContains": path});
            let rule = json!([{"match": matching, "nth": nth, "times": times, "action": action}]);
            let id = format!("azure/{what}/{name}");
            plans.push(plan_named(scenarios::named("roles"), &id, rows, Fault::Azure(rule)));
        };
        let exists = name == "409-exists";
        let gone = name == "404-unknown-scope";
        add("assign-role", "PUT", "/roleAssignments/", 1, 1);
        add("assign-role-thrice", "PUT", "/roleAssignments/", 2, 3);
        if !exists && !gone && name != "400-unknown-principal" {
            add("unassign-role", "DELETE", "/roleAssignments/", 1, 1);
            add("unassign-role-thrice", "DELETE", "/roleAssignments/", 2, 3);
            if name != "applied-then-dropped" {
                add("list-roles", "GET", "/roleAssignments?", 2, 2);
                add("look-role-up", "GET", "/roleDefinitions", 1, 2);
            }
        }
    }
    plans
}

/// Failures of the API server.
pub fn kubernetes_failures() -> Vec<Plan> {
    let ways = [
        ("429", GateAction::Answer { status: 429, retry_after: Some(1) }),
        ("503", GateAction::Answer { status: 503, retry_after: None }),
        ("500", GateAction::Answer { status: 500, retry_after: None }),
        ("reset", GateAction::DropBefore),
        ("slow", GateAction::Delay(std::time::Duration::from_millis(300))),
    ];
    let mut plans = Vec::new();
    for (name, action) in ways {
        for (operation, method, contains) in [
            ("patch", "PATCH", vec!["/managedidentit"]),
            ("read", "GET", vec!["/managedidentitybindings/app"]),
            ("list", "GET", vec!["managedidentitybindings?", "limit"]),
            ("watch", "GET", vec!["watch=true"]),
        ] {
            let contains = contains.into_iter().map(str::to_owned).collect();
            let id = format!("kubernetes/{operation}/{name}");
            let fault = Fault::Kube(method, contains, 0, 3, action.clone());
            plans.push(plan_named(scenarios::named("create"), &id, &[17], fault));
        }
    }
    plans
}

fn plan(scenario: &'static Scenario, what: &str, rows: &[u32], fault: Fault) -> Plan {
    let mut all = rows.to_vec();
    all.extend(scenario.rows);
    plan_named(scenario, &format!("{}/{what}", scenario.name), &all, fault)
}

fn plan_named(scenario: &'static Scenario, id: &str, rows: &[u32], fault: Fault) -> Plan {
    Plan {
        id: id.to_owned(),
        rows: rows.to_vec(),
        scenario,
        fault,
        allowances: Allowances::NONE,
        compared: true,
        quick: false,
        alone: false,
    }
}
