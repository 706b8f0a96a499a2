//! Tenants against each other: whatever is bound, labelled, granted, deleted and recreated meanwhile, no credential is
//! ever written that no grant covered at that time.

use std::collections::BTreeSet;

use ensign_api::{ManagedIdentity, ManagedIdentityBinding};
use ensign_azure_emulator::LogEntry;
use ensign_core::credentials::names::Subject;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use ensign_testkit::ensign::Ensign;
use ensign_testkit::objects::{unique, wait_for};

const TENANTS: usize = 5;
const ACCOUNTS: [&str; 2] = ["app", "worker"];
/// Bound everywhere, granted nowhere.
const INTRUDER: &str = "intruder";
const CHANGES: usize = 200;

/// The state of the objects as the test models it, so that writes are not judged by the controller's own code.
#[derive(Clone, Default)]
struct State {
    /// For each identity, its grants.
    grants: [Vec<Grant>; TENANTS],
    /// Namespaces that carry the label.
    labelled: BTreeSet<usize>,
    /// Tenant, identity and service account of each binding.
    bound: BTreeSet<(usize, usize, &'static str)>,
}

#[derive(Clone, PartialEq, Eq)]
enum Grant {
    /// One service account of a tenant.
    Named(usize, &'static str),
    /// Both service accounts of a tenant, while its namespace has the label.
    Labelled(usize),
}

impl State {
    fn allows(&self, tenant: usize, identity: usize, account: &'static str) -> bool {
        self.bound.contains(&(tenant, identity, account))
            && self.grants[identity].iter().any(|grant| match grant {
                Grant::Named(to, name) => (*to, *name) == (tenant, account),
                Grant::Labelled(to) => *to == tenant && self.labelled.contains(to) && account != INTRUDER,
            })
    }
}

/// A state that began at some time between `sent` and `known`.
struct Change {
    sent: Timestamp,
    known: Timestamp,
    state: State,
}

struct Tenants {
    ensign: &'static Ensign,
    client: Client,
    name: String,
    random: u64,
    changes: Vec<Change>,
}

impl Tenants {
    async fn new() -> Self {
        let ensign = Ensign::shared();
        let now = Timestamp::now();
        let tenants = Self {
            ensign,
            client: ensign.control_plane.client().await,
            name: unique("tenancy"),
            random: 7,
            changes: vec![Change { sent: now, known: now, state: State::default() }],
        };
        for tenant in 0..TENANTS {
            ensign.azure_identity(&tenants.tenant(tenant), None, &[]);
            tenants.make_namespace(tenant).await;
            let identity: ManagedIdentity = object(json!({
                "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentity",
                "metadata": {"name": tenants.tenant(tenant)},
                "spec": {"existing": {"resourceID": ensign.arm_id(&tenants.tenant(tenant))}},
            }));
            tenants.identities().create(&PostParams::default(), &identity).await.expect("create an identity");
        }
        tenants
    }

    fn tenant(&self, number: usize) -> String {
        format!("{}-{number}", self.name)
    }

    fn identities(&self) -> Api<ManagedIdentity> {
        Api::all(self.client.clone())
    }

    fn namespaces(&self) -> Api<Namespace> {
        Api::all(self.client.clone())
    }

    fn bindings(&self, tenant: usize) -> Api<ManagedIdentityBinding> {
        Api::namespaced(self.client.clone(), &self.tenant(tenant))
    }

    fn state(&self) -> &State {
        &self.changes.last().expect("the first state").state
    }

    /// Records the change of a request that was sent at `sent` and is answered now.
    fn changed(&mut self, sent: Timestamp, change: impl FnOnce(&mut State)) {
        let mut state = self.state().clone();
        change(&mut state);
        self.changes.push(Change { sent, known: Timestamp::now(), state });
    }

    /// The next of a fixed sequence of numbers below `limit`.
    fn pick(&mut self, limit: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.random >> 33).expect("31 bits") % limit
    }

    async fn make_namespace(&self, tenant: usize) {
        let name = Some(self.tenant(tenant));
        let namespace = Namespace { metadata: ObjectMeta { name, ..ObjectMeta::default() }, ..Namespace::default() };
        self.namespaces().create(&PostParams::default(), &namespace).await.expect("create a namespace");
    }

