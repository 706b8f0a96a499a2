//! Which roles an identity gets in Azure: the requested ones, those that are allowed, and the plan of writes.
//!
//! ```text
//! spec.roleAssignments ─► parse scope ─► is the scope allowed? ─► look up definition ─► is the role allowed?
//!                                                                                      │
//! assignments in Azure, status ────────────────────────────────────────────► plan ◄───┘
//! ```

pub mod escalation;
pub mod names;
mod role;
pub mod scope;

use std::collections::{BTreeMap, BTreeSet};

pub use escalation::RolePolicy;
pub use names::Maker;
pub use role::{ActionBlock, Assignment, RoleDefinition};
pub use scope::RoleScope;

use crate::acceptance::scopes::AllowedScopes;
use crate::failure::Failure;
use ensign_api::arm_id::is_guid;
use ensign_api::conditions::{Reason, Severity, Verdict};
use ensign_api::{CredentialOrigin, RoleAssignment as Entry, RoleAssignmentStatus as Record};

/// A lookup of a role definition: the scope in which it is visible, and its name or GUID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lookup {
    /// A resource group, or a wider scope.
    pub root: RoleScope,
    /// In lower case: names are case-insensitive in Azure.
    pub role: String,
}

impl Lookup {
    fn new(scope: &RoleScope, role: &str) -> Self {
        Self { root: scope.root(), role: role.to_lowercase() }
    }

    /// Whether the role is given by its GUID.
    pub fn is_by_guid(&self) -> bool {
        is_guid(&self.role)
    }
}

/// What Azure returned about roles in this reconcile.
#[derive(Clone, Debug, Default)]
pub struct ObservedRoles {
    /// Role definitions that were looked up.
    pub definitions: BTreeMap<Lookup, Result<RoleDefinition, Failure>>,
    /// The principal's assignments in the requested scopes, and those recorded in status; updated with every write since.
    /// `None` if they were not read.
    pub existing: Option<Result<Vec<Assignment>, Failure>>,
    /// Writes that failed, by the name of the assignment.
    pub write_failures: BTreeMap<String, Failure>,
    /// Names, in lower case, of assignments whose deletion Azure confirmed.
    pub deleted: BTreeSet<String>,
}

impl ObservedRoles {
    /// Every failure, in no particular order.
    pub fn failures(&self) -> impl Iterator<Item = &Failure> {
        let listed = self.existing.as_ref().and_then(|result| result.as_ref().err());
        let looked_up = self.definitions.values().filter_map(|result| result.as_ref().err());
        self.write_failures.values().chain(listed).chain(looked_up)
    }
}

/// What decisions about one identity's roles depend on.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The object for which they are assigned.
    pub maker: Maker<'a>,
    /// `spec.roleAssignments`.
    pub wanted: &'a [Entry],
    /// `status.roleAssignments`.
    pub records: &'a [Record],
    /// Whether all roles were assigned when that was last known.
    pub was_ready: bool,
    /// Object ID of the identity, if known.
    pub principal: Option<&'a str>,
    /// Whether the owner is being deleted, so that no role is wanted.
    pub deleting: bool,
    /// What may be assigned; `None` if role assignments are disabled in the controller.
    pub policy: Option<&'a RolePolicy>,
    /// The scopes that the controller is limited to.
    pub bounds: &'a AllowedScopes,
    /// What Azure returned.
    pub observed: &'a ObservedRoles,
}

/// A write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleWrite {
    /// Create or update the assignment.
    Put {
        /// The assignment.
        assignment: Assignment,
        /// Its description.
        description: String,
        /// The role definition that was checked.
        lookup: Lookup,
    },
    /// Delete the assignment.
    Delete(Assignment),
}

impl RoleWrite {
    /// The assignment that is written.
    pub fn assignment(&self) -> &Assignment {
        match self {
            Self::Put { assignment, .. } | Self::Delete(assignment) => assignment,
        }
    }
}

/// What was decided.
#[derive(Clone, Debug, Default)]
pub struct Permissions {
    /// Writes to Azure, in order, one at a time.
    pub writes: Vec<RoleWrite>,
    /// The new `status.roleAssignments`. An assignment is recorded before it is created.
    pub records: Vec<Record>,
    /// The condition `PermissionsReady`; `None` if no role is requested.
    pub verdict: Option<Verdict>,
    /// Why pods wait: not all roles are assigned yet. An extra role delays no pod.
    pub lacking: Option<Verdict>,
    /// Whether an assignment may exist that Ensign created for the owner.
    pub ours_left: bool,
}

