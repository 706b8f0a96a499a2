//! Plans against a model of Azure with every kind of credential that can exist under an identity, which rejects what Azure
//! rejects.

use proptest::prelude::*;

use super::*;

const AUDIENCE: &str = "api://AzureADTokenExchange";
const FORMER: &str = "https://issuer.example/0";
const LIMIT: usize = 20;

fn cluster() -> Cluster {
    Cluster {
        id: "cluster-1".into(),
        previous_id: Some("cluster-0".into()),
        issuer: "https://issuer.example/1".into(),
        audience: AUDIENCE.into(),
    }
}

fn identity() -> ArmId {
    "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders".parse().unwrap()
}

fn subject(account: u8) -> Subject {
    Subject::new("shop", format!("app-{account}"))
}

fn written_by(cluster: &Cluster, account: u8) -> Credential {
    Credential {
        name: cluster.credential_name(&subject(account)),
        issuer: cluster.issuer.clone(),
        subject: subject(account).to_string(),
        audiences: vec![AUDIENCE.into()],
    }
}

/// Where a credential comes from.
#[derive(Clone, Copy, Debug)]
enum Origin {
    Ours,
    OursOfTheFormerIssuer,
    OursOfThePreviousId,
    OursWithAnotherAudience,
    /// Ours, edited by hand: it trusts the account after its own.
    OursForAnother,
    OfAnotherCluster,
    OfACopyOfThisCluster,
    ByHandForUs,
    ByHandForUsWithAnotherAudience,
    ByHandForSomethingElse,
}

fn make(origin: Origin, account: u8) -> Credential {
    let us = cluster();
    let ours = written_by(&us, account);
    let previous = Cluster { id: "cluster-0".into(), ..us.clone() };
    let copy = Cluster { issuer: "https://issuer.example/copy".into(), ..us.clone() };
    let elsewhere = Cluster { id: "elsewhere".into(), issuer: "https://elsewhere.example".into(), ..us.clone() };
    let by_hand = format!("by-hand-{account}");
    match origin {
        Origin::Ours => ours,
        Origin::OursOfTheFormerIssuer => written_by(&Cluster { issuer: FORMER.into(), ..us }, account),
        Origin::OursOfThePreviousId => written_by(&previous, account),
        Origin::OursWithAnotherAudience => Credential { audiences: vec!["other".into()], ..ours },
        Origin::OursForAnother => Credential { subject: subject(account + 1).to_string(), ..ours },
        Origin::OfAnotherCluster => written_by(&elsewhere, account),
        Origin::OfACopyOfThisCluster => written_by(&copy, account),
        Origin::ByHandForUs => Credential { name: by_hand, ..ours },
        Origin::ByHandForUsWithAnotherAudience => Credential { name: by_hand, audiences: vec!["other".into()], ..ours },
        Origin::ByHandForSomethingElse => {
            let subject = format!("repo:org/app-{account}");
            Credential { name: format!("{by_hand}-ci"), issuer: "https://ci.example".into(), subject, ..ours }
        }
    }
}

fn any_origin() -> impl Strategy<Value = Origin> {
    prop_oneof![
        4 => Just(Origin::Ours),
        4 => Just(Origin::OursOfTheFormerIssuer),
        2 => Just(Origin::OursOfThePreviousId),
        1 => Just(Origin::OursWithAnotherAudience),
        1 => Just(Origin::OursForAnother),
        1 => Just(Origin::OfAnotherCluster),
        1 => Just(Origin::OfACopyOfThisCluster),
        1 => Just(Origin::ByHandForUs),
        1 => Just(Origin::ByHandForUsWithAnotherAudience),
        1 => Just(Origin::ByHandForSomethingElse),
    ]
}

/// The credentials under an identity, and Azure's rules for them.
#[derive(Clone, Debug, Default)]
struct Azure(Vec<Credential>);

impl Azure {
    fn put(&mut self, credential: &Credential) -> Result<(), &'static str> {
        let others = || self.0.iter().filter(|other| !other.name.eq_ignore_ascii_case(&credential.name));
        if !is_name(&credential.name) {
            return Err("the name is invalid");
        }
        if credential.audiences.len() != 1 {
            return Err("there is not exactly one audience");
        }
        if others().any(|other| other.issuer == credential.issuer && other.subject == credential.subject) {
            return Err("issuer and subject combination already exists");
        }
        if others().count() >= LIMIT {
            return Err("there are too many");
        }
        self.0.retain(|other| !other.name.eq_ignore_ascii_case(&credential.name));
        self.0.push(credential.clone());
        Ok(())
    }

    fn apply(&mut self, write: &CredentialWrite) -> Result<(), &'static str> {
        match write {
            CredentialWrite::Put { credential, .. } => self.put(credential),
            CredentialWrite::Delete { credential, .. } => {
                self.0.retain(|other| other.name != credential.name);
                Ok(())
            }
        }
    }
}

