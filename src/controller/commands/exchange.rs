//! Requests a token of a binding's service account, as the caller of `ensign check --exchange`, and exchanges it at Entra.

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ListParams, PostParams};

use crate::kube_request::{KubeError, within_deadline};
use ensign_api::conditions::{ConditionType, find};
use ensign_api::{ArmId, ManagedIdentity, ManagedIdentityBinding, NamespacedName};
use ensign_azure::exchange::{ServiceAccountToken, exchange};
use ensign_azure::{ArmClient, Cloud, Connection};
use ensign_core::acceptance::identities;
use ensign_core::commands::check::Check;
use ensign_core::commands::exchange::{Attempt, judge};
use ensign_core::credentials::names::Subject;
use ensign_core::credentials::ownership::Credential;
use ensign_runtime::error_chain;

const CHECK: &str = "exchange";
/// The shortest lifetime that Kubernetes allows.
const TOKEN_SECONDS: i64 = 600;

/// The bindings to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// Their namespace.
    pub namespace: String,
    /// The name of the only one; all of them if there is none.
    pub name: Option<String>,
}

/// How to reach Azure.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    /// The cloud.
    pub cloud: &'a Cloud,
    /// How to connect to it.
    pub connection: &'a Connection,
    /// Lists credentials in Azure; without it, what Azure has is not known.
    pub arm: Option<&'a ArmClient>,
    /// The issuer of the cluster's tokens.
    pub issuer: Option<&'a str>,
}

/// Tries each of the bindings.
pub async fn check_exchanges(client: &Client, selected: &Selected, way: Way<'_>, now: Timestamp) -> Vec<Check> {
    let bindings = match bindings(client, selected).await {
        Ok(bindings) => bindings,
        Err(error) => {
            let cure = "correct the name, or run this with permission to read bindings";
            return vec![Check::fail(CHECK, error_chain::line(&error), cure)];
        }
    };
    if bindings.is_empty() {
        let said = format!("namespace {} has no binding", selected.namespace);
        return vec![Check::warn(CHECK, said, "name another namespace")];
    }
    let mut checks = Vec::with_capacity(bindings.len());
    for binding in &bindings {
        checks.push(check_one(client, binding, way, now).await);
    }
    checks
}

async fn bindings(client: &Client, selected: &Selected) -> Result<Vec<ManagedIdentityBinding>, KubeError> {
    let Selected { namespace, name } = selected;
    let api: Api<ManagedIdentityBinding> = Api::namespaced(client.clone(), namespace);
    if let Some(name) = name {
        let act = || format!("reading ManagedIdentityBinding {namespace}/{name}");
        return Ok(vec![within_deadline(act, api.get(name)).await?]);
    }
    let act = || format!("listing ManagedIdentityBindings in {namespace}");
    Ok(within_deadline(act, api.list(&ListParams::default())).await?.items)
}

async fn check_one(client: &Client, binding: &ManagedIdentityBinding, way: Way<'_>, now: Timestamp) -> Check {
    let name = NamespacedName::from(&binding.metadata);
    let status = binding.status.clone().unwrap_or_default();
    let (Some(client_id), Some(tenant_id), Some(issuer)) = (&status.client_id, &status.tenant_id, way.issuer) else {
        let ready =
            find(&status.conditions, ConditionType::Ready).map_or("it has no status yet", |ready| &ready.message);
        let said = format!("{name}: there is nothing to exchange a token for: {ready}");
        return Check::fail(CHECK, said, "follow the message of its conditions");
    };
    let account = &binding.spec.service_account_name;
    let token = match request_token(client, &name.namespace, account, &way.cloud.token_audience).await {
        Ok(token) => token,
        Err(error) => {
            let said = format!("{name}: no token of service account {account}: {}", error_chain::line(&error));
            let cure = "run this with a kubeconfig that may create serviceaccounts/token there, and check that the service account exists";
            return Check::fail(CHECK, said, cure);
        }
    };
    let answer = exchange(way.connection, way.cloud, tenant_id, client_id, &token).await;
    drop(token);
    let identity = identity(client, status.managed_identity_name.as_deref()).await;
    let in_arm = match (&identity, way.arm) {
        (Some(id), Some(arm)) if answer.is_no_trust() => {
            Some(arm.list_credentials(id).await.map_err(|error| error.failure(None).message))
        }
        _ => None,
    };
    let recorded = status.credential.as_ref();
    let wanted = Credential {
        name: recorded.map(|credential| credential.name.clone()).unwrap_or_default(),
        issuer: issuer.to_owned(),
        subject: Subject::new(&name.namespace, account).to_string(),
        audiences: vec![way.cloud.token_audience.clone()],
    };
    let attempt = Attempt {
        binding: &name,
        client_id,
        wanted: &wanted,
        recorded: recorded.map(|credential| (credential.origin, credential.confirmed_since.0)),
        identity: identity.as_ref(),
    };
    judge(&attempt, &answer, in_arm.as_ref(), now)
}

/// A token such as the kubelet gives to a pod of the service account, but short-lived.
async fn request_token(
    client: &Client,
    namespace: &str,
    account: &str,
    audience: &str,
) -> Result<ServiceAccountToken, KubeError> {
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let spec = TokenRequestSpec {
        audiences: vec![audience.to_owned()],
        expiration_seconds: Some(TOKEN_SECONDS),
        ..TokenRequestSpec::default()
    };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let act = || format!("requesting a token of ServiceAccount {namespace}/{account}");
    let answer = within_deadline(act, api.create_token_request(account, &PostParams::default(), &request)).await?;
    Ok(answer.status.map(|status| status.token).unwrap_or_default().into())
}

/// The identity in Azure; `None` if it can't be told.
async fn identity(client: &Client, name: Option<&str>) -> Option<ArmId> {
    let name = name?;
    let api: Api<ManagedIdentity> = Api::all(client.clone());
    let object = within_deadline(|| format!("reading ManagedIdentity {name}"), api.get(name)).await.ok()?;
    identities::arm_id(&object).ok()
}
