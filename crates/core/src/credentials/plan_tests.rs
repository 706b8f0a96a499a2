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

    fn state(&self, account: &str) -> TrustState {
        self.plan().trust_states[&Subject::new("shop", account)].clone()
    }
}

fn blocked(state: &TrustState) -> (Reason, &str) {
    match state {
        TrustState::Blocked { reason, message } => (*reason, message),
        other => panic!("expected a blocked subject, found {other:?}"),
    }
}

fn apply(existing: &mut Vec<Credential>, write: &CredentialWrite) {
    existing.retain(|credential| credential.name != write.name());
    if let CredentialWrite::Put { credential, .. } = write {
        existing.push(credential.clone());
    }
}

#[test]
fn a_missing_credential_is_created() {
    let plan = Case::new(vec![wanted("orders")], vec![]).plan();
    assert_eq!(plan.writes, [CredentialWrite::Put { credential: ours("orders"), replaces: None }]);
}

#[test]
fn an_existing_credential_needs_no_write() {
    let case = Case::new(vec![wanted("orders")], vec![ours("orders")]);
    assert_eq!(case.plan().writes, []);
    let name = ours("orders").name;
    assert_eq!(case.state("orders"), TrustState::Given { name, origin: CredentialOrigin::Created });
}

#[test]
fn an_unwanted_credential_of_ours_is_deleted() {
    let plan = Case::new(vec![], vec![ours("orders"), foreign(1)]).plan();
    assert_eq!(plan.writes, [CredentialWrite::Delete { credential: ours("orders"), after: None }]);
}

#[test]
fn a_credential_created_by_hand_with_the_same_trust_is_adopted() {
    let by_hand = Credential { name: "by-hand".into(), ..ours("orders") };
    let case = Case::new(vec![wanted("orders")], vec![by_hand]);
    assert_eq!(case.plan().writes, []);
    let adopted = TrustState::Given { name: "by-hand".into(), origin: CredentialOrigin::Adopted };
    assert_eq!(case.state("orders"), adopted);
}

#[test]
fn an_adopted_credential_is_kept_when_it_is_no_longer_wanted() {
    let by_hand = Credential { name: "by-hand".into(), ..ours("orders") };
    assert_eq!(Case::new(vec![], vec![by_hand]).plan().writes, []);
}

#[test]
fn a_foreign_credential_with_the_wrong_audience_blocks_and_the_message_has_the_command_to_delete_it() {
    let by_hand = Credential { name: "by-hand".into(), audiences: vec!["other".into()], ..ours("orders") };
    let case = Case::new(vec![wanted("orders")], vec![by_hand]);
    assert_eq!(case.plan().writes, []);
    let state = case.state("orders");
    let (reason, message) = blocked(&state);
    assert_eq!(reason, Reason::CredentialConflict);
    assert!(message.contains("by-hand") && message.contains("az identity federated-credential delete"), "{message}");
}

#[test]
fn our_own_credential_with_the_wrong_audience_is_repaired() {
    let edited = Credential { audiences: vec!["other".into()], ..ours("orders") };
    let plan = Case::new(vec![wanted("orders")], vec![edited.clone()]).plan();
    assert_eq!(plan.writes, [CredentialWrite::Put { credential: ours("orders"), replaces: Some(edited) }]);
}

#[test]
fn a_foreign_credential_under_our_name_is_not_overwritten() {
    let hijacked = Credential { subject: "repo:evil/app".into(), ..ours("orders") };
    let case = Case::new(vec![wanted("orders")], vec![hijacked]);
    assert_eq!(case.plan().writes, []);
    assert_eq!(blocked(&case.state("orders")).0, Reason::CredentialConflict);
}

#[test]
fn a_recorded_credential_that_was_edited_is_repaired() {
    let edited = Credential { subject: "system:serviceaccount:shop:other".into(), ..ours("orders") };
    let recorded = Wanted { recorded_name: Some(ours("orders").name), ..wanted("orders") };
    let plan = Case::new(vec![recorded], vec![edited.clone()]).plan();
    assert_eq!(plan.writes, [CredentialWrite::Put { credential: ours("orders"), replaces: Some(edited) }]);
}

