use proptest::prelude::*;

use super::*;

const GROUP: &str = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/rg";
const PRINCIPAL: &str = "11111111-0000-4000-8000-000000000001";
const READER: &str = "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1";
const OWNER: &str = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635";
const BY_HAND: &str = "b0000000-0000-4000-8000-000000000001";

/// An identity that requests roles, and the assignments in Azure.
#[derive(Clone)]
struct World {
    wanted: Vec<Entry>,
    records: Vec<Record>,
    was_ready: bool,
    deleting: bool,
    policy: Option<RolePolicy>,
    bounds: AllowedScopes,
    observed: ObservedRoles,
}

fn entry(role: &str, scope: &str) -> Entry {
    Entry { role_definition: role.to_owned(), scope: scope.to_owned() }
}

fn definition(id: &str, name: &str, actions: &[&str]) -> RoleDefinition {
    let actions = actions.iter().map(ToString::to_string).collect();
    RoleDefinition {
        id: id.to_owned(),
        name: name.to_owned(),
        blocks: vec![ActionBlock { actions, not_actions: vec![] }],
    }
}

fn maker() -> Maker<'static> {
    Maker { cluster_id: "cluster", previous_id: None, owner_uid: "uid" }
}

fn ours(scope: &str, role: &str) -> Assignment {
    let name = maker().name(&scope.parse().unwrap(), PRINCIPAL, role);
    Assignment {
        name,
        scope: scope.to_owned(),
        role: role.to_owned(),
        principal: PRINCIPAL.to_owned(),
        condition: None,
    }
}

fn by_hand(scope: &str, role: &str) -> Assignment {
    Assignment { name: BY_HAND.to_owned(), ..ours(scope, role) }
}

fn record(role: &str, assignment: &Assignment, origin: CredentialOrigin) -> Record {
    Record {
        role_definition: role.to_owned(),
        scope: assignment.scope.clone(),
        role_definition_id: assignment.role.clone(),
        name: assignment.name.clone(),
        origin,
    }
}

impl World {
    fn requesting(entries: &[Entry]) -> Self {
        let mut world = Self {
            wanted: entries.to_vec(),
            records: Vec::new(),
            was_ready: false,
            deleting: false,
            policy: Some(RolePolicy::default()),
            bounds: AllowedScopes::default(),
            observed: ObservedRoles { existing: Some(Ok(Vec::new())), ..ObservedRoles::default() },
        };
        world.look_up();
        world
    }

    /// Looks up the definitions: an allowed role by name or GUID, and one that is not allowed.
    fn look_up(&mut self) {
        for lookup in lookups(&self.inputs()) {
            let found = match lookup.role.as_str() {
                OWNER | "owner" => definition(OWNER, "Owner", &["*"]),
                "reader" => definition(READER, "Reader", &["*/read"]),
                guid => definition(guid, "Another", &["a/read"]),
            };
            self.observed.definitions.insert(lookup, Ok(found));
        }
    }

    fn with(mut self, existing: &[Assignment]) -> Self {
        self.observed.existing = Some(Ok(existing.to_vec()));
        self
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs {
            maker: maker(),
            wanted: &self.wanted,
            records: &self.records,
            was_ready: self.was_ready,
            principal: Some(PRINCIPAL),
            deleting: self.deleting,
            policy: self.policy.as_ref(),
            bounds: &self.bounds,
            observed: &self.observed,
        }
    }

    fn decide(&self) -> Permissions {
        decide(&self.inputs())
    }

    fn reason(&self) -> Option<Reason> {
        self.decide().verdict.map(|verdict| verdict.reason)
    }

    fn existing(&self) -> Vec<Assignment> {
        self.observed.existing.clone().unwrap().unwrap()
    }

    /// Applies the plan.
    fn apply(&mut self) {
        let decided = self.decide();
        let mut existing = self.existing();
        for write in &decided.writes {
            existing.retain(|one| one.name != write.assignment().name);
            match write {
                RoleWrite::Put { assignment, .. } => existing.push(assignment.clone()),
                RoleWrite::Delete(assignment) => drop(self.observed.deleted.insert(assignment.name.clone())),
            }
        }
        self.records = decided.records;
        self.observed.existing = Some(Ok(existing));
    }
}

