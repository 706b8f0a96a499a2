//! Which roles an identity gets in Azure: what is asked for, what may be given, and the plan that gets Azure there.
//!
//! ```text
//! spec.roleAssignments ─► scope parsed ─► may it be given there? ─► definition, looked up ─► may it be given at all?
//!                                                                                      │
//! assignments in Azure, status ────────────────────────────────────────────► plan ◄───┘
//! ```

pub mod escalation;
pub mod names;
pub mod scope;

use std::collections::{BTreeMap, BTreeSet};

pub use escalation::RolePolicy;
pub use names::Maker;
pub use scope::RoleScope;

use crate::acceptance::scopes::AllowedScopes;
use crate::failure::Failure;
use ensign_api::arm_id::is_guid;
use ensign_api::conditions::{Reason, Severity, Verdict};
use ensign_api::{CredentialOrigin, RoleAssignment as Entry, RoleAssignmentStatus as Record};

/// A role definition, as far as decisions need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleDefinition {
    /// Its GUID, in lower case.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it allows in ARM.
    pub blocks: Vec<ActionBlock>,
}

/// Actions, and those that are excluded from them: from these, not from those of another block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActionBlock {
    /// Patterns of allowed actions.
    pub actions: Vec<String>,
    /// Patterns of what is excluded.
    pub not_actions: Vec<String>,
}

/// A role assignment as Azure returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Its GUID.
    pub name: String,
    /// Where it counts.
    pub scope: String,
    /// GUID of the role definition.
    pub role: String,
    /// Object ID of the principal.
    pub principal: String,
    /// Azure's condition on what it gives.
    pub condition: Option<String>,
}

/// A look-up of a role definition: the scope in which it is visible, and its name or GUID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lookup {
    /// A resource group, or a wider scope.
    pub root: RoleScope,
    /// In lower case: Azure does not tell names apart by case.
    pub role: String,
}

impl Lookup {
    fn new(scope: &RoleScope, role: &str) -> Self {
        Self { root: scope.root(), role: role.to_lowercase() }
    }

    /// Whether the role is named by its GUID.
    pub fn is_by_guid(&self) -> bool {
        is_guid(&self.role)
    }
}

/// What Azure said of roles in this reconcile.
#[derive(Clone, Debug, Default)]
pub struct ObservedRoles {
    /// Role definitions that were looked up.
    pub definitions: BTreeMap<Lookup, Result<RoleDefinition, Failure>>,
    /// The principal's assignments in the scopes asked for, and those that status names; brought up to date with every
    /// write since. `None` when not asked.
    pub existing: Option<Result<Vec<Assignment>, Failure>>,
    /// Writes that failed, by the name of the assignment.
    pub write_failures: BTreeMap<String, Failure>,
}

impl ObservedRoles {
    /// Every failure, in no order of importance.
    pub fn failures(&self) -> impl Iterator<Item = &Failure> {
        let listed = self.existing.as_ref().and_then(|answer| answer.as_ref().err());
        let looked_up = self.definitions.values().filter_map(|answer| answer.as_ref().err());
        self.write_failures.values().chain(listed).chain(looked_up)
    }
}

/// What decisions about one identity's roles depend on.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// On whose behalf.
    pub maker: Maker<'a>,
    /// `spec.roleAssignments`.
    pub wanted: &'a [Entry],
    /// `status.roleAssignments`.
    pub records: &'a [Record],
    /// Whether the roles were all there when that was last known.
    pub was_ready: bool,
    /// Object ID of the identity, where it is known.
    pub principal: Option<&'a str>,
    /// Whether the owner is being deleted, so that nothing is wanted any more.
    pub leaving: bool,
    /// What may be given; `None` where the controller assigns no roles.
    pub policy: Option<&'a RolePolicy>,
    /// Where the controller may act.
    pub bounds: &'a AllowedScopes,
    /// What Azure said.
    pub observed: &'a ObservedRoles,
}

