use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const ID: &str = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders";
const UID: &str = "6f0c1d2e";

/// An object and its identity in Azure.
struct Case {
    spec: ProvisionedIdentity,
    recorded: Option<&'static str>,
    cluster: Cluster,
    found: AzureIdentity,
}

impl Case {
    fn new(spec: &Value) -> Self {
        let mut whole = json!({
            "subscriptionID": "00000000-0000-0000-0000-000000000001", "resourceGroup": "rg", "location": "West Europe",
            "name": "orders", "tags": {"team": "shop"},
        });
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        Self {
            spec: serde_json::from_value(whole).unwrap(),
            recorded: None,
            cluster: Cluster {
                id: "one".into(),
                previous_id: None,
                issuer: "https://issuer.example".into(),
                audience: "api://AzureADTokenExchange".into(),
            },
            found: AzureIdentity {
                arm_id: ID.into(),
                client_id: "client".into(),
                principal_id: "principal".into(),
                tenant_id: "tenant".into(),
                location: "westeurope".into(),
                tags: BTreeMap::new(),
                isolation_scope: Some("None".into()),
            },
        }
    }

    fn tagged(mut self, tags: &[(&str, &str)]) -> Self {
        self.found.tags = tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self
    }

    /// Tagged as this object's.
    fn own(self) -> Self {
        self.tagged(&[(CLUSTER_TAG, "one"), (OBJECT_TAG, UID), ("team", "shop")])
    }