/// The state of an entry of the spec.
enum EntryState {
    /// It may not be assigned.
    Rejected(Verdict),
    /// It is not known yet whether it may be assigned.
    Unresolved(Verdict),
    /// It has to exist.
    Wanted { scope: RoleScope, role: String, lookup: Lookup },
}

/// The role definitions to look up: those that are requested in an allowed scope.
pub fn lookups(inputs: &Inputs<'_>) -> BTreeSet<Lookup> {
    let Some(policy) = inputs.policy.filter(|_| !inputs.deleting) else { return BTreeSet::new() };
    allowed_scopes(inputs, policy).map(|(entry, scope)| Lookup::new(&scope, &entry.role_definition)).collect()
}

/// The scopes in which to list the principal's assignments: the smallest set that covers all requested ones.
pub fn roots(inputs: &Inputs<'_>) -> Vec<RoleScope> {
    let Some(policy) = inputs.policy else { return Vec::new() };
    let all: BTreeSet<RoleScope> = allowed_scopes(inputs, policy).map(|(_, scope)| scope.root()).collect();
    all.iter().filter(|root| !all.iter().any(|other| other != *root && other.covers(root))).cloned().collect()
}

/// Assignments that Ensign created according to status, that are no longer requested and are not in `listed`. Each has to
/// be read by its name, because a list may be stale.
pub fn unlisted<'a>(inputs: &Inputs<'a>, listed: &[Assignment]) -> Vec<(&'a Record, RoleScope)> {
    let is_listed = |record: &Record| listed.iter().any(|one| one.name.eq_ignore_ascii_case(&record.name));
    let is_requested = |record: &Record, scope: &RoleScope| {
        let present = |principal| inputs.maker.name(scope, principal, &record.role_definition_id) == record.name;
        let is = |entry: &Entry| entry.role_definition == record.role_definition && entry.scope == record.scope;
        !inputs.deleting && inputs.principal.is_some_and(present) && inputs.wanted.iter().any(is)
    };
    let created = inputs.records.iter().filter(|record| record.origin == CredentialOrigin::Created);
    created
        .filter(|record| !is_listed(record))
        .filter_map(|record| Some((record, record.scope.parse::<RoleScope>().ok()?)))
        .filter(|(record, scope)| !is_requested(record, scope))
        .collect()
}