#[test]
fn a_requested_role_is_recorded_and_assigned_and_then_granted() {
    let mut world = World::requesting(&[entry("Reader", GROUP)]);
    let first = world.decide();
    let [RoleWrite::Put { assignment, description, .. }] = &first.writes[..] else { panic!("{first:?}") };
    assert_eq!(*assignment, ours(GROUP, READER));
    assert!(description.contains("uid") && description.contains("cluster") && description.contains(&assignment.name));
    assert_eq!(first.records, [record("Reader", assignment, CredentialOrigin::Created)]);
    assert_eq!(first.lacking.map(|verdict| verdict.reason), Some(Reason::PermissionsPending));
    world.apply();
    assert_eq!((world.decide().writes, world.reason()), (vec![], Some(Reason::Granted)));
    assert_eq!(world.decide().lacking, None);
}

#[test]
fn an_equivalent_assignment_by_hand_is_used_and_never_deleted() {
    let mut world =
        World::requesting(&[entry("Reader", &GROUP.to_uppercase().replace("RESOURCEGROUPS", "resourceGroups"))])
            .with(&[by_hand(GROUP, READER)]);
    let decided = world.decide();
    assert_eq!((&decided.writes[..], world.reason()), (&[][..], Some(Reason::Granted)));
    assert_eq!((decided.records[0].origin, decided.records[0].name.as_str()), (CredentialOrigin::Adopted, BY_HAND));
    world.records = decided.records;
    world.wanted.clear();
    assert_eq!(world.decide().writes, []);
    assert_eq!(world.decide().records, [], "and it is not recorded");
    world.deleting = true;
    assert!(world.decide().writes.is_empty() && !world.decide().ours_left);
}

#[test]
fn an_assignment_with_a_condition_or_in_another_scope_is_not_equivalent() {
    let limited = Assignment { condition: Some("@Resource…".to_owned()), ..by_hand(GROUP, READER) };
    let elsewhere = by_hand(&format!("{GROUP}2"), READER);
    let above = by_hand("/", READER);
    let another = Assignment { principal: BY_HAND.to_owned(), ..by_hand(GROUP, READER) };
    for found in [limited, elsewhere, above, another, by_hand(GROUP, OWNER)] {
        let world = World::requesting(&[entry("Reader", GROUP)]).with(std::slice::from_ref(&found));
        let writes = world.decide().writes;
        assert!(matches!(&writes[..], [RoleWrite::Put { .. }]), "{found:?}: {writes:?}");
    }
}

#[test]
fn an_assignment_that_is_no_longer_requested_is_deleted_if_it_is_ours() {
    let account = format!("{GROUP}/providers/Microsoft.Storage/storageAccounts/data");
    let (mine, foreign) = (ours(&account, READER), by_hand(&account, READER));
    let mut world = World::requesting(&[entry("Reader", GROUP)]).with(&[ours(GROUP, READER), mine.clone(), foreign]);
    assert_eq!(world.decide().writes, [RoleWrite::Delete(mine)]);
    assert_eq!(world.decide().lacking, None, "an extra role delays no pod");
    world.apply();
    assert_eq!(world.existing().len(), 2);
}

#[test]
fn assignments_of_other_owners_and_clusters_are_kept() {
    let of = |cluster_id: &str, owner_uid: &str| {
        let other = Maker { cluster_id, previous_id: None, owner_uid };
        Assignment { name: other.name(&GROUP.parse().unwrap(), PRINCIPAL, READER), ..ours(GROUP, READER) }
    };
    let mut world = World::requesting(&[]).with(&[of("another", "uid"), of("cluster", "another")]);
    world.records = vec![record("x", &ours(GROUP, OWNER), CredentialOrigin::Created)];
    let writes = world.decide().writes;
    assert!(writes.iter().all(|write| write.assignment().name == ours(GROUP, OWNER).name), "{writes:?}");
}

#[test]
fn a_recorded_assignment_is_deleted_although_no_read_shows_it() {
    let mut world = World::requesting(&[]);
    world.records = vec![record("Reader", &ours(GROUP, READER), CredentialOrigin::Created)];
    let decided = world.decide();
    assert!(matches!(&decided.writes[..], [RoleWrite::Delete(one)] if one.name == ours(GROUP, READER).name));
    assert!(decided.ours_left);
    world.apply();
    let after = world.decide();
    assert_eq!((after.writes.len(), after.records.len(), after.ours_left), (0, 0, false));
}