#[test]
fn an_edited_credential_that_another_binding_depends_on_is_not_touched() {
    let edited = Credential { subject: Subject::new("shop", "billing").to_string(), ..ours("orders") };
    let recorded = Wanted { recorded_name: Some(ours("orders").name), ..wanted("orders") };
    let case = Case::new(vec![recorded, wanted("billing")], vec![edited.clone()]);
    assert_eq!(case.plan().writes, [], "repairing it would revoke the trust in billing");
    let adopted = TrustState::Given { name: edited.name, origin: CredentialOrigin::Adopted };
    assert_eq!(case.state("billing"), adopted);
    assert_eq!(blocked(&case.state("orders")).0, Reason::CredentialConflict);
}

#[test]
fn a_repaired_credential_counts_towards_the_share() {
    let edited = Credential { subject: "repo:org/app".into(), ..ours("orders") };
    let recorded = Wanted { recorded_name: Some(ours("orders").name), ..wanted("orders") };
    let mut case = Case::new(vec![recorded, wanted("billing")], vec![edited.clone()]);
    case.max_credentials = 1;
    assert_eq!(case.plan().writes, [CredentialWrite::Put { credential: ours("orders"), replaces: Some(edited) }]);
    assert_eq!(blocked(&case.state("billing")).0, Reason::QuotaExceeded);
}

#[test]
fn the_21st_credential_is_rejected_before_any_write_and_the_message_lists_who_uses_the_slots() {
    let existing = (0..20).map(foreign).collect();
    let case = Case::new(vec![wanted("orders")], existing);
    assert_eq!(case.plan().writes, []);
    let state = case.state("orders");
    let (reason, message) = blocked(&state);
    assert_eq!(reason, Reason::QuotaExceeded);
    assert!(message.starts_with("20/20") && message.contains("not managed by Ensign 20"), "{message}");
}

#[test]
fn the_share_of_this_cluster_is_not_exceeded() {
    let mut case = Case::new(vec![wanted("a"), wanted("b")], vec![]);
    case.max_credentials = 1;
    assert_eq!(case.plan().writes, [CredentialWrite::Put { credential: ours("a"), replaces: None }]);
    let state = case.state("b");
    let (reason, message) = blocked(&state);
    assert_eq!(reason, Reason::QuotaExceeded);
    assert!(message.contains("maxCredentials"), "{message}");
}

#[test]
fn a_put_precedes_the_delete_if_a_slot_is_free() {
    let plan = Case::new(vec![wanted("new")], vec![ours("old")]).plan();
    assert_eq!(plan.writes[0], CredentialWrite::Put { credential: ours("new"), replaces: None });
    assert_eq!(plan.writes[1], CredentialWrite::Delete { credential: ours("old"), after: None });
}

#[test]
fn a_put_follows_the_delete_if_no_slot_is_free() {
    let mut existing: Vec<_> = (0..19).map(foreign).collect();
    existing.push(ours("old"));
    let plan = Case::new(vec![wanted("new")], existing).plan();
    assert_eq!(plan.writes[0], CredentialWrite::Delete { credential: ours("old"), after: None });
    assert_eq!(plan.writes[1], CredentialWrite::Put { credential: ours("new"), replaces: None });
}

#[test]
fn observe_writes_nothing_and_reports_the_command() {
    let mut case = Case::new(vec![wanted("orders")], vec![ours("old")]);
    case.policy = CredentialPolicy::Observe;
    assert_eq!(case.plan().writes, []);
    let state = case.state("orders");
    let (reason, message) = blocked(&state);
    assert_eq!(reason, Reason::CredentialMissing);
    assert!(message.contains("az identity federated-credential create"), "{message}");
}