fn allowed_scopes<'a>(
    inputs: &Inputs<'a>,
    policy: &'a RolePolicy,
) -> impl Iterator<Item = (&'a Entry, RoleScope)> + 'a {
    let bounds = inputs.bounds;
    inputs.wanted.iter().filter_map(move |entry| {
        let scope = entry.scope.parse::<RoleScope>().ok()?;
        policy.scope_rejection(&scope, bounds).is_none().then_some((entry, scope))
    })
}

/// Decides everything about the roles of one identity.
pub fn decide(inputs: &Inputs<'_>) -> Permissions {
    let created_any = inputs.records.iter().any(|record| record.origin == CredentialOrigin::Created);
    if inputs.wanted.is_empty() && inputs.records.is_empty() {
        return Permissions::default();
    }
    let requested = !inputs.wanted.is_empty() && !inputs.deleting;
    let unchanged = |verdict: Option<Verdict>| Permissions {
        writes: Vec::new(),
        records: inputs.records.to_vec(),
        lacking: verdict.clone().filter(|verdict| requested && !verdict.holds()),
        verdict: verdict.filter(|_| requested),
        ours_left: created_any,
    };
    let Some(policy) = inputs.policy else { return unchanged(Some(disabled())) };
    let states: Vec<EntryState> =
        if requested { inputs.wanted.iter().map(|entry| state(entry, policy, inputs)).collect() } else { Vec::new() };
    let first = |kind: fn(&EntryState) -> Option<&Verdict>| states.iter().find_map(kind).cloned();
    let rejected = first(|state| match state {
        EntryState::Rejected(verdict) => Some(verdict),
        _ => None,
    });
    let unresolved = first(|state| match state {
        EntryState::Unresolved(verdict) => Some(verdict),
        _ => None,
    });
    // A temporary problem does not override what Azure confirmed before.
    let is_temporary = |verdict: &Verdict| verdict.reason.severity() != Severity::Terminal;
    let unknown_role = unresolved.is_some();
    let unresolved = unresolved.filter(|verdict| !(is_temporary(verdict) && confirmed(inputs).is_some()));
    let existing = match &inputs.observed.existing {
        Some(Ok(existing)) => existing,
        result => {
            let failure = result.as_ref().and_then(|result| result.as_ref().err());
            return unchanged(rejected.or(unresolved).or_else(|| unknown(inputs, failure)));
        }
    };
    let mut plan = Plan::new(inputs, existing);
    for (entry, state) in inputs.wanted.iter().zip(&states) {
        if let (EntryState::Wanted { scope, role, lookup }, Some(principal)) = (state, inputs.principal) {
            plan.assign(entry, (scope, role, lookup), principal);
        }
    }
    plan.unassign(!unknown_role);
    let Plan { writes, records, missing, failed, left_over, .. } = plan;
    let ours_left = records.iter().any(|record| record.origin == CredentialOrigin::Created)
        || existing.iter().any(|one| inputs.maker.made(one));
    let lacking = rejected.or(failed).or(unresolved).or(missing).filter(|_| requested);
    let verdict = requested.then(|| lacking.clone().or(left_over).unwrap_or_else(|| granted(inputs)));
    Permissions { writes, records, verdict, lacking, ours_left }
}

fn state(entry: &Entry, policy: &RolePolicy, inputs: &Inputs<'_>) -> EntryState {
    let scope: RoleScope = match entry.scope.parse() {
        Ok(scope) => scope,
        Err(error) => {
            return EntryState::Rejected(Verdict::bad(Reason::InvalidSpec, format!("spec.roleAssignments: {error}")));
        }
    };
    let rejected = |message| EntryState::Rejected(Verdict::bad(Reason::RoleNotAllowed, message));
    if let Some(message) = policy.scope_rejection(&scope, inputs.bounds) {
        return rejected(message);
    }
    let lookup = Lookup::new(&scope, &entry.role_definition);
    match inputs.observed.definitions.get(&lookup) {
        None => EntryState::Unresolved(pending(format!("role {:?} is about to be looked up", entry.role_definition))),
        Some(Err(failure)) => EntryState::Unresolved(failure.verdict()),
        Some(Ok(role)) => match policy.role_rejection(role) {
            Some(message) => rejected(message),
            None => EntryState::Wanted { scope, role: role.id.clone(), lookup },
        },
    }
}

/// A plan under construction.
struct Plan<'a> {
    inputs: &'a Inputs<'a>,
    existing: &'a [Assignment],
    writes: Vec<RoleWrite>,
    records: Vec<Record>,
    /// The first assignment that does not exist yet.
    missing: Option<Verdict>,
    /// The first assignment that could not be written.
    failed: Option<Verdict>,
    /// The first assignment that could not be deleted.
    left_over: Option<Verdict>,
}

impl<'a> Plan<'a> {
    fn new(inputs: &'a Inputs<'a>, existing: &'a [Assignment]) -> Self {
        Self { inputs, existing, writes: Vec::new(), records: Vec::new(), missing: None, failed: None, left_over: None }
    }

    /// Assigns the role, unless an equivalent assignment exists, no matter who created it.
    fn assign(&mut self, entry: &Entry, (scope, role, lookup): (&RoleScope, &str, &Lookup), principal: &str) {
        let name = self.inputs.maker.name(scope, principal, role);
        let is_equivalent = |one: &&Assignment| {
            one.condition.as_deref().is_none_or(str::is_empty)
                && one.role.eq_ignore_ascii_case(role)
                && one.principal.eq_ignore_ascii_case(principal)
                && one.scope.parse::<RoleScope>().is_ok_and(|found| found == *scope)
        };
        let equivalent = || self.existing.iter().filter(is_equivalent);
        let found = equivalent().find(|one| self.inputs.maker.made(one)).or_else(|| equivalent().next());
        let origin = match found {
            Some(one) if !self.inputs.maker.made(one) => CredentialOrigin::Adopted,
            _ => CredentialOrigin::Created,
        };
        self.records.push(Record {
            role_definition: entry.role_definition.clone(),
            scope: entry.scope.clone(),
            role_definition_id: role.to_owned(),
            name: found.map_or_else(|| name.clone(), |one| one.name.to_lowercase()),
            origin,
        });
        if found.is_some() {
            return;
        }
        let what = format!("role {:?} in scope {}", entry.role_definition, entry.scope);
        match self.inputs.observed.write_failures.get(&name) {
            Some(failure) => {
                self.failed
                    .get_or_insert(Verdict { message: format!("{what}: {}", failure.message), ..failure.verdict() });
            }
            None => {
                self.missing.get_or_insert(pending(format!("{what} is about to be assigned")));
            }
        }
        let assignment = Assignment {
            name: name.clone(),
            scope: scope.to_string(),
            role: role.to_owned(),
            principal: principal.to_owned(),
            condition: None,
        };
        let description = self.inputs.maker.description(&name);
        self.writes.push(RoleWrite::Put { assignment, description, lookup: lookup.clone() });
    }