    /// Deletes a tenant's namespace with everything in it, and recreates it for another tenant.
    async fn make_anew(&mut self, tenant: usize) {
        let (name, sent) = (self.tenant(tenant), Timestamp::now());
        self.namespaces().delete(&name, &DeleteParams::default()).await.expect("delete a namespace");
        // Other tenants continue to change things meanwhile.
        let identity = self.pick(TENANTS);
        self.grant(identity).await;
        let (gone, namespaces) = (self.tenant(tenant), self.namespaces());
        while namespaces.get_opt(&gone).await.expect("get the namespace").is_some() {
            let identity = self.pick(TENANTS);
            self.grant(identity).await;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        self.make_namespace(tenant).await;
        self.changed(sent, |state| {
            state.labelled.remove(&tenant);
            state.bound.retain(|(of, ..)| *of != tenant);
        });
    }

    /// Binds a service account of one tenant to the identity of another, or to its own.
    async fn bind(&mut self, tenant: usize, identity: usize, account: &'static str) {
        let binding: ManagedIdentityBinding = object(json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityBinding",
            "metadata": {"name": format!("{account}-{identity}")},
            "spec": {
                "identityRef": {"name": self.tenant(identity)}, "serviceAccountName": account,
                // Variables of their own: this is about grants, not about conflicts.
                "injection": {"clientIDEnv": format!("CLIENT_{identity}")},
            },
        }));
        let sent = Timestamp::now();
        match self.bindings(tenant).create(&PostParams::default(), &binding).await {
            Ok(_) => self.changed(sent, |state| {
                state.bound.insert((tenant, identity, account));
            }),
            // It exists, or is still being deleted.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => panic!("bind: {error}"),
        }
    }

    async fn unbind(&mut self, tenant: usize, identity: usize, account: &'static str) {
        let (name, sent) = (format!("{account}-{identity}"), Timestamp::now());
        match self.bindings(tenant).delete(&name, &DeleteParams::default()).await {
            Ok(_) => self.changed(sent, |state| {
                state.bound.remove(&(tenant, identity, account));
            }),
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
                1 => grants.push(Grant::Named(neighbour, ACCOUNTS[self.pick(2)])),
                _ => grants.push(Grant::Labelled(neighbour)),
            }
        }
        self.grant_to(identity, grants).await;
    }

    async fn grant_to(&mut self, identity: usize, grants: Vec<Grant>) {
        let entry = |(number, grant): (usize, &Grant)| match grant {
            Grant::Named(tenant, account) => json!({
                "name": format!("by-name-{number}"), "namespace": self.tenant(*tenant), "serviceAccounts": [account],
            }),
            Grant::Labelled(tenant) => json!({
                "name": format!("by-label-{number}"),
                "namespaceSelector": {"matchLabels": {
                    "kubernetes.io/metadata.name": self.tenant(*tenant), "trusted": self.name,
                }},
                "serviceAccounts": ACCOUNTS,
            }),
        };
        let entries: Vec<Value> = grants.iter().enumerate().map(entry).collect();
        let patch = json!({"spec": {"allowedSubjects": entries}});
        let (api, name, sent) = (self.identities(), self.tenant(identity), Timestamp::now());
        api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("grant");
        self.changed(sent, |state| state.grants[identity] = grants);
    }

    async fn label(&mut self, tenant: usize) {
        let labelled = self.pick(2) == 1;
        let value = if labelled { json!(self.name) } else { Value::Null };
        let patch = json!({"metadata": {"labels": {"trusted": value}}});
        let sent = Timestamp::now();
        let name = self.tenant(tenant);
        self.namespaces().patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("label");
        self.changed(sent, |state| {
            if labelled {
                state.labelled.insert(tenant)
            } else {
                state.labelled.remove(&tenant)
            };
        });
    }

    /// The subjects that a state lets use the identity.
    fn allowed(&self, state: &State, identity: usize) -> BTreeSet<String> {
        let every =
            (0..TENANTS).flat_map(|tenant| [ACCOUNTS[0], ACCOUNTS[1], INTRUDER].map(|account| (tenant, account)));
        every
            .filter(|(tenant, account)| state.allows(*tenant, identity, account))
            .map(|(tenant, account)| Subject::new(self.tenant(tenant), account).to_string())
            .collect()
    }

    /// Waits until exactly the desired subjects are trusted.
    fn wait_settled(&self, identity: usize) {
        let (name, wanted) = (self.tenant(identity), self.allowed(self.state(), identity));
        tokio::task::block_in_place(|| {
            wait_for(&format!("{name} to be trusted for {wanted:?} and nothing else"), || {
                (self.trusted(identity) == wanted).then_some(())
            });
        });
    }

    fn trusted(&self, identity: usize) -> BTreeSet<String> {
        self.ensign.credentials(&self.tenant(identity)).into_iter().map(|(_, subject)| subject).collect()
    }

    /// Judges every PUT under the identity, and returns their number. A reconcile begins with a LIST: a PUT is
    /// authorized if the state at some time between the preceding LIST and its arrival allows it.
    fn judge(&self, identity: usize) -> usize {
        let log = self.ensign.arm_log(&self.tenant(identity));
        let mut listed: Option<&LogEntry> = None;
        let mut puts = 0;
        for entry in &log {
            match entry.method.as_str() {
                "GET" => listed = Some(entry),
                "PUT" => {
                    puts += 1;
                    let body = entry.body.as_ref().expect("a body");
                    let subject = body["properties"]["subject"].as_str().expect("a subject");
                    let since = listed.expect("a LIST before each PUT").time;
                    let stood = self.states_between(since, entry.time);
                    assert!(
                        stood.into_iter().any(|state| self.allowed(state, identity).contains(subject)),
                        "{} was opened to {subject} at {}, which nothing allowed then",
                        self.tenant(identity),
                        entry.time
                    );
                }
                _ => {}
            }
        }
        puts
    }

    fn states_between(&self, from: Timestamp, to: Timestamp) -> Vec<&State> {
        let ends = self.changes.iter().skip(1).map(|next| Some(next.known)).chain([None]);
        let spans = self.changes.iter().zip(ends);
        spans
            .filter(|(change, end)| change.sent <= to && end.is_none_or(|end| end >= from))
            .map(|(change, _)| &change.state)
            .collect()
    }
}

