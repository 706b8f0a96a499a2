//! Role assignments: what plans do to them, and what must be true of every one.

use std::collections::BTreeMap;

use ensign_azure_emulator::LogEntry;
use ensign_azure_emulator::state::State;
use ensign_azure_emulator::state::roles::{Permission, RoleAssignment, RoleDefinition};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::dedicated::name_in_azure;
use super::eventually::text;
use super::harness::{Checked, Harness};
use super::history::Version;
use super::lock::lock;

pub const IDENTITY: &str = "ManagedIdentity";
/// The creator of foreign assignments.
const SOMEBODY: &str = "b0000000-0000-4000-8000-000000000001";

impl Harness {
    fn group(&self) -> String {
        let info = self.azure.info();
        format!("/subscriptions/{}/resourceGroups/{}", info.subscription_id, info.resource_group)
    }

    /// A storage account in the plan's resource group.
    pub fn storage(&self) -> String {
        format!("{}/providers/Microsoft.Storage/storageAccounts/data", self.group())
    }

    /// Two roles: one on the resource group, one on a resource in it.
    pub fn two_roles(&self) -> Value {
        json!([
            {"roleDefinition": "Reader", "scope": self.group()},
            {"roleDefinition": "Storage Blob Data Reader", "scope": self.storage()},
        ])
    }

    /// Sets the roles of the object.
    pub fn ask_for_roles(&self, name: &str, roles: &Value) {
        self.patch(IDENTITY, "", name, &json!({"spec": {"roleAssignments": roles}}));
    }

    /// Waits until the object's roles are assigned.
    pub fn roles_ready(&self, name: &str) -> Checked {
        self.condition(IDENTITY, "", name, "PermissionsReady", "True", "Granted")
    }

    /// Every role assignment in Azure, by its GUID.
    pub fn assignments(&self) -> BTreeMap<String, RoleAssignment> {
        self.azure.with_state(|state| state.role_assignments.clone())
    }

    /// Waits until Azure has this many role assignments besides those created by hand.
    pub fn assigned(&self, count: usize) -> Checked {
        self.eventually(&format!("{count} role assignment(s)"), |harness| {
            let foreign = lock(&harness.by_hand).clone();
            let found: Vec<RoleAssignment> =
                harness.assignments().into_values().filter(|one| !foreign.contains_key(&one.name)).collect();
            if found.len() == count { Ok(()) } else { Err(format!("{found:?}")) }
        })
    }

    /// Assigns a role by hand to the identity of this name in Azure. Ensign must not change or delete it.
    pub fn assign_by_hand(&self, number: u8, identity: &str, role: &str, scope: &str) {
        let key = self.arm_id(identity).key();
        self.meddle(|state| {
            let assignment = RoleAssignment {
                name: format!("b1a00000-0000-4000-8000-0000000000{number:02x}"),
                scope: scope.to_owned(),
                role: guid(state, role),
                principal_id: state.identities.get(&key).expect("the identity").principal_id.clone(),
                principal_type: "ServicePrincipal".to_owned(),
                description: Some("by hand".to_owned()),
                condition: None,
                condition_version: None,
                created_on: Timestamp::UNIX_EPOCH,
                updated_on: Timestamp::UNIX_EPOCH,
                created_by: SOMEBODY.to_owned(),
            };
            lock(&self.by_hand).insert(assignment.name.clone(), assignment.clone());
            state.role_assignments.insert(assignment.name.clone(), assignment);
        });
    }

    /// Defines a custom role.
    pub fn define_role(&self, number: u8, name: &str, actions: &[&str]) {
        let permission =
            Permission { actions: actions.iter().map(ToString::to_string).collect(), ..Permission::default() };
        let role = RoleDefinition {
            name: format!("c0500000-0000-4000-8000-0000000000{number:02x}"),
            role_name: name.to_owned(),
            description: String::new(),
            builtin: false,
            permissions: vec![permission],
            assignable_scopes: vec!["/".to_owned()],
        };
        self.meddle(|state| state.role_definitions.insert(role.name.clone(), role));
    }

    /// Writes of role assignments.
    pub fn role_writes(&self) -> Vec<LogEntry> {
        self.azure_writes().into_iter().filter(|entry| assignment_of(entry).is_some()).collect()
    }
}

/// The GUID of a role that is given by name or GUID.
fn guid(state: &State, role: &str) -> String {
    let mut known = ensign_azure_emulator::state::roles::builtin().iter().chain(state.role_definitions.values());
    let found = known.find(|known| known.role_name.eq_ignore_ascii_case(role));
    found.map_or_else(|| role.to_lowercase(), |found| found.name.clone())
}

/// The GUID of a request's role assignment.
fn assignment_of(entry: &LogEntry) -> Option<String> {
    let lower = entry.path.to_lowercase();
    let (_, name) = lower.rsplit_once("/providers/microsoft.authorization/roleassignments/")?;
    Some(name.to_owned())
}

/// A role assignment, regardless of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Assignment {
    role: String,
    scope: String,
    principal: String,
}

impl Assignment {
    /// What a PUT assigns.
    fn by(entry: &LogEntry) -> Self {
        let body = entry.body.clone().unwrap_or_default();
        let problem = |name: &str| text(&body["properties"][name]).to_lowercase();
        let role = problem("roleDefinitionId");
        let lower = entry.path.to_lowercase();
        let scope = lower.split("/providers/microsoft.authorization/").next().unwrap_or_default().to_owned();
        Self { role: role.rsplit('/').next().unwrap_or_default().to_owned(), scope, principal: problem("principalId") }
    }