    /// Deletes assignments of ours that are no longer wanted. Without `all_known`, the wanted ones are not all known, and
    /// nothing is deleted.
    fn unassign(&mut self, all_known: bool) {
        let wanted = self.records.clone();
        let is_wanted = |name: &str| wanted.iter().any(|one| one.name.eq_ignore_ascii_case(name));
        for one in self.existing.iter().filter(|one| self.inputs.maker.made(one)) {
            if !all_known || is_wanted(&one.name) {
                continue;
            }
            self.writes.push(RoleWrite::Delete(one.clone()));
            if let Some(failure) = self.inputs.observed.write_failures.get(&one.name) {
                let message =
                    format!("role {} in scope {} could not be unassigned: {}", one.role, one.scope, failure.message);
                self.left_over.get_or_insert(Verdict { message, ..failure.verdict() });
            }
        }
        let exists = |name: &str| self.existing.iter().any(|one| one.name.eq_ignore_ascii_case(name));
        let is_deleted = |name: &str| self.inputs.observed.deleted.contains(&name.to_lowercase());
        for record in self.inputs.records {
            let created = record.origin == CredentialOrigin::Created;
            if !created || is_wanted(&record.name) || (is_deleted(&record.name) && !exists(&record.name)) {
                continue;
            }
            self.records.push(Record { role_definition: former(record), ..record.clone() });
            if all_known && !exists(&record.name) {
                // That no read shows it proves nothing, because reads lag: only a confirmed deletion does.
                self.writes.push(RoleWrite::Delete(recorded(record)));
            }
        }
    }
}

/// The assignment of a record. Its principal is not on record, and a deletion does not need it.
fn recorded(record: &Record) -> Assignment {
    Assignment {
        name: record.name.clone(),
        scope: record.scope.clone(),
        role: record.role_definition_id.clone(),
        principal: String::new(),
        condition: None,
    }
}

/// The role of a record whose assignment is about to be deleted. The list is keyed by role and scope, so the record must
/// not have the key of its replacement.
fn former(record: &Record) -> String {
    let mark = format!("former {}", record.name);
    if record.role_definition == mark { record.role_definition.clone() } else { mark }
}

/// The condition while the assignments in Azure are unknown: what was confirmed before still applies.
fn unknown(inputs: &Inputs<'_>, failure: Option<&Failure>) -> Option<Verdict> {
    confirmed(inputs).or_else(|| {
        let why = "the identity's role assignments have not been read from Azure yet";
        Some(failure.map_or_else(|| pending(why), Failure::verdict))
    })
}

/// The condition that Azure confirmed before, if it covers everything that is requested.
fn confirmed(inputs: &Inputs<'_>) -> Option<Verdict> {
    let is_recorded = |entry: &Entry| {
        let is = |record: &&Record| record.role_definition == entry.role_definition && record.scope == entry.scope;
        inputs.records.iter().any(|record| is(&record))
    };
    (inputs.was_ready && inputs.wanted.iter().all(is_recorded)).then(|| granted(inputs))
}

fn granted(inputs: &Inputs<'_>) -> Verdict {
    Verdict::good(Reason::Granted, format!("Azure confirmed {} role assignment(s)", inputs.wanted.len()))
}

fn pending(message: impl Into<String>) -> Verdict {
    Verdict::unknown(Reason::PermissionsPending, message)
}

fn disabled() -> Verdict {
    Verdict::bad(
        Reason::RoleAssignmentsDisabled,
        "spec.roleAssignments requests roles, but role assignments are disabled in this controller: an administrator of Ensign has to set --role-assignments and grant the controller's identity the role that `ensign azure-role --feature role-assignments` prints, or a cluster operator has to remove them",
    )
}

#[cfg(test)]
mod tests;