/// The only tenants that are ever granted an identity: its own and the next one.
fn neighbours(identity: usize) -> [usize; 2] {
    [identity, (identity + 1) % TENANTS]
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_tenant_ever_gets_an_identity_that_was_not_granted_to_it() {
    let mut tenants = Tenants::new().await;
    for tenant in 0..TENANTS {
        for identity in 0..TENANTS {
            for account in [ACCOUNTS[0], ACCOUNTS[1], INTRUDER] {
                tenants.bind(tenant, identity, account).await;
            }
        }
    }
    // Some credentials to begin with.
    for identity in 0..TENANTS {
        tenants.grant_to(identity, ACCOUNTS.map(|account| Grant::Named(identity, account)).to_vec()).await;
    }
    for identity in 0..TENANTS {
        tenants.wait_settled(identity);
    }
    for change in 0..CHANGES {
        let (tenant, identity, account) = (tenants.pick(TENANTS), tenants.pick(TENANTS), ACCOUNTS[tenants.pick(2)]);
        if change % 50 == 49 {
            tenants.make_anew(tenant).await;
            continue;
        }
        match tenants.pick(4) {
            0 => tenants.unbind(tenant, identity, account).await,
            1 => tenants.bind(tenant, identity, account).await,
            2 => tenants.label(tenant).await,
            _ => tenants.grant(identity).await,
        }
    }
    let mut puts = 0;
    for identity in 0..TENANTS {
        tenants.wait_settled(identity);
        puts += tenants.judge(identity);
    }
    assert!(puts >= TENANTS * ACCOUNTS.len(), "the first grants led to credentials: {puts}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_subject_is_written_again_only_after_a_new_grant() {
    let mut tenants = Tenants::new().await;
    let identity = tenants.tenant(0);
    let own = || vec![Grant::Named(0, "app")];
    tenants.grant_to(0, own()).await;
    tenants.bind(0, 0, "app").await;
    for _ in 0..5 {
        tenants.wait_settled(0);
        tenants.grant_to(0, Vec::new()).await;
        tenants.wait_settled(0);
        let puts = |tenants: &Tenants| {
            tenants.ensign.arm_writes(&identity).iter().filter(|write| write.method == "PUT").count()
        };
        let before = puts(&tenants);
        // Churn that makes the controller check the identity repeatedly.
        tenants.bind(0, 0, "worker").await;
        let seen = tenants.ensign.arm_lists(&identity);
        tenants.unbind(0, 0, "worker").await;
        tokio::task::block_in_place(|| {
            wait_for("the controller to check again", || (tenants.ensign.arm_lists(&identity) > seen).then_some(()));
        });
        assert_eq!(puts(&tenants), before, "nothing is written without a grant");
        tenants.grant_to(0, own()).await;
    }
    tenants.wait_settled(0);
    assert!(tenants.judge(0) >= 6);
}