    /// Whether a version of an object wants it: an independent, simple implementation of the rule.
    fn is_wanted_by(&self, harness: &Harness, object: &Value) -> bool {
        let entries = object["spec"]["roleAssignments"].as_array().cloned().unwrap_or_default();
        let own = object["status"]["principalID"].as_str().unwrap_or_default().to_lowercase() == self.principal;
        own && entries.iter().any(|entry| {
            let role = harness.azure.with_state(|state| guid(state, text(&entry["roleDefinition"])));
            role == self.role && text(&entry["scope"]).to_lowercase() == self.scope
        })
    }
}

/// The live objects that want it, at a time.
fn asking(harness: &Harness, given: &Assignment, time: Timestamp) -> Vec<Version> {
    let all = harness.history.at(IDENTITY, time).into_iter();
    all.filter(|found| !found.is_deleting() && given.is_wanted_by(harness, &found.object)).collect()
}

/// O3 of roles. Each is assigned for a live object that wants it, has its finalizer and has recorded the assignment
/// in status, in no scope above a resource group; what is unassigned was assigned by us, and no object wants it any more. At the
/// end, what is ours is wanted, and what others assigned is unchanged.
pub fn judge(harness: &Harness, own: &[LogEntry], broken: &mut Vec<String>) {
    let mut ours: BTreeMap<String, Assignment> = BTreeMap::new();
    for entry in own {
        let Some(name) = assignment_of(entry) else { continue };
        let mut problem = |why: &str| broken.push(format!("O3: {} {}: {why}", entry.method, entry.path));
        if lock(&harness.by_hand).contains_key(&name) {
            problem("it was created by hand");
        }
        if entry.method == "PUT" {
            let given = Assignment::by(entry);
            let objects = asking(harness, &given, entry.time);
            let is_ready = |found: &&Version| found.has_finalizer() && is_recorded(&found.object, &name);
            match objects.iter().find(is_ready) {
                None if objects.is_empty() => problem("no live object wants it"),
                None => problem("it was sent before the finalizer and its record were written"),
                Some(found) => {
                    let body = entry.body.clone().unwrap_or_default();
                    let description = text(&body["properties"]["description"]).to_lowercase();
                    if !description.contains(&found.uid) || !description.contains(&name) {
                        problem("it does not name its owner");
                    }
                }
            }
            if !given.scope.contains("/resourcegroups/") {
                problem("its scope is above a resource group");
            }
            ours.insert(name, given);
            continue;
        }
        let Some(given) = ours.get(&name) else {
            problem("it was not assigned by us");
            continue;
        };
        // Changes by others than the controller are recorded with a short delay.
        let moments = [0, 10, 25, 50, 100, 200, 500].map(|millis| entry.time + SignedDuration::from_millis(millis));
        if moments.into_iter().all(|time| !asking(harness, given, time).is_empty()) {
            problem("a live object wants it");
        }
    }
    let there = harness.assignments();
    for (name, made) in lock(&harness.by_hand).iter() {
        if there.get(name) != Some(made) {
            broken.push(format!("O3: {name} was assigned by hand, but now it is {:?}", there.get(name)));
        }
    }
    for (name, given) in ours.iter().filter(|(name, _)| there.contains_key(*name)) {
        if asking(harness, given, Timestamp::now()).is_empty() {
            broken.push(format!("O3: role assignment {name} is left, but no live object wants it: {given:?}"));
        }
    }
}

fn is_recorded(object: &Value, name: &str) -> bool {
    let records = object["status"]["roleAssignments"].as_array();
    records.is_some_and(|records| records.iter().any(|one| text(&one["name"]).eq_ignore_ascii_case(name)))
}

/// O5 of roles: `PermissionsReady=True` only if every recorded assignment was written before.
pub fn untruthful_status(harness: &Harness, own: &[LogEntry], broken: &mut Vec<String>) {
    let puts: Vec<(&LogEntry, Assignment)> = own
        .iter()
        .filter(|entry| entry.method == "PUT" && assignment_of(entry).is_some())
        .map(|e| (e, Assignment::by(e)))
        .collect();
    for version in harness.history.all(IDENTITY).iter().flatten() {
        let ready = super::eventually::condition_of(&version.object, "PermissionsReady");
        let current = version.object["status"]["observedGeneration"] == version.object["metadata"]["generation"];
        if ready.is_none_or(|ready| ready["status"] != "True") || !current || version.is_deleting() {
            continue;
        }
        let records = version.object["status"]["roleAssignments"].as_array().cloned().unwrap_or_default();
        for record in records.iter().filter(|record| record["origin"] == "Created") {
            let confirmed = puts.iter().any(|(entry, _)| {
                entry.time <= version.known && assignment_of(entry).as_deref() == Some(text(&record["name"]))
            });
            if !confirmed {
                let name = name_in_azure(&version.object);
                broken.push(format!("O5: {name} reports its roles as assigned, but {record} never was"));
            }
        }
    }
}

/// Role assignments for snapshots, without their GUIDs, which depend on UIDs.
pub fn shown(state: &State) -> Vec<Value> {
    let mut all: Vec<Value> = state
        .role_assignments
        .values()
        .map(|one| {
            let holder = state.identities.values().find(|held| held.principal_id == one.principal_id);
            json!({"role": one.role, "scope": one.scope, "of": holder.map(|held| held.id.name.clone())})
        })
        .collect();
    all.sort_by_key(ToString::to_string);
    all
}
