//! A namespace for admission policies without a controller: the test itself writes the status of bindings.

use ensign_api::ManagedIdentityBinding;
use ensign_core::admission::Config;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::Status;
use serde_json::{Value, json};

use ensign_testkit::azure::AUDIENCE;

/// The Entra authority that injected pods get.
pub const AUTHORITY: &str = "https://login.example/";

/// The settings of the policies, with these namespaces excluded besides kube-system.
pub fn config(excluded: &[&str]) -> Config {
    let excluded = excluded.iter().chain(&["kube-system"]).map(|name| (*name).to_owned()).collect();
    Config {
        authority_host: AUTHORITY.to_owned(),
        audience: AUDIENCE.to_owned(),
        excluded,
        compatibility: None,
        gate_pods: true,
    }
}

/// A namespace with bindings and pods.
#[derive(Clone)]
pub struct PolicyNamespace {
    pub client: Client,
    pub name: String,
}

impl PolicyNamespace {
    /// Creates the namespace and its service accounts.
    pub async fn create(client: &Client, name: &str, accounts: &[&str]) -> Self {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).expect("a namespace");
        namespaces.create(&PostParams::default(), &namespace).await.expect("create the namespace");
        let namespace = Self { client: client.clone(), name: name.to_owned() };
        let api: Api<ServiceAccount> = Api::namespaced(client.clone(), name);
        for account in accounts {
            let account = serde_json::from_value(json!({"metadata": {"name": account}})).expect("a service account");
            // The default one may exist already.
            let made = api.create(&PostParams::default(), &account).await;
            assert!(made.is_ok() || api.get_opt(account.metadata.name.as_deref().unwrap()).await.unwrap().is_some());
        }
        namespace
    }

    fn bindings(&self) -> Api<ManagedIdentityBinding> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Creates a binding with its status; one with a deletion timestamp is deleted afterwards.
    pub async fn bind(&self, object: &Value) {
        let api = self.bindings();
        let mut fresh = object.clone();
        fresh["metadata"]["namespace"] = json!(self.name);
        let deleted = fresh["metadata"].as_object_mut().expect("metadata").remove("deletionTimestamp").is_some();
        if deleted {
            fresh["metadata"]["finalizers"] = json!(["test.example/deleted-later"]);
        }
        let binding: ManagedIdentityBinding = serde_json::from_value(fresh.clone()).expect("a binding");
        api.create(&PostParams::default(), &binding).await.expect("create the binding");
        let name = fresh["metadata"]["name"].as_str().expect("a name");
        if !fresh["status"].is_null() {
            let status = Patch::Merge(json!({"status": fresh["status"]}));
            api.patch_status(name, &PatchParams::default(), &status).await.expect("write the status");
        }
        if deleted {
            api.delete(name, &DeleteParams::default()).await.expect("delete the binding");
        }
    }

    /// Changes the status of a binding.
    pub async fn change_status(&self, name: &str, change: &Value) {
        let patch = Patch::Merge(change);
        self.bindings().patch_status(name, &PatchParams::default(), &patch).await.expect("write the status");
    }

    /// Deletes a binding.
    pub async fn unbind(&self, name: &str) {
        self.bindings().delete(name, &DeleteParams::default()).await.expect("delete the binding");
    }

    /// Deletes every binding.
    pub async fn clear(&self) {
        let api = self.bindings();
        for binding in api.list(&ListParams::default()).await.expect("list the bindings") {
            let name = binding.metadata.name.as_deref().expect("a name");
            let released = Patch::Merge(json!({"metadata": {"finalizers": null}}));
            api.patch(name, &PatchParams::default(), &released).await.expect("release the binding");
            // One that was being deleted does not exist any more.
            let gone = api.delete(name, &DeleteParams::default()).await;
            assert!(gone.is_ok() || api.get_opt(name).await.expect("get the binding").is_none());
        }
    }

    /// The pod as it would be stored, or the error.
    pub async fn dry_run(&self, pod: &Value) -> Result<Value, Status> {
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let resource = ApiResource::erase::<Pod>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.name, &resource);
        let pod = serde_json::from_value(pod.clone()).expect("a pod");
        match api.create(&params, &pod).await {
            Ok(stored) => Ok(serde_json::to_value(stored).expect("JSON")),
            Err(kube::Error::Api(status)) => Err(*status),
            Err(error) => panic!("creating a pod: {error}"),
        }
    }
}

/// Polls until there is a result.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let start = std::time::Instant::now();
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(start.elapsed().as_secs() < 60, "not within 60 s: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

pub fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

/// A binding of service account `orders` that serves, changed by a merge patch.
pub fn binding(name: &str, change: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityBinding",
        "metadata": {"name": name},
        "spec": {"identityRef": {"name": format!("id-{name}")}, "serviceAccountName": "orders"},
        "status": {
            "clientID": format!("client-of-{name}"), "tenantID": "tenant",
            "conditions": [
                condition("Accepted", "True", "Accepted", ""), condition("CredentialReady", "True", "Confirmed", ""),
            ],
        },
    });
    json_patch::merge(&mut object, change);
    object
}

/// A pod of service account `orders`, changed by a merge patch.
pub fn pod(change: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "pod"},
        "spec": {
            "serviceAccountName": "orders", "automountServiceAccountToken": false,
            "containers": [{"name": "app", "image": "app:1"}],
        },
    });
    json_patch::merge(&mut pod, change);
    pod
}