/// A write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleStep {
    /// Create the assignment, or set it right.
    Put {
        /// The assignment.
        assignment: Assignment,
        /// What it says of itself.
        description: String,
        /// The definition that was judged.
        lookup: Lookup,
    },
    /// Delete the assignment.
    Delete(Assignment),
}

impl RoleStep {
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
    pub steps: Vec<RoleStep>,
    /// The new `status.roleAssignments`. An assignment is recorded before it is made.
    pub records: Vec<Record>,
    /// The condition `PermissionsReady`; none where no role is asked for.
    pub verdict: Option<Verdict>,
    /// Why pods wait: not all roles are there yet. A role too many keeps none waiting.
    pub lacking: Option<Verdict>,
    /// Whether an assignment may exist that Ensign made for the owner.
    pub ours_left: bool,
}

/// What becomes of an entry of the spec.
enum EntryState {
    /// It can't be given.
    Refused(Verdict),
    /// It is not known yet whether and what can be given.
    Unresolved(Verdict),
    /// This is to stand.
    Wanted { scope: RoleScope, role: String, lookup: Lookup },
}

/// The role definitions that have to be known: those that may be given where they are asked for.
pub fn lookups(inputs: &Inputs<'_>) -> BTreeSet<Lookup> {
    let Some(policy) = inputs.policy.filter(|_| !inputs.leaving) else { return BTreeSet::new() };
    allowed_scopes(inputs, policy).map(|(entry, scope)| Lookup::new(&scope, &entry.role_definition)).collect()
}

/// The scopes in which the principal's assignments have to be listed: as few as cover all that is asked for.
pub fn roots(inputs: &Inputs<'_>) -> Vec<RoleScope> {
    let Some(policy) = inputs.policy else { return Vec::new() };
    let all: BTreeSet<RoleScope> = allowed_scopes(inputs, policy).map(|(_, scope)| scope.root()).collect();
    all.iter().filter(|root| !all.iter().any(|other| other != *root && other.covers(root))).cloned().collect()
}

/// Assignments that status says Ensign made, that nothing asks for any more, and that are not among these: each has to be
/// asked for by its name, because a list may be behind.
pub fn unlisted<'a>(inputs: &Inputs<'a>, listed: &[Assignment]) -> Vec<(&'a Record, RoleScope)> {
    let is_listed = |record: &Record| listed.iter().any(|one| one.name.eq_ignore_ascii_case(&record.name));
    let is_asked_for = |record: &Record, scope: &RoleScope| {
        let present = |principal| inputs.maker.name(scope, principal, &record.role_definition_id) == record.name;
        let is = |entry: &Entry| entry.role_definition == record.role_definition && entry.scope == record.scope;
        !inputs.leaving && inputs.principal.is_some_and(present) && inputs.wanted.iter().any(is)
    };
    let made = inputs.records.iter().filter(|record| record.origin == CredentialOrigin::Created);
    made.filter(|record| !is_listed(record))
        .filter_map(|record| Some((record, record.scope.parse::<RoleScope>().ok()?)))
        .filter(|(record, scope)| !is_asked_for(record, scope))
        .collect()
}

