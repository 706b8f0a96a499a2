use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const ID: &str = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders";
const UID: &str = "6f0c1d2e";

/// An object and what is in Azure.
struct World {
    spec: ProvisionedIdentity,
    recorded: Option<&'static str>,
    cluster: Cluster,
    found: AzureIdentity,
}

impl World {
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

    /// As this object made it.
    fn own(self) -> Self {
        self.tagged(&[(CLUSTER_TAG, "one"), (OBJECT_TAG, UID), ("team", "shop")])
    }

    fn with<T>(&self, ask: impl FnOnce(&Object<'_>) -> T) -> T {
        let id = ID.parse().unwrap();
        ask(&Object {
            id: &id,
            spec: &self.spec,
            claim: None,
            uid: UID,
            recorded_principal: self.recorded,
            cluster: &self.cluster,
        })
    }

    fn keep(&self) -> Upkeep {
        self.with(|object| object.keep(&self.found))
    }

    fn refused(&self) -> Reason {
        let upkeep = self.keep();
        assert_eq!(upkeep.step, None, "what is refused is not written");
        upkeep.refusal.expect("a refusal").reason
    }

    /// The identity after the write, and what is to be done then.
    fn written(mut self) -> (Self, Upkeep) {
        if let Some(IdentityWrite::Create(desired) | IdentityWrite::Update(desired)) = self.keep().step {
            self.found.tags = desired.tags;
            self.found.isolation_scope = Some(desired.isolation_scope.as_str().to_owned());
        }
        let upkeep = self.keep();
        (self, upkeep)
    }
}

#[test]
fn what_is_created_is_known_as_the_objects_own_from_the_first_moment() {
    let mut world = World::new(&json!({"isolationScope": "Regional"}));
    let create = |object: &Object<'_>| object.create();
    let Some(IdentityWrite::Create(desired)) = world.with(create).step else { panic!("it is created") };
    assert_eq!(desired.location, "West Europe");
    assert_eq!(desired.isolation_scope, IsolationScope::Regional);
    world.found.tags = desired.tags;
    world.found.isolation_scope = Some("Regional".into());
    assert_eq!(world.with(|object| object.holder(&world.found.tags)), Holder::ThisObject);
    assert_eq!(world.keep(), Upkeep::default(), "nothing is left to be done");
}

#[test]
fn an_identity_that_ensign_did_not_make_is_left_alone_and_the_field_that_takes_it_over_is_named() {
    let world = World::new(&json!({})).tagged(&[("team", "shop")]);
    assert_eq!(world.refused(), Reason::IdentityExists);
    let message = world.keep().refusal.unwrap().message;
    assert!(message.contains("spec.provision.ifExists to Adopt"), "{message}");
}

#[test]
fn another_objects_identity_is_left_alone() {
    let world = World::new(&json!({})).tagged(&[(CLUSTER_TAG, "one"), (OBJECT_TAG, "another")]);
    assert_eq!(world.refused(), Reason::IdentityExists);
    let world = World::new(&json!({})).tagged(&[(CLUSTER_TAG, "one")]);
    assert_eq!(world.refused(), Reason::IdentityExists, "the cluster's tag alone proves nothing");
}

#[test]
fn what_may_be_taken_over_gets_the_tags_and_is_not_used_before() {
    for tags in [&[][..], &[(CLUSTER_TAG, "one"), (OBJECT_TAG, "another")]] {
        let world = World::new(&json!({"ifExists": "Adopt"})).tagged(tags);
        let upkeep = world.keep();
        assert_eq!(upkeep.refusal.map(|verdict| verdict.reason), Some(Reason::Provisioning));
        assert!(matches!(upkeep.step, Some(IdentityWrite::Update(_))));
        let (world, after) = world.written();
        assert_eq!(after, Upkeep::default());
        assert_eq!(world.with(|object| object.holder(&world.found.tags)), Holder::ThisObject);
    }
}

#[test]
fn another_clusters_identity_is_not_even_taken_over() {
    let world = World::new(&json!({"ifExists": "Adopt"})).tagged(&[(CLUSTER_TAG, "two"), (OBJECT_TAG, UID)]);
    assert_eq!(world.refused(), Reason::IdentityExists);
    let message = world.keep().refusal.unwrap().message;
    assert!(message.contains("az tag update"), "{message}");
}

#[test]
fn tags_that_differ_are_set_right_and_those_of_others_stay() {
    let world = World::new(&json!({"tags": {"team": "shop", "tier": "1"}})).own();
    let mut world = world;
    world.found.tags.insert("Team".into(), "theirs".into());
    world.found.tags.remove("team");
    world.found.tags.insert("cost-center".into(), "7".into());
    let upkeep = world.keep();
    assert_eq!(upkeep.refusal, None, "it can be used meanwhile");
    let Some(IdentityWrite::Update(desired)) = upkeep.step else { panic!("they are set right") };
    let tag = |name: &str| desired.tags.get(name).map(String::as_str);
    assert_eq!((tag("team"), tag("Team"), tag("tier")), (Some("shop"), None, Some("1")));
    assert_eq!(tag("cost-center"), Some("7"));
    assert_eq!(world.written().1, Upkeep::default());
}

#[test]
fn tags_of_ownership_that_somebody_took_away_come_back_only_where_azure_once_confirmed_the_identity() {
    let mut world = World::new(&json!({})).tagged(&[("team", "shop")]);
    world.recorded = Some("PRINCIPAL");
    assert!(matches!(world.keep(), Upkeep { step: Some(IdentityWrite::Update(_)), refusal: None }));
    world.found.tags.insert(CLUSTER_TAG.into(), "one".into());
    assert!(
        matches!(world.keep(), Upkeep { step: Some(IdentityWrite::Update(_)), refusal: None }),
        "nor only one of them"
    );
    world.found.tags.remove(CLUSTER_TAG);
    world.recorded = Some("of one that was deleted");
    assert_eq!(world.refused(), Reason::IdentityExists, "somebody made another under the name");
    world.recorded = Some("principal");
    world.found.tags.insert(CLUSTER_TAG.into(), "two".into());
    assert_eq!(world.refused(), Reason::IdentityExists, "it was given to another cluster");
}

#[test]
fn an_identity_in_another_region_is_told_and_not_written() {
    let mut world = World::new(&json!({})).own();
    world.found.location = "eastus".into();
    assert_eq!(world.refused(), Reason::LocationMismatch);
    let mut world = World::new(&json!({"ifExists": "Adopt"}));
    world.found.location = "eastus".into();
    assert_eq!(world.refused(), Reason::LocationMismatch, "nor taken over");
}

#[test]
fn what_was_made_under_the_previous_cluster_id_stays_the_objects_own_and_gets_the_new_one() {
    let mut world = World::new(&json!({})).own();
    world.cluster.id = "moved".into();
    assert_eq!(world.refused(), Reason::IdentityExists);
    world.cluster.previous_id = Some("one".into());
    let (world, after) = world.written();
    assert_eq!((world.found.tags[CLUSTER_TAG].as_str(), after), ("moved", Upkeep::default()));
}

#[test]
fn only_what_is_provably_the_objects_own_is_deleted_and_only_if_it_is_to_be() {
    let reclaim = |world: &World| world.with(|object| object.reclaim(&world.found));
    assert_eq!(reclaim(&World::new(&json!({"reclaimPolicy": "Delete"})).own()), Some(IdentityWrite::Delete));
    assert_eq!(reclaim(&World::new(&json!({})).own()), None, "Retain is the default");
    for tags in [
        &[][..],
        &[(CLUSTER_TAG, "one")],
        &[(OBJECT_TAG, UID)],
        &[(CLUSTER_TAG, "one"), (OBJECT_TAG, "another")],
        &[(CLUSTER_TAG, "two"), (OBJECT_TAG, UID)],
    ] {
        let mut world = World::new(&json!({"reclaimPolicy": "Delete", "ifExists": "Adopt"})).tagged(tags);
        world.recorded = Some("principal");
        assert_eq!(reclaim(&world), None, "{tags:?}");
    }
}

proptest! {
    #[test]
    fn whatever_the_tags_are_nothing_of_others_is_written_without_leave(
        cluster in proptest::option::of("one|two|One|"), uid in proptest::option::of("6f0c1d2e|another|"), takes in any::<bool>(),
    ) {
        let mut world = World::new(&json!({"ifExists": if takes { "Adopt" } else { "Refuse" }, "reclaimPolicy": "Delete"}));
        world.found.tags.extend(cluster.clone().map(|cluster| (CLUSTER_TAG.to_owned(), cluster)));
        world.found.tags.extend(uid.clone().map(|uid| (OBJECT_TAG.to_owned(), uid)));
        let ours = cluster.as_deref() == Some("one") && uid.as_deref() == Some(UID);
        let foreign = cluster.as_deref().is_some_and(|cluster| cluster != "one");
        let may = ours || (takes && !foreign);
        prop_assert_eq!(world.keep().step.is_some(), may, "the team's tag is missing, so that there is something to write");
        prop_assert_eq!(world.with(|object| object.reclaim(&world.found)).is_some(), ours);
        if may {
            prop_assert_eq!(world.written().1, Upkeep::default(), "one write is enough");
        }
    }
}