/// `^[a-zA-Z0-9]{1}[a-zA-Z0-9-_]{2,119}$`
fn is_name(name: &str) -> bool {
    (3..=120).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

#[derive(Clone, Debug)]
struct Case {
    azure: Azure,
    wanted: Vec<Wanted>,
    former_expired: bool,
    policy: CredentialPolicy,
    max_credentials: u32,
}

impl Case {
    fn plan(&self) -> Plan {
        plan(&Inputs {
            cluster: &cluster(),
            identity: &identity(),
            retiring_issuers: &[(FORMER, self.former_expired)],
            wanted: &self.wanted,
            existing: &self.azure.0,
            policy: self.policy,
            max_credentials: self.max_credentials,
        })
    }

    fn is_ours(credential: &Credential) -> bool {
        cluster().owner(credential, &[FORMER]) == Owner::ThisCluster
    }

    fn ours(&self) -> usize {
        self.azure.0.iter().filter(|credential| Self::is_ours(credential)).count()
    }

    /// Wanted subjects that a credential trusts.
    fn trusted(&self) -> BTreeSet<String> {
        let trusts = |credential: &&Credential| {
            let issuer_counts =
                credential.issuer == cluster().issuer || (credential.issuer == FORMER && !self.former_expired);
            issuer_counts && credential.audiences == [AUDIENCE]
        };
        let subjects: BTreeSet<String> = self.wanted.iter().map(|wanted| wanted.subject.to_string()).collect();
        let trusted = self.azure.0.iter().filter(trusts).map(|credential| credential.subject.clone());
        trusted.filter(|subject| subjects.contains(subject)).collect()
    }
}

fn any_case() -> impl Strategy<Value = Case> {
    let found = prop::collection::vec((any_origin(), 0..16_u8), 0..24);
    let wants = prop::collection::btree_map(0..16_u8, any::<bool>(), 0..16);
    (found, wants, any::<bool>(), prop_oneof![4 => Just(20_u32), 1 => 1..=20_u32]).prop_map(
        |(found, wants, former_expired, max_credentials)| {
            let mut azure = Azure::default();
            for (origin, account) in found {
                // Azure would not have accepted the others.
                let _ = azure.put(&make(origin, account));
            }
            let wanted = wants.into_iter().map(|(account, recorded)| Wanted {
                subject: subject(account),
                recorded_name: recorded.then(|| cluster().credential_name(&subject(account))),
            });
            let wanted = wanted.collect();
            Case { azure, wanted, former_expired, policy: CredentialPolicy::Manage, max_credentials }
        },
    )
}

proptest! {
    #[test]
    fn azure_accepts_every_step_in_order(mut case in any_case()) {
        for write in case.plan().writes {
            prop_assert!(write.may_go(&case.azure.0), "{:?}", write);
            prop_assert_eq!(case.azure.apply(&write), Ok(()), "{:?}", write);
        }
    }

    #[test]
    fn after_a_plan_is_applied_nothing_is_left_to_do_and_its_states_came_true(mut case in any_case()) {
        let mut plan = case.plan();
        let repairs = |plan: &Plan| plan.writes.iter().any(|write| matches!(write, CredentialWrite::Put { replaces: Some(_), .. }));
        if repairs(&plan) {
            // A repair may free a slot for a second plan.
            for write in &plan.writes {
                prop_assert_eq!(case.azure.apply(write), Ok(()));
            }
            plan = case.plan();
            prop_assert!(!repairs(&plan), "one repair is enough");
        }
        for write in &plan.writes {
            prop_assert_eq!(case.azure.apply(write), Ok(()));
        }
        let again = case.plan();
        prop_assert_eq!(&again.writes, &vec![]);
        for (subject, state) in plan.trust_states {
            let now = &again.trust_states[&subject];
            let came_true = match &state {
                TrustState::Planned { name } => {
                    *now == TrustState::Given { name: name.clone(), origin: CredentialOrigin::Created }
                }
                TrustState::Given { .. } => *now == state,
                TrustState::Blocked { reason: before, .. } => {
                    matches!(now, TrustState::Blocked { reason, .. } if reason == before)
                }
            };
            prop_assert!(came_true, "{}: {:?}, then {:?}", subject, state, now);
        }
    }

    #[test]
    fn no_step_touches_a_credential_that_is_not_ours_unless_we_recorded_its_name(case in any_case()) {
        let recorded: BTreeSet<_> = case.wanted.iter().filter_map(|wanted| wanted.recorded_name.clone()).collect();
        for write in case.plan().writes {
            let Some(there) = case.azure.0.iter().find(|there| there.name.eq_ignore_ascii_case(write.name())) else {
                continue;
            };
            let repaired = matches!(&write, CredentialWrite::Put { replaces: Some(replaced), .. } if replaced == there);
            prop_assert!(Case::is_ours(there) || (repaired && recorded.contains(&there.name)), "{:?}", write);
        }
    }

    #[test]
    fn only_what_is_wanted_is_ever_put(case in any_case()) {
        let wanted: BTreeSet<_> = case.wanted.iter().map(|wanted| wanted.subject.to_string()).collect();
        for write in case.plan().writes {
            if let CredentialWrite::Put { credential, .. } = write {
                prop_assert!(wanted.contains(&credential.subject));
                prop_assert_eq!(&credential.issuer, &cluster().issuer);
                prop_assert_eq!(credential.audiences, vec![AUDIENCE.to_owned()]);
            }
        }
    }

    #[test]
    fn no_wanted_trust_is_lost_while_azure_has_a_free_slot(mut case in any_case()) {
        let before = case.trusted();
        let full = case.azure.0.len() == LIMIT;
        let mut lost = BTreeSet::new();
        for write in case.plan().writes {
            prop_assert_eq!(case.azure.apply(&write), Ok(()));
            lost.extend(before.difference(&case.trusted()).cloned().collect::<Vec<_>>());
        }
        prop_assert!(full || lost.is_empty(), "{:?}", lost);
        prop_assert!(before.is_subset(&case.trusted()), "all of it exists at the end");
    }

    #[test]
    fn the_share_is_not_exceeded_unless_it_was_before(mut case in any_case()) {
        let plan = case.plan();
        // A repaired credential had its slot before it was edited.
        let edited = plan.writes.iter().filter(|write| {
            matches!(write, CredentialWrite::Put { replaces: Some(there), .. } if !Case::is_ours(there))
        });
        let before = case.ours() + edited.count();
        for write in plan.writes {
            prop_assert_eq!(case.azure.apply(&write), Ok(()));
        }
        prop_assert!(case.ours() <= before.max(case.max_credentials as usize), "{} of {}", case.ours(), before);
    }

    #[test]
    fn unwanted_credentials_are_deleted_at_the_end(mut case in any_case()) {
        let wanted: BTreeSet<_> = case.wanted.iter().map(|wanted| wanted.subject.to_string()).collect();
        for write in case.plan().writes {
            prop_assert_eq!(case.azure.apply(&write), Ok(()));
        }
        for left in case.azure.0.iter().filter(|left| Case::is_ours(left)) {
            prop_assert!(wanted.contains(&left.subject), "{:?}", left);
        }
    }

    #[test]
    fn observe_plans_nothing_at_all(mut case in any_case()) {
        case.policy = CredentialPolicy::Observe;
        let plan = case.plan();
        prop_assert_eq!(plan.writes, vec![]);
        let planned = plan.trust_states.values().any(|state| matches!(state, TrustState::Planned { .. }));
        prop_assert!(!planned, "{:?}", plan.trust_states);
    }

    #[test]
    fn the_order_of_azures_list_does_not_affect_the_states(mut case in any_case()) {
        let original = case.plan();
        case.azure.0.reverse();
        let reversed = case.plan();
        let reasons = |plan: &Plan| -> Vec<String> {
            plan.trust_states.iter().map(|(subject, state)| match state {
                TrustState::Given { name, .. } => format!("{subject} given {name}"),
                TrustState::Planned { name } => format!("{subject} planned {name}"),
                TrustState::Blocked { reason, .. } => format!("{subject} {reason}"),
            }).collect()
        };
        prop_assert_eq!(reasons(&original), reasons(&reversed));
    }
}