#[test]
fn a_credential_of_the_former_issuer_is_kept_until_its_last_token_has_expired() {
    let old = "https://issuer.example/0";
    let former = Cluster { issuer: old.into(), ..cluster() };
    let subject = Subject::new("shop", "orders");
    let before = Credential { name: former.credential_name(&subject), issuer: old.into(), ..ours("orders") };
    let mut case = Case::new(vec![wanted("orders")], vec![before.clone()]);
    case.retiring = vec![(old, false)];
    assert_eq!(case.plan().writes, [CredentialWrite::Put { credential: ours("orders"), replaces: None }]);
    case.retiring = vec![(old, true)];
    assert_eq!(case.plan().writes.last(), Some(&CredentialWrite::Delete { credential: before, after: None }));
}

const FORMER: &str = "https://issuer.example/0";

/// A credential that this cluster wrote for its former issuer.
fn former(account: &str) -> Credential {
    let before = Cluster { issuer: FORMER.into(), ..cluster() };
    let subject = Subject::new("shop", account);
    Credential { name: before.credential_name(&subject), issuer: FORMER.into(), ..ours(account) }
}

/// A change of the issuer: `accounts` credentials of the former issuer, whose tokens are still valid, and `others`.
fn issuer_change(accounts: usize, others: usize) -> Case {
    let names: Vec<String> = (0..accounts).map(|n| format!("app-{n}")).collect();
    let existing = names.iter().map(|name| former(name)).chain((0..others).map(foreign)).collect();
    let mut case = Case::new(names.iter().map(|name| wanted(name)).collect(), existing);
    case.retiring = vec![(FORMER, false)];
    case
}

/// Carries a plan out as the controller does. Writes that fail are skipped, unless a later write depends on them. Returns
/// the subjects that had trust and lost it at some point.
fn carry_out(case: &mut Case, failing: &BTreeSet<String>) -> BTreeSet<String> {
    let wanted: BTreeSet<String> = case.wanted.iter().map(|wanted| wanted.subject.to_string()).collect();
    let trusted = |existing: &[Credential]| -> BTreeSet<String> {
        let trusts =
            |credential: &&Credential| credential.audiences == [AUDIENCE] && wanted.contains(&credential.subject);
        existing.iter().filter(trusts).map(|credential| credential.subject.clone()).collect()
    };
    let before = trusted(&case.existing);
    let mut lost = BTreeSet::new();
    for write in case.plan().writes {
        if !write.may_go(&case.existing) {
            break;
        }
        let rejected = matches!(write, CredentialWrite::Put { replaces: None, .. }) && case.existing.len() == 20;
        assert!(!rejected || !failing.is_empty(), "the plan must not exceed the limit");
        if !rejected && !failing.contains(write.name()) {
            apply(&mut case.existing, &write);
        }
        lost.extend(before.difference(&trusted(&case.existing)).cloned());
    }
    lost
}

#[test]
fn with_enough_slots_old_and_new_credentials_coexist() {
    let mut case = issuer_change(10, 0);
    assert!(case.plan().writes.iter().all(|write| matches!(write, CredentialWrite::Put { .. })));
    carry_out(&mut case, &BTreeSet::new());
    assert_eq!(case.existing.len(), 20);
}

#[test]
fn with_too_few_slots_a_former_credential_is_deleted_only_once_a_new_one_is_in_place() {
    for (accounts, others) in [(12, 0), (12, 7), (19, 0), (1, 18)] {
        let mut case = issuer_change(accounts, others);
        assert_eq!(carry_out(&mut case, &BTreeSet::new()), BTreeSet::new(), "{accounts} and {others} others");
        let new = case.existing.iter().filter(|credential| credential.issuer == cluster().issuer).count();
        assert_eq!(new, accounts, "every subject has the new one");
        assert_eq!(case.existing.len(), 20, "and no former one is deleted needlessly");
        assert_eq!(case.plan().writes, []);
    }
}

#[test]
fn the_clusters_share_is_respected_across_an_issuer_change() {
    let mut case = issuer_change(5, 3);
    case.max_credentials = 5;
    assert_eq!(carry_out(&mut case, &BTreeSet::new()), BTreeSet::new(), "Azure has free slots in between");
    assert_eq!(case.existing.len(), 8);
    assert_eq!(case.plan().writes, []);
}