#[test]
fn an_escalating_role_is_rejected_and_unassigned() {
    for named in ["Owner", "OWNER", OWNER, &OWNER.to_uppercase()] {
        let world = World::requesting(&[entry(named, GROUP)]).with(&[ours(GROUP, OWNER)]);
        assert_eq!(world.reason(), Some(Reason::RoleNotAllowed), "{named}");
        assert_eq!(world.decide().writes, [RoleWrite::Delete(ours(GROUP, OWNER))]);
        assert!(world.decide().lacking.is_some());
    }
    let mut allowed = World::requesting(&[entry("Owner", GROUP)]);
    allowed.policy = Some(RolePolicy { allowed_roles: [OWNER.to_owned()].into(), ..RolePolicy::default() });
    assert_eq!(allowed.decide().writes.len(), 1);
}

#[test]
fn a_rejected_role_does_not_block_the_others() {
    let world = World::requesting(&[entry("Owner", GROUP), entry("Reader", GROUP)]);
    assert!(matches!(&world.decide().writes[..], [RoleWrite::Put { assignment, .. }] if assignment.role == READER));
    assert_eq!(world.reason(), Some(Reason::RoleNotAllowed));
}

#[test]
fn a_scope_that_is_too_wide_or_invalid_is_never_queried() {
    let subscription = GROUP.split("/resourceGroups").next().unwrap();
    for (scope, reason) in [
        ("/", Reason::RoleNotAllowed),
        (subscription, Reason::RoleNotAllowed),
        ("/providers/Microsoft.Management/managementGroups/top", Reason::RoleNotAllowed),
        (&format!("{GROUP}/.."), Reason::InvalidSpec),
        (&format!("{GROUP}/../../.."), Reason::InvalidSpec),
        (&format!("{GROUP}%2f.."), Reason::InvalidSpec),
        (&format!("{GROUP}/"), Reason::InvalidSpec),
    ] {
        let world = World::requesting(&[entry("Reader", scope)]);
        assert_eq!((world.reason(), world.decide().writes), (Some(reason), vec![]), "{scope}");
        assert!(lookups(&world.inputs()).is_empty() && roots(&world.inputs()).is_empty(), "{scope}");
    }
}

#[test]
fn nothing_is_assigned_or_deleted_while_role_assignments_are_disabled() {
    let mut world = World::requesting(&[entry("Reader", GROUP)]).with(&[ours(GROUP, READER)]);
    world.records = vec![record("Reader", &ours(GROUP, READER), CredentialOrigin::Created)];
    world.policy = None;
    world.wanted[0].role_definition = "Another".to_owned();
    assert_eq!((world.reason(), world.decide().writes), (Some(Reason::RoleAssignmentsDisabled), vec![]));
    world.deleting = true;
    let deleting = world.decide();
    assert!(deleting.writes.is_empty() && deleting.ours_left && deleting.verdict.is_none());
}

#[test]
fn nothing_is_deleted_while_a_role_definition_is_unknown() {
    let failure = Failure { reason: Reason::AzureUnavailable, message: "down".to_owned(), retry_after: None };
    for answer in [None, Some(Err(failure))] {
        let mut world = World::requesting(&[entry("Reader", GROUP)]).with(&[ours(GROUP, READER)]);
        world.records = vec![record("Reader", &ours(GROUP, READER), CredentialOrigin::Created)];
        world.observed.definitions.clear();
        if let Some(answer) = answer {
            world.observed.definitions.insert(Lookup::new(&GROUP.parse().unwrap(), "Reader"), answer);
        }
        let decided = world.decide();
        assert_eq!(decided.writes, []);
        assert!(decided.ours_left && decided.records.len() == 1 && decided.lacking.is_some());
        world.was_ready = true;
        assert_eq!(world.reason(), Some(Reason::Granted), "what was confirmed before still applies");
        world.observed.existing = None;
        assert_eq!(world.reason(), Some(Reason::Granted));
        world.wanted.push(entry("Reader", &format!("{GROUP}2")));
        assert_ne!(world.reason(), Some(Reason::Granted), "not for a new entry");
    }
}

#[test]
fn a_failed_write_is_reported_with_the_role_and_the_scope() {
    let mut world = World::requesting(&[entry("Reader", GROUP)]);
    let failure = Failure { reason: Reason::Forbidden, message: "lacks it".to_owned(), retry_after: None };
    world.observed.write_failures.insert(ours(GROUP, READER).name, failure);
    let verdict = world.decide().lacking.unwrap();
    assert_eq!(verdict.reason, Reason::Forbidden);
    assert!(
        verdict.message.contains("\"Reader\"")
            && verdict.message.contains(GROUP)
            && verdict.message.ends_with("lacks it")
    );
}

