//! Tenants against each other: whatever is bound, labelled, granted and deleted meanwhile, no credential is ever written
//! that no grant covered.

use std::collections::BTreeSet;

use ensign::api::{ManagedIdentity, ManagedIdentityBinding};
use ensign::decide::names::Subject;
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::ensign::Ensign;
use crate::support::objects::{unique, wait_for};

const TENANTS: usize = 5;
const ACCOUNTS: [&str; 2] = ["app", "worker"];
/// Bound everywhere, granted nowhere.
const INTRUDER: &str = "intruder";
const CHANGES: usize = 120;

struct World {
    ensign: &'static Ensign,
    client: Client,
    name: String,
    random: u64,
}

impl World {
    async fn new() -> Self {
        let ensign = Ensign::shared();
        let world = Self { ensign, client: ensign.control_plane.client().await, name: unique("tenancy"), random: 7 };
        for tenant in 0..TENANTS {
            ensign.azure_identity(&world.tenant(tenant), None, &[]);
            world.make_namespace(tenant).await;
            let identity: ManagedIdentity = object(json!({
                "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentity",
                "metadata": {"name": world.tenant(tenant)},
                "spec": {"existing": {"resourceID": ensign.arm_id(&world.tenant(tenant))}},
            }));
            world.identities().create(&PostParams::default(), &identity).await.expect("create an identity");
        }
        world
    }

    fn tenant(&self, number: usize) -> String {
        format!("{}-{number}", self.name)
    }

    fn identities(&self) -> Api<ManagedIdentity> {
        Api::all(self.client.clone())
    }

    fn bindings(&self, tenant: usize) -> Api<ManagedIdentityBinding> {
        Api::namespaced(self.client.clone(), &self.tenant(tenant))
    }

    /// The next of a fixed row of numbers below `limit`.
    fn pick(&mut self, limit: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.random >> 33).expect("31 bits") % limit
    }

    async fn make_namespace(&self, tenant: usize) {
        let name = Some(self.tenant(tenant));
        let namespace = Namespace { metadata: ObjectMeta { name, ..ObjectMeta::default() }, ..Namespace::default() };
        let api: Api<Namespace> = Api::all(self.client.clone());
        api.create(&PostParams::default(), &namespace).await.expect("create a namespace");
    }

    /// Binds a service account of one tenant to the identity of another, or to its own.
    async fn bind(&self, tenant: usize, identity: usize, account: &str) {
        let binding: ManagedIdentityBinding = object(json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityBinding",
            "metadata": {"name": format!("{account}-{identity}")},
            "spec": {
                "identityRef": {"name": self.tenant(identity)}, "serviceAccountName": account,
                // Variables of their own: this is about grants, not about conflicts.
                "injection": {"clientIDEnv": format!("CLIENT_{identity}")},
            },
        }));
        match self.bindings(tenant).create(&PostParams::default(), &binding).await {
            Ok(_) => {}
            // It is there, or it is still going away.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => panic!("bind: {error}"),
        }
    }

    async fn unbind(&self, tenant: usize, identity: usize, account: &str) {
        let name = format!("{account}-{identity}");
        match self.bindings(tenant).delete(&name, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => panic!("unbind: {error}"),
        }
    }

    /// Replaces the grants of an identity. Only neighbours are ever granted, by name or by label.
    async fn grant(&mut self, identity: usize) {
        let mut grants = Vec::new();
        for neighbour in neighbours(identity) {
            match self.pick(3) {
                0 => {}
                1 => grants.push(json!({
                    "name": format!("by-name-{neighbour}"), "namespace": self.tenant(neighbour),
                    "serviceAccounts": [ACCOUNTS[self.pick(2)]],
                })),
                _ => grants.push(json!({
                    "name": format!("by-label-{neighbour}"),
                    "namespaceSelector": {"matchLabels": {
                        "kubernetes.io/metadata.name": self.tenant(neighbour), "trusted": self.name,
                    }},
                    "serviceAccounts": ACCOUNTS,
                })),
            }
        }
        let patch = json!({"spec": {"allowedSubjects": grants}});
        let (api, name) = (self.identities(), self.tenant(identity));
        api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("grant");
    }

    async fn label(&mut self, tenant: usize) {
        let value = if self.pick(2) == 0 { Value::Null } else { json!(self.name) };
        let patch = json!({"metadata": {"labels": {"trusted": value}}});
        let api: Api<Namespace> = Api::all(self.client.clone());
        api.patch(&self.tenant(tenant), &PatchParams::default(), &Patch::Merge(patch)).await.expect("label");
    }

    /// What should be trusted under an identity, from the objects as they are.
    async fn wanted(&self, identity: usize) -> BTreeSet<String> {
        let object = self.identities().get(&self.tenant(identity)).await.expect("the identity");
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let mut wanted = BTreeSet::new();
        for tenant in 0..TENANTS {
            let namespace = namespaces.get(&self.tenant(tenant)).await.expect("the namespace");
            let labels = namespace.metadata.labels.unwrap_or_default();
            let bindings = self.bindings(tenant).list(&kube::api::ListParams::default()).await.expect("bindings");
            for binding in bindings.items.iter().filter(|binding| binding.metadata.deletion_timestamp.is_none()) {
                let subject = Subject::new(self.tenant(tenant), &binding.spec.service_account_name);
                let granted = ensign::decide::grants::covering(&object.spec.allowed_subjects, &subject, &labels);
                if binding.spec.identity_ref.name == self.tenant(identity) && granted.count() > 0 {
                    wanted.insert(subject.to_string());
                }
            }
        }
        wanted
    }

    fn trusted(&self, identity: usize) -> BTreeSet<String> {
        self.ensign.credentials(&self.tenant(identity)).into_iter().map(|(_, subject)| subject).collect()
    }
}