fn allowed_scopes<'a>(
    inputs: &Inputs<'a>,
    policy: &'a RolePolicy,
) -> impl Iterator<Item = (&'a Entry, RoleScope)> + 'a {
    let bounds = inputs.bounds;
    inputs.wanted.iter().filter_map(move |entry| {
        let scope = entry.scope.parse::<RoleScope>().ok()?;
        policy.refuse_scope(&scope, bounds).is_none().then_some((entry, scope))
    })
}

/// Decides everything about the roles of one identity.
pub fn decide(inputs: &Inputs<'_>) -> Permissions {
    let made_any = inputs.records.iter().any(|record| record.origin == CredentialOrigin::Created);
    if inputs.wanted.is_empty() && inputs.records.is_empty() {
        return Permissions::default();
    }
    let asked = !inputs.wanted.is_empty() && !inputs.leaving;
    let unchanged = |verdict: Option<Verdict>| Permissions {
        steps: Vec::new(),
        records: inputs.records.to_vec(),
        lacking: verdict.clone().filter(|verdict| asked && !verdict.holds()),
        verdict: verdict.filter(|_| asked),
        ours_left: made_any,
    };
    let Some(policy) = inputs.policy else { return unchanged(Some(disabled())) };
    let fates: Vec<EntryState> =
        if asked { inputs.wanted.iter().map(|entry| fate(entry, policy, inputs)).collect() } else { Vec::new() };
    let worst = |kind: fn(&EntryState) -> Option<&Verdict>| fates.iter().find_map(kind).cloned();
    let refused = worst(|fate| match fate {
        EntryState::Refused(verdict) => Some(verdict),
        _ => None,
    });
    let unresolved = worst(|fate| match fate {
        EntryState::Unresolved(verdict) => Some(verdict),
        _ => None,
    });
    // What passes by itself does not undo what Azure confirmed before.
    let passes = |verdict: &Verdict| verdict.reason.severity() != Severity::Terminal;
    let unknown_role = unresolved.is_some();
    let unresolved = unresolved.filter(|verdict| !(passes(verdict) && stands(inputs).is_some()));
    let existing = match &inputs.observed.existing {
        Some(Ok(existing)) => existing,
        answer => {
            let failure = answer.as_ref().and_then(|answer| answer.as_ref().err());
            return unchanged(refused.or(unresolved).or_else(|| unknown(inputs, failure)));
        }
    };
    let mut plan = Plan::new(inputs, existing);
    for (entry, fate) in inputs.wanted.iter().zip(&fates) {
        if let (EntryState::Wanted { scope, role, lookup }, Some(principal)) = (fate, inputs.principal) {
            plan.want(entry, (scope, role, lookup), principal);
        }
    }
    plan.forget(!unknown_role);
    let Plan { steps, records, missing, failed, left_over, .. } = plan;
    let ours_left = records.iter().any(|record| record.origin == CredentialOrigin::Created)
        || existing.iter().any(|one| inputs.maker.made(one));
    let good = || {
        let count = inputs.wanted.len();
        Verdict::good(Reason::Granted, format!("Azure confirmed {count} role assignment(s)"))
    };
    let lacking = refused.or(failed).or(unresolved).or(missing).filter(|_| asked);
    let verdict = asked.then(|| lacking.clone().or(left_over).unwrap_or_else(good));
    Permissions { steps, records, verdict, lacking, ours_left }
}

fn fate(entry: &Entry, policy: &RolePolicy, inputs: &Inputs<'_>) -> EntryState {
    let scope: RoleScope = match entry.scope.parse() {
        Ok(scope) => scope,
        Err(error) => {
            return EntryState::Refused(Verdict::bad(
                Reason::InvalidSpec,
                format!("spec.roleAssignments: scope {error}"),
            ));
        }
    };
    let refused = |message| EntryState::Refused(Verdict::bad(Reason::RoleNotAllowed, message));
    if let Some(message) = policy.refuse_scope(&scope, inputs.bounds) {
        return refused(message);
    }
    let lookup = Lookup::new(&scope, &entry.role_definition);
    match inputs.observed.definitions.get(&lookup) {
        None => EntryState::Unresolved(pending(format!("role {:?} is about to be looked up", entry.role_definition))),
        Some(Err(failure)) => EntryState::Unresolved(failure.verdict()),
        Some(Ok(role)) => match policy.refuse_role(role) {
            Some(message) => refused(message),
            None => EntryState::Wanted { scope, role: role.id.clone(), lookup },
        },
    }
}

/// The plan while it is made.
struct Plan<'a> {
    inputs: &'a Inputs<'a>,
    existing: &'a [Assignment],
    steps: Vec<RoleStep>,
    records: Vec<Record>,
    missing: Option<Verdict>,
    failed: Option<Verdict>,
    left_over: Option<Verdict>,
}

