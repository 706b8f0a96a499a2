//! Namespaces and bindings with the status that the controller would write: accepted, resolved, ready.

use std::time::Duration;

use ensign_api::ManagedIdentityBinding;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Error};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::Failure;

const NAMESPACE_SIZE: usize = 100;
const CONCURRENT: usize = 64;
const DEADLINE: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub struct Args {
    /// Number of bindings that exist already
    #[arg(long, default_value_t = 0)]
    from: usize,
    /// Number of bindings that should exist
    #[arg(long)]
    to: usize,
}

/// The namespace and the service account of a binding.
pub struct SeededBinding {
    pub namespace: String,
    pub account: String,
}

impl SeededBinding {
    /// The binding with this number.
    pub fn of(number: usize) -> Self {
        Self {
            namespace: format!("bench-{:04}", number / NAMESPACE_SIZE),
            account: format!("app-{:02}", number % NAMESPACE_SIZE),
        }
    }
}

pub async fn run(Args { from, to }: Args) -> Result<Value, Failure> {
    let client = Client::try_default().await?;
    let namespaces = from.div_ceil(NAMESPACE_SIZE)..to.div_ceil(NAMESPACE_SIZE);
    let made = stream::iter(namespaces).map(|number| namespace(&client, number * NAMESPACE_SIZE));
    made.buffer_unordered(CONCURRENT).try_collect::<()>().await?;
    let made = stream::iter(from..to).map(|number| binding(&client, number));
    made.buffer_unordered(CONCURRENT).try_collect::<()>().await?;
    Ok(json!({"bindings": to}))
}

async fn namespace(client: &Client, first: usize) -> Result<(), Failure> {
    let name = SeededBinding::of(first).namespace;
    let object: Namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
    let api: Api<Namespace> = Api::all(client.clone());
    timeout(DEADLINE, api.create(&PostParams::default(), &object)).await?.map(drop).or_else(unless_there)
}

async fn binding(client: &Client, number: usize) -> Result<(), Failure> {
    let SeededBinding { namespace, account } = SeededBinding::of(number);
    let object: ManagedIdentityBinding = serde_json::from_value(json!({
        "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityBinding", "metadata": {"name": account},
        "spec": {"identityRef": {"name": account}, "serviceAccountName": account},
    }))?;
    let api: Api<ManagedIdentityBinding> = Api::namespaced(client.clone(), &namespace);
    timeout(DEADLINE, api.create(&PostParams::default(), &object)).await?.map(drop).or_else(unless_there)?;
    let status = Patch::Merge(status(&namespace, &account, number));
    timeout(DEADLINE, api.patch_status(&account, &PatchParams::default(), &status)).await??;
    Ok(())
}

fn unless_there(error: Error) -> Result<(), Failure> {
    match error {
        Error::Api(status) if status.is_already_exists() => Ok(()),
        other => Err(other.into()),
    }
}

fn status(namespace: &str, account: &str, number: usize) -> Value {
    let since = "2026-01-01T00:00:00Z";
    let condition = |kind: &str, reason: &str| {
        json!({"type": kind, "status": "True", "reason": reason, "message": "as it should be", "observedGeneration": 1,
            "lastTransitionTime": since})
    };
    json!({"status": {
        "subject": format!("system:serviceaccount:{namespace}:{account}"),
        "clientID": format!("11111111-2222-4333-8444-{number:012}"),
        "tenantID": "99999999-8888-4777-8666-555555555555",
        "observedGeneration": 1,
        "conditions": [
            condition("Accepted", "Accepted"), condition("IdentityResolved", "Resolved"),
            condition("CredentialReady", "Ready"), condition("Ready", "Ready"),
        ],
    }})
}