/// The only tenants that an identity is ever granted to: itself and the next one.
fn neighbours(identity: usize) -> [usize; 2] {
    [identity, (identity + 1) % TENANTS]
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_tenant_ever_gets_an_identity_that_was_not_granted_to_it() {
    let mut world = World::new().await;
    for tenant in 0..TENANTS {
        for identity in 0..TENANTS {
            for account in [ACCOUNTS[0], ACCOUNTS[1], INTRUDER] {
                world.bind(tenant, identity, account).await;
            }
        }
    }
    for _ in 0..CHANGES {
        let (tenant, identity, account) = (world.pick(TENANTS), world.pick(TENANTS), ACCOUNTS[world.pick(2)]);
        match world.pick(4) {
            0 => world.unbind(tenant, identity, account).await,
            1 => world.bind(tenant, identity, account).await,
            2 => world.label(tenant).await,
            _ => world.grant(identity).await,
        }
    }
    let mut ever_trusted = 0;
    for identity in 0..TENANTS {
        let wanted = world.wanted(identity).await;
        let name = world.tenant(identity);
        tokio::task::block_in_place(|| {
            wait_for(&format!("{name} to be trusted for {wanted:?} and nothing else"), || {
                (world.trusted(identity) == wanted).then_some(())
            });
        });
        let allowed: BTreeSet<String> = neighbours(identity)
            .into_iter()
            .flat_map(|tenant| ACCOUNTS.map(|account| Subject::new(world.tenant(tenant), account).to_string()))
            .collect();
        for write in world.ensign.arm_writes(&name).iter().filter(|write| write.method == "PUT") {
            let body = write.body.as_ref().expect("a body");
            let subject = body["properties"]["subject"].as_str().expect("a subject");
            assert!(allowed.contains(subject), "{name} was opened to {subject}, which no grant ever covered");
            ever_trusted += 1;
        }
    }
    assert!(ever_trusted > 10, "the changes have to give some trust, or nothing was tested: {ever_trusted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_subject_is_not_written_again_until_it_is_granted_again() {
    let world = World::new().await;
    let identity = world.tenant(0);
    let grant = async |grants: Value| {
        let patch = json!({"spec": {"allowedSubjects": grants}});
        world.identities().patch(&identity, &PatchParams::default(), &Patch::Merge(patch)).await.expect("grant");
    };
    let all = json!([{"name": "own", "namespace": world.tenant(0), "serviceAccounts": ["*"]}]);
    grant(all.clone()).await;
    world.bind(0, 0, "app").await;
    let settle = |wanted: usize| {
        tokio::task::block_in_place(|| {
            wait_for("the trust to settle", || (world.trusted(0).len() == wanted).then_some(()));
        });
    };
    for _ in 0..5 {
        settle(1);
        grant(json!([])).await;
        settle(0);
        let puts =
            |world: &World| world.ensign.arm_writes(&identity).iter().filter(|write| write.method == "PUT").count();
        let before = puts(&world);
        // Churn that makes the controller look at the identity again and again.
        world.bind(0, 0, "worker").await;
        world.unbind(0, 0, "worker").await;
        tokio::task::block_in_place(|| {
            wait_for("the churn to be over", || world.trusted(0).is_empty().then_some(()));
        });
        assert_eq!(puts(&world), before, "nothing is written without a grant");
        grant(all.clone()).await;
    }
}
