use proptest::prelude::*;

use super::*;

const AUDIENCE: &str = "api://AzureADTokenExchange";

fn cluster() -> Cluster {
    Cluster {
        id: "cluster-1".into(),
        previous_id: None,
        issuer: "https://issuer.example/1".into(),
        audience: AUDIENCE.into(),
    }
}

fn identity() -> ArmId {
    "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders".parse().unwrap()
}

fn wanted(account: &str) -> Wanted {
    Wanted { subject: Subject::new("shop", account), recorded_name: None }
}

fn ours(account: &str) -> Credential {
    let cluster = cluster();
    let subject = Subject::new("shop", account);
    Credential {
        name: cluster.credential_name(&subject),
        issuer: cluster.issuer,
        subject: subject.to_string(),
        audiences: vec![AUDIENCE.into()],
    }
}

fn foreign(n: usize) -> Credential {
    Credential {
        name: format!("by-hand-{n}"),
        issuer: "https://elsewhere.example".into(),
        subject: format!("repo:org/app-{n}"),
        audiences: vec![AUDIENCE.into()],
    }
}

#[derive(Debug)]
struct Case {
    wanted: Vec<Wanted>,
    existing: Vec<Credential>,
    policy: CredentialPolicy,
    max_credentials: u32,
    retiring: Vec<(&'static str, bool)>,
}

impl Case {
    fn new(wanted: Vec<Wanted>, existing: Vec<Credential>) -> Self {
        Self { wanted, existing, policy: CredentialPolicy::Manage, max_credentials: 20, retiring: Vec::new() }
    }

    fn plan(&self) -> Plan {
        plan(&Inputs {
            cluster: &cluster(),
            identity: &identity(),
            retiring_issuers: &self.retiring,
            wanted: &self.wanted,
            existing: &self.existing,
            policy: self.policy,
            max_credentials: self.max_credentials,
        })
    }