impl<'a> Plan<'a> {
    fn new(inputs: &'a Inputs<'a>, existing: &'a [Assignment]) -> Self {
        Self { inputs, existing, steps: Vec::new(), records: Vec::new(), missing: None, failed: None, left_over: None }
    }

    /// This is to stand: what there is already is used, whoever made it, as long as it gives the same.
    fn want(&mut self, entry: &Entry, (scope, role, lookup): (&RoleScope, &str, &Lookup), principal: &str) {
        let name = self.inputs.maker.name(scope, principal, role);
        let gives_the_same = |one: &&Assignment| {
            one.condition.as_deref().is_none_or(str::is_empty)
                && one.role.eq_ignore_ascii_case(role)
                && one.principal.eq_ignore_ascii_case(principal)
                && one.scope.parse::<RoleScope>().is_ok_and(|found| found == *scope)
        };
        let same = || self.existing.iter().filter(gives_the_same);
        let found = same().find(|one| self.inputs.maker.made(one)).or_else(|| same().next());
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
        self.steps.push(RoleStep::Put { assignment, description, lookup: lookup.clone() });
    }

    /// What is ours and not wanted any more goes; what is not ours stays. While it is not known what is wanted, all stays.
    fn forget(&mut self, all_known: bool) {
        let stands = |name: &str, records: &[Record]| records.iter().any(|one| one.name.eq_ignore_ascii_case(name));
        let wanted = self.records.clone();
        for one in self.existing.iter().filter(|one| self.inputs.maker.made(one)) {
            if !all_known || stands(&one.name, &wanted) {
                continue;
            }
            self.steps.push(RoleStep::Delete(one.clone()));
            if let Some(failure) = self.inputs.observed.write_failures.get(&one.name) {
                let message =
                    format!("role {} in scope {} is not taken away: {}", one.role, one.scope, failure.message);
                self.left_over.get_or_insert(Verdict { message, ..failure.verdict() });
            }
        }
        let there = |name: &str| self.existing.iter().any(|one| one.name.eq_ignore_ascii_case(name));
        for record in self.inputs.records {
            let made = record.origin == CredentialOrigin::Created;
            let may_be_there = made && (there(&record.name) || !all_known);
            if may_be_there && !stands(&record.name, &wanted) {
                self.records.push(Record { role_definition: former(record), ..record.clone() });
            }
        }
    }
}

/// Roles and scopes are one each in the list; what is on its way out makes room for what takes its place.
fn former(record: &Record) -> String {
    let mark = format!("former {}", record.name);
    if record.role_definition == mark { record.role_definition.clone() } else { mark }
}

/// Azure's list is not known: what it confirmed before still stands.
fn unknown(inputs: &Inputs<'_>, failure: Option<&Failure>) -> Option<Verdict> {
    stands(inputs).or_else(|| {
        let why = "Azure has not been asked yet which roles the identity has";
        Some(failure.map_or_else(|| pending(why), Failure::verdict))
    })
}

/// What Azure confirmed before, if that is all that is asked for.
fn stands(inputs: &Inputs<'_>) -> Option<Verdict> {
    let confirmed = |entry: &Entry| {
        let is = |record: &&Record| record.role_definition == entry.role_definition && record.scope == entry.scope;
        inputs.records.iter().any(|record| is(&record))
    };
    let all = inputs.was_ready && inputs.wanted.iter().all(confirmed);
    let count = inputs.wanted.len();
    all.then(|| Verdict::good(Reason::Granted, format!("Azure confirmed {count} role assignment(s)")))
}

fn pending(message: impl Into<String>) -> Verdict {
    Verdict::unknown(Reason::PermissionsPending, message)
}

fn disabled() -> Verdict {
    Verdict::bad(
        Reason::RoleAssignmentsDisabled,
        "spec.roleAssignments asks for roles, and this controller assigns none: whoever runs Ensign has to set --role-assignments and give it the role that `ensign azure-role --feature role-assignments` prints, or a cluster operator has to remove them",
    )
}

#[cfg(test)]
mod tests;
