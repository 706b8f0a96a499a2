//! Creates, tags and deletes identities.

use azure_core::http::{Method, Request, StatusCode};
use serde_json::json;

use super::client::{ArmClient, IdentityBody, is_confirmed_deletion};
use super::error::{ArmError, Operation};
use ensign_api::{ArmId, IsolationScope};
use ensign_core::api_versions::WITH_ISOLATION_SCOPE;
use ensign_core::assess::AzureIdentity;
use ensign_core::provisioning::Desired;
use ensign_core::scheduling::rate_limiter::Provider;

/// An identity as Azure stored it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenIdentity {
    /// The identity.
    pub identity: AzureIdentity,
    /// Whether it did not exist before (201).
    pub created: bool,
}

impl ArmClient {
    /// Creates the identity, or updates what can be updated of an existing one; returns what Azure stored. Tags that are
    /// not given are removed.
    pub async fn put_identity(&self, id: &ArmId, desired: &Desired) -> Result<WrittenIdentity, ArmError> {
        let Desired { location, tags, isolation_scope } = desired;
        let is_isolated = *isolation_scope != IsolationScope::None;
        let mut call = self.call(Operation::PutIdentity, id);
        call.at_least = is_isolated.then_some(WITH_ISOLATION_SCOPE);
        let has_isolation = self.version(Provider::ManagedIdentity).as_str() >= WITH_ISOLATION_SCOPE;
        if is_isolated && !has_isolation {
            return Err(call.refuse(400, "IsolationScopeNotSupported", "isolationScope needs a newer API version"));
        }
        let mut request = Request::new(self.url(id, &[]), Method::Put);
        let properties = if has_isolation { json!({"isolationScope": isolation_scope.as_str()}) } else { json!({}) };
        let body = json!({"location": location, "tags": tags, "properties": properties});
        request.insert_header("content-type", "application/json");
        request.set_body(body.to_string());
        let response = self.send(call, request).await?;
        let created = response.status() == StatusCode::Created;
        let identity = call.decode::<IdentityBody>(&response)?.into_identity();
        Ok(WrittenIdentity { identity, created })
    }

    /// Deletes the identity with everything below it. Succeeds if it does not exist, but not if something between here and
    /// ARM responded with a page of its own.
    pub async fn delete_identity(&self, id: &ArmId) -> Result<(), ArmError> {
        let call = self.call(Operation::DeleteIdentity, id);
        let response = self.send(call, Request::new(self.url(id, &[]), Method::Delete)).await?;
        is_confirmed_deletion(call, &response)
    }
}