    fn standing(&self, account: &str) -> TrustState {
        self.plan().standings[&Subject::new("shop", account)].clone()
    }
}

fn blocked(standing: &TrustState) -> (Reason, &str) {
    match standing {
        TrustState::Blocked { reason, message } => (*reason, message),
        other => panic!("expected a blocked standing, found {other:?}"),
    }
}

fn apply(existing: &mut Vec<Credential>, step: &CredentialWrite) {
    existing.retain(|credential| credential.name != step.name());
    if let CredentialWrite::Put { credential, .. } = step {
        existing.push(credential.clone());
    }
}

#[test]
fn a_missing_credential_is_put() {
    let plan = Case::new(vec![wanted("orders")], vec![]).plan();
    assert_eq!(plan.steps, [CredentialWrite::Put { credential: ours("orders"), replaces: None }]);
}

#[test]
fn a_standing_credential_needs_no_write() {
    let case = Case::new(vec![wanted("orders")], vec![ours("orders")]);
    assert_eq!(case.plan().steps, []);
    let name = ours("orders").name;
    assert_eq!(case.standing("orders"), TrustState::Given { name, origin: CredentialOrigin::Created });
}

#[test]
fn an_unwanted_credential_of_ours_goes() {
    let plan = Case::new(vec![], vec![ours("orders"), foreign(1)]).plan();
    assert_eq!(plan.steps, [CredentialWrite::Delete { credential: ours("orders"), after: None }]);
}

#[test]
fn a_credential_by_hand_with_the_same_trust_is_adopted() {
    let by_hand = Credential { name: "by-hand".into(), ..ours("orders") };
    let case = Case::new(vec![wanted("orders")], vec![by_hand]);
    assert_eq!(case.plan().steps, []);
    let adopted = TrustState::Given { name: "by-hand".into(), origin: CredentialOrigin::Adopted };
    assert_eq!(case.standing("orders"), adopted);
}

#[test]
fn an_adopted_credential_stays_when_nobody_wants_it() {
    let by_hand = Credential { name: "by-hand".into(), ..ours("orders") };
    assert_eq!(Case::new(vec![], vec![by_hand]).plan().steps, []);
}

#[test]
fn a_foreign_credential_with_the_wrong_audience_blocks_and_is_named_with_its_cure() {
    let by_hand = Credential { name: "by-hand".into(), audiences: vec!["other".into()], ..ours("orders") };
    let case = Case::new(vec![wanted("orders")], vec![by_hand]);
    assert_eq!(case.plan().steps, []);
    let standing = case.standing("orders");
    let (reason, message) = blocked(&standing);
    assert_eq!(reason, Reason::CredentialConflict);
    assert!(message.contains("by-hand") && message.contains("az identity federated-credential delete"), "{message}");
}

#[test]
fn our_own_credential_with_the_wrong_audience_is_repaired() {
    let edited = Credential { audiences: vec!["other".into()], ..ours("orders") };
    let plan = Case::new(vec![wanted("orders")], vec![edited.clone()]).plan();
    assert_eq!(plan.steps, [CredentialWrite::Put { credential: ours("orders"), replaces: Some(edited) }]);
}

#[test]
fn a_name_that_somebody_else_took_is_not_overwritten() {
    let hijacked = Credential { subject: "repo:evil/app".into(), ..ours("orders") };
    let case = Case::new(vec![wanted("orders")], vec![hijacked]);
    assert_eq!(case.plan().steps, []);
    assert_eq!(blocked(&case.standing("orders")).0, Reason::CredentialConflict);
}

#[test]
fn a_recorded_credential_that_somebody_edited_is_repaired() {
    let edited = Credential { subject: "system:serviceaccount:shop:other".into(), ..ours("orders") };
    let recorded = Wanted { recorded_name: Some(ours("orders").name), ..wanted("orders") };
    let plan = Case::new(vec![recorded], vec![edited.clone()]).plan();
    assert_eq!(plan.steps, [CredentialWrite::Put { credential: ours("orders"), replaces: Some(edited) }]);
}

#[test]
fn an_edited_credential_on_which_another_binding_depends_by_now_is_left_alone() {
    let edited = Credential { subject: Subject::new("shop", "billing").to_string(), ..ours("orders") };
    let recorded = Wanted { recorded_name: Some(ours("orders").name), ..wanted("orders") };
    let case = Case::new(vec![recorded, wanted("billing")], vec![edited.clone()]);
    assert_eq!(case.plan().steps, [], "its repair would take the trust from billing");
    let adopted = TrustState::Given { name: edited.name, origin: CredentialOrigin::Adopted };
    assert_eq!(case.standing("billing"), adopted);
    assert_eq!(blocked(&case.standing("orders")).0, Reason::CredentialConflict);
}

#[test]
fn a_credential_that_is_repaired_counts_towards_the_share() {
    let edited = Credential { subject: "repo:org/app".into(), ..ours("orders") };
    let recorded = Wanted { recorded_name: Some(ours("orders").name), ..wanted("orders") };
    let mut case = Case::new(vec![recorded, wanted("billing")], vec![edited.clone()]);
    case.max_credentials = 1;
    assert_eq!(case.plan().steps, [CredentialWrite::Put { credential: ours("orders"), replaces: Some(edited) }]);
    assert_eq!(blocked(&case.standing("billing")).0, Reason::QuotaExceeded);
}

#[test]
fn the_21st_credential_is_refused_before_any_write_and_says_who_has_the_slots() {
    let existing = (0..20).map(foreign).collect();
    let case = Case::new(vec![wanted("orders")], existing);
    assert_eq!(case.plan().steps, []);
    let standing = case.standing("orders");
    let (reason, message) = blocked(&standing);
    assert_eq!(reason, Reason::QuotaExceeded);
    assert!(message.starts_with("20/20") && message.contains("by hand 20"), "{message}");
}

#[test]
fn the_share_of_this_cluster_is_not_exceeded() {
    let mut case = Case::new(vec![wanted("a"), wanted("b")], vec![]);
    case.max_credentials = 1;
    assert_eq!(case.plan().steps, [CredentialWrite::Put { credential: ours("a"), replaces: None }]);
    let standing = case.standing("b");
    let (reason, message) = blocked(&standing);
    assert_eq!(reason, Reason::QuotaExceeded);
    assert!(message.contains("maxCredentials"), "{message}");
}

#[test]
fn a_put_that_fits_goes_before_the_delete() {
    let plan = Case::new(vec![wanted("new")], vec![ours("old")]).plan();
    assert_eq!(plan.steps[0], CredentialWrite::Put { credential: ours("new"), replaces: None });
    assert_eq!(plan.steps[1], CredentialWrite::Delete { credential: ours("old"), after: None });
}

#[test]
fn a_put_that_does_not_fit_waits_for_the_delete() {
    let mut existing: Vec<_> = (0..19).map(foreign).collect();
    existing.push(ours("old"));
    let plan = Case::new(vec![wanted("new")], existing).plan();
    assert_eq!(plan.steps[0], CredentialWrite::Delete { credential: ours("old"), after: None });
    assert_eq!(plan.steps[1], CredentialWrite::Put { credential: ours("new"), replaces: None });
}

#[test]
fn observe_writes_nothing_and_says_the_command() {
    let mut case = Case::new(vec![wanted("orders")], vec![ours("old")]);
    case.policy = CredentialPolicy::Observe;
    assert_eq!(case.plan().steps, []);
    let standing = case.standing("orders");
    let (reason, message) = blocked(&standing);
    assert_eq!(reason, Reason::CredentialMissing);
    assert!(message.contains("az identity federated-credential create"), "{message}");
}

#[test]
fn a_credential_of_the_old_issuer_stays_until_its_last_token_has_expired() {
    let old = "https://issuer.example/0";
    let former = Cluster { issuer: old.into(), ..cluster() };
    let subject = Subject::new("shop", "orders");
    let before = Credential { name: former.credential_name(&subject), issuer: old.into(), ..ours("orders") };
    let mut case = Case::new(vec![wanted("orders")], vec![before.clone()]);
    case.retiring = vec![(old, false)];
    assert_eq!(case.plan().steps, [CredentialWrite::Put { credential: ours("orders"), replaces: None }]);
    case.retiring = vec![(old, true)];
    assert_eq!(case.plan().steps.last(), Some(&CredentialWrite::Delete { credential: before, after: None }));
}

const FORMER: &str = "https://issuer.example/0";

/// What this cluster wrote under its former issuer.
fn former(account: &str) -> Credential {
    let before = Cluster { issuer: FORMER.into(), ..cluster() };
    let subject = Subject::new("shop", account);
    Credential { name: before.credential_name(&subject), issuer: FORMER.into(), ..ours(account) }
}

/// Accounts with credentials of the former issuer, whose tokens are still valid.
fn after_a_change(accounts: usize, others: usize) -> Case {
    let names: Vec<String> = (0..accounts).map(|n| format!("app-{n}")).collect();
    let existing = names.iter().map(|name| former(name)).chain((0..others).map(foreign)).collect();
    let mut case = Case::new(names.iter().map(|name| wanted(name)).collect(), existing);
    case.retiring = vec![(FORMER, false)];
    case
}

/// Carries a plan out as the controller does. Writes that fail are skipped, unless a later step depends on them. Answers
/// the subjects that had trust and were without any at some point.
fn carry_out(case: &mut Case, failing: &BTreeSet<String>) -> BTreeSet<String> {
    let wanted: BTreeSet<String> = case.wanted.iter().map(|wanted| wanted.subject.to_string()).collect();
    let trusted = |existing: &[Credential]| -> BTreeSet<String> {
        let right =
            |credential: &&Credential| credential.audiences == [AUDIENCE] && wanted.contains(&credential.subject);
        existing.iter().filter(right).map(|credential| credential.subject.clone()).collect()
    };
    let before = trusted(&case.existing);
    let mut lost = BTreeSet::new();
    for step in case.plan().steps {
        if !step.may_go(&case.existing) {
            break;
        }
        let refused = matches!(step, CredentialWrite::Put { replaces: None, .. }) && case.existing.len() == 20;
        assert!(!refused || !failing.is_empty(), "planned for, not left to Azure");
        if !refused && !failing.contains(step.name()) {
            apply(&mut case.existing, &step);
        }
        lost.extend(before.difference(&trusted(&case.existing)).cloned());
    }
    lost
}

#[test]
fn with_slots_for_both_old_and_new_stand_side_by_side() {
    let mut case = after_a_change(10, 0);
    assert!(case.plan().steps.iter().all(|step| matches!(step, CredentialWrite::Put { .. })));
    carry_out(&mut case, &BTreeSet::new());
    assert_eq!(case.existing.len(), 20);
}

#[test]
fn where_slots_are_short_a_former_credential_gives_way_only_to_a_new_one_that_stands() {
    for (accounts, others) in [(12, 0), (12, 7), (19, 0), (1, 18)] {
        let mut case = after_a_change(accounts, others);
        assert_eq!(carry_out(&mut case, &BTreeSet::new()), BTreeSet::new(), "{accounts} and {others} others");
        let new = case.existing.iter().filter(|credential| credential.issuer == cluster().issuer).count();
        assert_eq!(new, accounts, "every subject has the new one");
        assert_eq!(case.existing.len(), 20, "and no former one went in vain");
        assert_eq!(case.plan().steps, []);
    }
}

#[test]
fn the_clusters_share_is_kept_across_a_change() {
    let mut case = after_a_change(5, 3);
    case.max_credentials = 5;
    assert_eq!(carry_out(&mut case, &BTreeSet::new()), BTreeSet::new(), "Azure has slots for the moment between");
    assert_eq!(case.existing.len(), 8);
    assert_eq!(case.plan().steps, []);
}

#[test]
fn with_every_slot_taken_subjects_change_over_one_by_one_and_a_failure_stops_that() {
    let mut case = after_a_change(20, 0);
    let puts: BTreeSet<String> = (0..20).map(|n| ours(&format!("app-{n}")).name).collect();
    let mut broken = after_a_change(20, 0);
    assert_eq!(carry_out(&mut broken, &puts).len(), 1, "one subject pays, not twenty");
    carry_out(&mut case, &BTreeSet::new());
    assert!(case.existing.iter().all(|credential| credential.issuer == cluster().issuer));
}

#[test]
fn a_new_binding_is_not_refused_for_the_sake_of_a_former_credential_that_nobody_needs() {
    let mut case = after_a_change(10, 0);
    carry_out(&mut case, &BTreeSet::new());
    case.wanted.push(wanted("new"));
    assert_eq!(carry_out(&mut case, &BTreeSet::new()), BTreeSet::new());
    assert!(case.existing.contains(&ours("new")));
}

#[test]
fn after_a_move_what_was_written_under_the_previous_id_is_kept_under_its_name() {
    let moved = Cluster { id: "cluster-2".into(), previous_id: Some("cluster-1".into()), ..cluster() };
    let mut broken = ours("broken");
    broken.audiences = vec!["other".into()];
    let existing = [ours("orders"), ours("gone"), broken];
    let wanted = [wanted("orders"), wanted("broken"), wanted("new")];
    let plan = plan(&Inputs {
        cluster: &moved,
        identity: &identity(),
        retiring_issuers: &[],
        wanted: &wanted,
        existing: &existing,
        policy: CredentialPolicy::Manage,
        max_credentials: 20,
    });
    let given = TrustState::Given { name: ours("orders").name, origin: CredentialOrigin::Created };
    assert_eq!(plan.standings[&wanted[0].subject], given);
    let new = Credential { name: moved.credential_name(&wanted[2].subject), ..ours("new") };
    let expected = [
        CredentialWrite::Put { credential: ours("broken"), replaces: Some(existing[2].clone()) },
        CredentialWrite::Put { credential: new, replaces: None },
        CredentialWrite::Delete { credential: ours("gone"), after: None },
    ];
    assert_eq!(plan.steps, expected);
}

fn any_change() -> impl Strategy<Value = (Case, BTreeSet<String>)> {
    let accounts = || prop::collection::btree_set(0..16_u8, 0..14);
    (accounts(), accounts(), accounts(), accounts(), 0..12usize, 1..=20u32, any::<bool>()).prop_map(
        |(wants, olds, news, failing, others, max_credentials, expired)| {
            let name = |n: &u8| format!("app-{n}");
            let existing = olds.iter().map(|n| former(&name(n))).chain(news.iter().map(|n| ours(&name(n))));
            let mut case = Case::new(
                wants.iter().map(|n| wanted(&name(n))).collect(),
                existing.chain((0..others).map(foreign)).take(20).collect(),
            );
            case.max_credentials = max_credentials;
            case.retiring = vec![(FORMER, expired)];
            (case, failing.iter().map(|n| ours(&name(n)).name).collect())
        },
    )
}

fn any_case() -> impl Strategy<Value = Case> {
    let account = prop::sample::select(vec!["a", "b", "c", "d", "e", "f", "g"]);
    let wanted_accounts = prop::collection::btree_set(account.clone(), 0..7);
    let our_accounts = prop::collection::btree_set(account, 0..7);
    (wanted_accounts, our_accounts, 0..16usize, 1..=20u32, any::<[bool; 3]>()).prop_map(
        |(wants, has, foreigners, max_credentials, [break_audience, adopt, hijack])| {
            let mut existing: Vec<_> = has.iter().map(|account| ours(account)).collect();
            if let Some(first) = existing.first_mut().filter(|_| break_audience) {
                first.audiences = vec!["other".into()];
            }
            if let Some(last) = existing.last_mut().filter(|_| adopt) {
                last.name = "by-hand".into();
            }
            if let Some(second) = existing.get_mut(1).filter(|_| hijack) {
                second.subject = "repo:evil/app".into();
            }
            existing.extend((0..foreigners).map(foreign));
            let mut case = Case::new(wants.into_iter().map(wanted).collect(), existing);
            case.max_credentials = max_credentials;
            case
        },
    )
}

proptest! {
    #[test]
    fn applying_a_plan_and_planning_again_is_empty(mut case in any_case()) {
        let plan = case.plan();
        for step in &plan.steps {
            apply(&mut case.existing, step);
        }
        prop_assert_eq!(case.plan().steps, vec![]);
    }

    #[test]
    fn no_plan_touches_what_is_not_ours(case in any_case()) {
        for step in case.plan().steps {
            if let Some(stands) = case.existing.iter().find(|credential| credential.name == step.name()) {
                prop_assert_eq!(cluster().owner(stands, &[]), Owner::ThisCluster);
            }
        }
    }

    #[test]
    fn no_plan_exceeds_azures_limit_at_any_step(mut case in any_case()) {
        prop_assume!(case.existing.len() <= 20);
        for step in case.plan().steps {
            apply(&mut case.existing, &step);
            prop_assert!(case.existing.len() <= 20);
        }
    }

    #[test]
    fn wanted_trust_is_never_deleted(case in any_case()) {
        let wanted: BTreeSet<_> = case.wanted.iter().map(|wanted| wanted.subject.to_string()).collect();
        for step in case.plan().steps {
            if let CredentialWrite::Delete { credential, .. } = step {
                prop_assert!(!wanted.contains(&credential.subject));
            }
        }
    }

    #[test]
    fn every_wanted_subject_gets_an_answer(case in any_case()) {
        let plan = case.plan();
        prop_assert_eq!(plan.standings.len(), case.wanted.len());
    }

    #[test]
    fn a_change_of_the_issuer_settles_and_loses_no_trust_while_a_slot_is_free((mut case, _) in any_change()) {
        let full = case.existing.len() == 20;
        let expired = case.retiring[0].1;
        let lost = carry_out(&mut case, &BTreeSet::new());
        prop_assert!(full || expired || lost.is_empty(), "{lost:?}");
        prop_assert_eq!(case.plan().steps, vec![]);
    }

    #[test]
    fn whatever_fails_during_a_change_at_most_one_subject_pays((mut case, failing) in any_change()) {
        case.retiring = vec![(FORMER, false)];
        let full = case.existing.len() == 20;
        let lost = carry_out(&mut case, &failing);
        prop_assert!(lost.len() <= usize::from(full), "{lost:?}");
    }
}