#[test]
fn after_the_identity_was_recreated_the_former_assignment_is_recorded_until_it_is_deleted() {
    let former = Assignment { principal: BY_HAND.to_owned(), ..ours(GROUP, READER) };
    let former = Assignment { name: maker().name(&GROUP.parse().unwrap(), BY_HAND, READER), ..former };
    let mut world = World::requesting(&[entry("Reader", GROUP)]);
    world.records = vec![record("Reader", &former, CredentialOrigin::Created)];
    assert_eq!(unlisted(&world.inputs(), &[]).len(), 1, "it is read by its name");
    let mut world = world.with(&[former]);
    let decided = world.decide();
    let keys: BTreeSet<_> = decided.records.iter().map(|one| (&one.role_definition, &one.scope)).collect();
    assert_eq!((decided.writes.len(), keys.len(), decided.records.len()), (2, 2, 2), "{decided:?}");
    world.apply();
    world.apply();
    assert_eq!((world.existing().len(), world.records.len(), world.decide().writes.len()), (1, 1, 0));
}

#[test]
fn each_scope_is_listed_once() {
    let account = format!("{GROUP}/providers/Microsoft.Storage/storageAccounts/data");
    let other = format!("{GROUP}-2");
    let mut world = World::requesting(&[entry("Reader", &account), entry("Owner", GROUP), entry("Reader", &other)]);
    let shown = |world: &World| roots(&world.inputs()).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(shown(&world), [GROUP, &other]);
    let subscription = GROUP.split("/resourceGroups").next().unwrap();
    let allowed_scopes = vec![subscription.parse().unwrap()];
    world.policy = Some(RolePolicy { allowed_scopes, ..RolePolicy::default() });
    world.wanted.push(entry("Reader", subscription));
    assert_eq!(shown(&world), [subscription]);
}

#[test]
fn without_requests_and_records_there_is_no_condition() {
    let decided = World::requesting(&[]).with(&[by_hand(GROUP, READER)]).decide();
    assert!(decided.writes.is_empty() && decided.verdict.is_none() && !decided.ours_left);
}

fn any_scope() -> impl Strategy<Value = String> {
    let below = prop::sample::select(vec!["", "/providers/Microsoft.Storage/storageAccounts/data"]);
    ("[ab-]{1,3}", below).prop_map(|(group, below)| format!("{}{group}x{below}", &GROUP[..GROUP.len() - 2]))
}

fn any_role() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["Reader", READER, "Owner", "4633458b-17de-408a-b874-0445c86b69e6"])
        .prop_map(str::to_owned)
}

fn any_assignment() -> impl Strategy<Value = Assignment> {
    let role = prop::sample::select(vec![READER, OWNER]);
    (any_scope(), role, 0..4_u8, any::<u32>()).prop_map(|(scope, role, kind, number)| {
        let mut one = ours(&scope, role);
        match kind {
            0 => {}
            1 => one.name = format!("b0000000-0000-4000-8000-0000{number:08x}"),
            2 => one.name = Maker { cluster_id: "another", ..maker() }.name(&scope.parse().unwrap(), PRINCIPAL, role),
            _ => one.condition = Some("x".to_owned()),
        }
        one
    })
}

proptest! {
    #[test]
    fn an_applied_plan_leaves_nothing_to_do_and_foreign_assignments_unchanged(
        entries in prop::collection::vec((any_role(), any_scope()), 0..5),
        existing in prop::collection::vec(any_assignment(), 0..6),
        deleting in any::<bool>(),
    ) {
        let mut entries: Vec<Entry> = entries.iter().map(|(role, scope)| entry(role, scope)).collect();
        entries.sort();
        entries.dedup();
        let mut world = World::requesting(&entries).with(&existing);
        world.deleting = deleting;
        world.records = vec![record("x", &ours(GROUP, READER), CredentialOrigin::Created)];
        let foreign: Vec<_> = existing.iter().filter(|one| !maker().made(one)).cloned().collect();
        world.apply();
        world.apply();
        let after = world.decide();
        prop_assert_eq!(&after.writes, &[]);
        for one in &foreign {
            prop_assert!(world.existing().contains(one));
        }
        for one in world.existing().iter().filter(|one| maker().made(one)) {
            let asked = |entry: &Entry| entry.scope == one.scope && entry.role_definition != "Owner";
            prop_assert!(!deleting && one.role != OWNER && entries.iter().any(asked), "{:?}", one);
        }
        prop_assert!(!(deleting && after.ours_left));
        let keys: BTreeSet<_> = after.records.iter().map(|one| (&one.role_definition, &one.scope)).collect();
        prop_assert_eq!(keys.len(), after.records.len());
    }
}