    fn with<T>(&self, call: impl FnOnce(&Object<'_>) -> T) -> T {
        let id = ID.parse().unwrap();
        call(&Object {
            id: &id,
            spec: &self.spec,
            claim: None,
            uid: UID,
            recorded_principal: self.recorded,
            cluster: &self.cluster,
        })
    }

    fn plan(&self) -> IdentityPlan {
        self.with(|object| object.update(&self.found))
    }

    fn rejected(&self) -> Reason {
        let plan = self.plan();
        assert_eq!(plan.write, None, "a rejected identity is not written");
        plan.blocker.expect("a blocker").reason
    }

    /// The identity after the write, and the next plan.
    fn written(mut self) -> (Self, IdentityPlan) {
        if let Some(IdentityWrite::Create(desired) | IdentityWrite::Update(desired)) = self.plan().write {
            self.found.tags = desired.tags;
            self.found.isolation_scope = Some(desired.isolation_scope.as_str().to_owned());
        }
        let plan = self.plan();
        (self, plan)
    }
}

#[test]
fn a_created_identity_is_recognised_as_the_objects_from_the_start() {
    let mut case = Case::new(&json!({"isolationScope": "Regional"}));
    let create = |object: &Object<'_>| object.create();
    let Some(IdentityWrite::Create(desired)) = case.with(create).write else { panic!("a creation") };
    assert_eq!(desired.location, "West Europe");
    assert_eq!(desired.isolation_scope, IsolationScope::Regional);
    case.found.tags = desired.tags;
    case.found.isolation_scope = Some("Regional".into());
    assert_eq!(case.with(|object| object.holder(&case.found.tags)), Holder::ThisObject);
    assert_eq!(case.plan(), IdentityPlan::default(), "nothing is left to do");
}

#[test]
fn an_identity_that_ensign_did_not_create_is_not_touched_and_the_message_names_the_field_that_adopts_it() {
    let case = Case::new(&json!({})).tagged(&[("team", "shop")]);
    assert_eq!(case.rejected(), Reason::IdentityExists);
    let message = case.plan().blocker.unwrap().message;
    assert!(message.contains("spec.provision.ifExists to Adopt"), "{message}");
}

#[test]
fn the_identity_of_another_object_is_not_touched() {
    let case = Case::new(&json!({})).tagged(&[(CLUSTER_TAG, "one"), (OBJECT_TAG, "another")]);
    assert_eq!(case.rejected(), Reason::IdentityExists);
    let case = Case::new(&json!({})).tagged(&[(CLUSTER_TAG, "one")]);
    assert_eq!(case.rejected(), Reason::IdentityExists, "the cluster tag alone proves nothing");
}

#[test]
fn an_adopted_identity_is_tagged_before_it_is_used() {
    for tags in [&[][..], &[(CLUSTER_TAG, "one"), (OBJECT_TAG, "another")]] {
        let case = Case::new(&json!({"ifExists": "Adopt"})).tagged(tags);
        let plan = case.plan();
        assert_eq!(plan.blocker.map(|verdict| verdict.reason), Some(Reason::Provisioning));
        assert!(matches!(plan.write, Some(IdentityWrite::Update(_))));
        let (case, after) = case.written();
        assert_eq!(after, IdentityPlan::default());
        assert_eq!(case.with(|object| object.holder(&case.found.tags)), Holder::ThisObject);
    }
}

#[test]
fn the_identity_of_another_cluster_is_never_adopted() {
    let case = Case::new(&json!({"ifExists": "Adopt"})).tagged(&[(CLUSTER_TAG, "two"), (OBJECT_TAG, UID)]);
    assert_eq!(case.rejected(), Reason::IdentityExists);
    let message = case.plan().blocker.unwrap().message;
    assert!(message.contains("az tag update"), "{message}");
}

#[test]
fn drifted_tags_are_corrected_and_tags_of_others_are_kept() {
    let case = Case::new(&json!({"tags": {"team": "shop", "tier": "1"}})).own();
    let mut case = case;
    case.found.tags.insert("Team".into(), "theirs".into());
    case.found.tags.remove("team");
    case.found.tags.insert("cost-center".into(), "7".into());
    let plan = case.plan();
    assert_eq!(plan.blocker, None, "it can be used in the meantime");
    let Some(IdentityWrite::Update(desired)) = plan.write else { panic!("an update") };
    let tag = |name: &str| desired.tags.get(name).map(String::as_str);
    assert_eq!((tag("team"), tag("Team"), tag("tier")), (Some("shop"), None, Some("1")));
    assert_eq!(tag("cost-center"), Some("7"));
    assert_eq!(case.written().1, IdentityPlan::default());
}

#[test]
fn removed_ownership_tags_are_restored_only_if_azure_once_confirmed_the_identity() {
    let mut case = Case::new(&json!({})).tagged(&[("team", "shop")]);
    case.recorded = Some("PRINCIPAL");
    assert!(matches!(case.plan(), IdentityPlan { write: Some(IdentityWrite::Update(_)), blocker: None }));
    case.found.tags.insert(CLUSTER_TAG.into(), "one".into());
    assert!(
        matches!(case.plan(), IdentityPlan { write: Some(IdentityWrite::Update(_)), blocker: None }),
        "also if only one is missing"
    );
    case.found.tags.remove(CLUSTER_TAG);
    case.recorded = Some("that of a deleted identity");
    assert_eq!(case.rejected(), Reason::IdentityExists, "another identity was created under the name");
    case.recorded = Some("principal");
    case.found.tags.insert(CLUSTER_TAG.into(), "two".into());
    assert_eq!(case.rejected(), Reason::IdentityExists, "it was handed to another cluster");
}

#[test]
fn an_identity_in_another_region_is_reported_and_not_written() {
    let mut case = Case::new(&json!({})).own();
    case.found.location = "eastus".into();
    assert_eq!(case.rejected(), Reason::LocationMismatch);
    let mut case = Case::new(&json!({"ifExists": "Adopt"}));
    case.found.location = "eastus".into();
    assert_eq!(case.rejected(), Reason::LocationMismatch, "nor adopted");
}

#[test]
fn an_identity_tagged_with_the_previous_cluster_id_remains_the_objects_and_is_retagged() {
    let mut case = Case::new(&json!({})).own();
    case.cluster.id = "moved".into();
    assert_eq!(case.rejected(), Reason::IdentityExists);
    case.cluster.previous_id = Some("one".into());
    let (case, after) = case.written();
    assert_eq!((case.found.tags[CLUSTER_TAG].as_str(), after), ("moved", IdentityPlan::default()));
}

#[test]
fn an_identity_is_deleted_only_if_it_is_provably_the_objects_and_the_policy_is_delete() {
    let reclaim = |case: &Case| case.with(|object| object.reclaim(&case.found));
    assert_eq!(reclaim(&Case::new(&json!({"reclaimPolicy": "Delete"})).own()), Some(IdentityWrite::Delete));
    assert_eq!(reclaim(&Case::new(&json!({})).own()), None, "Retain is the default");
    for tags in [
        &[][..],
        &[(CLUSTER_TAG, "one")],
        &[(OBJECT_TAG, UID)],
        &[(CLUSTER_TAG, "one"), (OBJECT_TAG, "another")],
        &[(CLUSTER_TAG, "two"), (OBJECT_TAG, UID)],
    ] {
        let mut case = Case::new(&json!({"reclaimPolicy": "Delete", "ifExists": "Adopt"})).tagged(tags);
        case.recorded = Some("principal");
        assert_eq!(reclaim(&case), None, "{tags:?}");
    }
}

proptest! {
    #[test]
    fn for_any_tags_the_identity_of_another_owner_is_written_only_if_adoption_is_allowed(
        cluster in proptest::option::of("one|two|One|"), uid in proptest::option::of("6f0c1d2e|another|"), adopts in any::<bool>(),
    ) {
        let mut case = Case::new(&json!({"ifExists": if adopts { "Adopt" } else { "Refuse" }, "reclaimPolicy": "Delete"}));
        case.found.tags.extend(cluster.clone().map(|cluster| (CLUSTER_TAG.to_owned(), cluster)));
        case.found.tags.extend(uid.clone().map(|uid| (OBJECT_TAG.to_owned(), uid)));
        let ours = cluster.as_deref() == Some("one") && uid.as_deref() == Some(UID);
        let foreign = cluster.as_deref().is_some_and(|cluster| cluster != "one");
        let may = ours || (adopts && !foreign);
        prop_assert_eq!(case.plan().write.is_some(), may, "the team tag is missing, so there is something to write");
        prop_assert_eq!(case.with(|object| object.reclaim(&case.found)).is_some(), ours);
        if may {
            prop_assert_eq!(case.written().1, IdentityPlan::default(), "one write is enough");
        }
    }
}