#[test]
fn with_no_free_slot_subjects_are_switched_one_by_one_until_a_write_fails() {
    let mut case = issuer_change(20, 0);
    let puts: BTreeSet<String> = (0..20).map(|n| ours(&format!("app-{n}")).name).collect();
    let mut broken = issuer_change(20, 0);
    assert_eq!(carry_out(&mut broken, &puts).len(), 1, "one subject loses its trust, not twenty");
    carry_out(&mut case, &BTreeSet::new());
    assert!(case.existing.iter().all(|credential| credential.issuer == cluster().issuer));
}

#[test]
fn a_new_binding_gets_the_slot_of_a_former_credential_that_is_no_longer_needed() {
    let mut case = issuer_change(10, 0);
    carry_out(&mut case, &BTreeSet::new());
    case.wanted.push(wanted("new"));
    assert_eq!(carry_out(&mut case, &BTreeSet::new()), BTreeSet::new());
    assert!(case.existing.contains(&ours("new")));
}

#[test]
fn credentials_with_the_previous_cluster_id_keep_their_name_after_a_move() {
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
    assert_eq!(plan.trust_states[&wanted[0].subject], given);
    let new = Credential { name: moved.credential_name(&wanted[2].subject), ..ours("new") };
    let expected = [
        CredentialWrite::Put { credential: ours("broken"), replaces: Some(existing[2].clone()) },
        CredentialWrite::Put { credential: new, replaces: None },
        CredentialWrite::Delete { credential: ours("gone"), after: None },
    ];
    assert_eq!(plan.writes, expected);
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
    fn planning_again_after_applying_a_plan_gives_no_writes(mut case in any_case()) {
        let plan = case.plan();
        for write in &plan.writes {
            apply(&mut case.existing, write);
        }
        prop_assert_eq!(case.plan().writes, vec![]);
    }

    #[test]
    fn no_plan_touches_what_is_not_ours(case in any_case()) {
        for write in case.plan().writes {
            if let Some(existing) = case.existing.iter().find(|credential| credential.name == write.name()) {
                prop_assert_eq!(cluster().owner(existing, &[]), Owner::ThisCluster);
            }
        }
    }

    #[test]
    fn no_plan_exceeds_azures_limit_after_any_write(mut case in any_case()) {
        prop_assume!(case.existing.len() <= 20);
        for write in case.plan().writes {
            apply(&mut case.existing, &write);
            prop_assert!(case.existing.len() <= 20);
        }
    }

    #[test]
    fn wanted_trust_is_never_revoked(case in any_case()) {
        let wanted: BTreeSet<_> = case.wanted.iter().map(|wanted| wanted.subject.to_string()).collect();
        for write in case.plan().writes {
            if let CredentialWrite::Delete { credential, .. } = write {
                prop_assert!(!wanted.contains(&credential.subject));
            }
        }
    }

    #[test]
    fn every_wanted_subject_gets_a_state(case in any_case()) {
        let plan = case.plan();
        prop_assert_eq!(plan.trust_states.len(), case.wanted.len());
    }

    #[test]
    fn an_issuer_change_converges_and_loses_no_trust_while_a_slot_is_free((mut case, _) in any_change()) {
        let full = case.existing.len() == 20;
        let expired = case.retiring[0].1;
        let lost = carry_out(&mut case, &BTreeSet::new());
        prop_assert!(full || expired || lost.is_empty(), "{lost:?}");
        prop_assert_eq!(case.plan().writes, vec![]);
    }

    #[test]
    fn whatever_fails_during_an_issuer_change_at_most_one_subject_loses_trust((mut case, failing) in any_change()) {
        case.retiring = vec![(FORMER, false)];
        let full = case.existing.len() == 20;
        let lost = carry_out(&mut case, &failing);
        prop_assert!(lost.len() <= usize::from(full), "{lost:?}");
    }
}
