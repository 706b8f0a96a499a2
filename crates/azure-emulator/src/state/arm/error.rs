//! ARM's errors, in its own words.

use serde_json::{Map, Value, json};

use crate::state::model::IdentityId;

/// An error, as in ARM's error envelope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status} {code}: {message}")]
pub struct ArmError {
    /// HTTP status.
    pub status: u16,
    /// ARM's error code.
    pub code: String,
    /// The message.
    pub message: String,
    /// Seconds for `Retry-After`.
    pub retry_after: Option<u32>,
    /// Whether ARM's front end rejects the request itself, before it asks a resource provider.
    pub front: bool,
    /// Further members of the envelope, for example `target`, `details` and `additionalInfo`.
    pub more: Option<Box<Map<String, Value>>>,
}

impl ArmError {
    /// An error of a resource provider.
    pub fn new(status: u16, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status, code: code.into(), message: message.into(), retry_after: None, front: false, more: None }
    }

    /// An error of ARM's front end.
    pub fn front(status: u16, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { front: true, ..Self::new(status, code, message) }
    }

    /// The error with a further member of the envelope.
    #[must_use]
    pub fn with(mut self, member: &str, value: Value) -> Self {
        self.more.get_or_insert_default().insert(member.to_owned(), value);
        self
    }

    /// The error as one of the `details` of another.
    pub fn as_detail(&self) -> Value {
        self.envelope()["error"].take()
    }

    /// The envelope of every ARM error.
    pub fn envelope(&self) -> Value {
        let mut error = self.more.as_deref().cloned().unwrap_or_default();
        error.insert("code".to_owned(), json!(self.code));
        error.insert("message".to_owned(), json!(self.message));
        json!({"error": error})
    }

    /// A 400 of the resource provider.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(super) fn content(problem: &serde_json::Error) -> Self {
        let message = format!("The request content was invalid and could not be deserialized: '{problem}'.");
        Self::new(400, "InvalidRequestContent", message)
    }

    pub(super) fn identity_not_found(id: &IdentityId) -> Self {
        Self::resource_not_found(&format!("userAssignedIdentities/{}", id.name), &id.resource_group)
    }

    pub(super) fn credential_not_found(id: &IdentityId, name: &str) -> Self {
        let resource = format!("userAssignedIdentities/{}/federatedIdentityCredentials/{name}", id.name);
        Self::resource_not_found(&resource, &id.resource_group)
    }

    pub(super) fn resource_not_found(resource: &str, group: &str) -> Self {
        let message = format!(
            "The Resource 'Microsoft.ManagedIdentity/{resource}' under resource group '{group}' was not found. For more details please go to https://aka.ms/ARMResourceNotFoundFix"
        );
        Self::front(404, "ResourceNotFound", message)
    }

    pub(super) fn parent_not_found() -> Self {
        Self::new(404, "NotFound", "The parent user-assigned identity doesn't exist.")
    }

    /// Two concurrent writes of credentials of one identity.
    pub fn concurrent_credential_writes(id: &IdentityId) -> Self {
        let IdentityId { subscription, resource_group, name } = id;
        let message = format!(
            "Too many Federated Identity Credentials are written concurrently for the managed identity '/subscriptions/{subscription}/resourcegroups/{resource_group}/providers/microsoft.managedidentity/userassignedidentities/{name}'. Concurrent Federated Identity Credentials writes under the same managed identity are not supported."
        );
        Self::new(409, "ConcurrentFederatedIdentityCredentialsWritesForSingleManagedIdentity", message)
    }

    /// A resource's rate limit is exceeded (microsoft/onefuzz issue 249).
    pub(super) fn resource_throttled(id: &IdentityId, seconds: u32) -> Self {
        let message = format!(
            "Request is temporarily throttled because resource {} has issued too many requests. Retry after {seconds} seconds.",
            id.in_answers()
        );
        Self { retry_after: Some(seconds), ..Self::new(429, "TooManyRequests", message) }
    }

    /// The tenant's rate limit is exceeded. Azure's text is not known.
    pub(super) fn tenant_throttled(seconds: u32) -> Self {
        let message = format!("Too many requests. Please try again after '{seconds}' seconds.");
        Self { retry_after: Some(seconds), ..Self::new(429, "TenantRequestsThrottled", message) }
    }

    /// The principal's rate limit is exceeded. `kind` is `read`, `write` or `delete`.
    pub fn throttled(kind: &str, subscription: &str, object_id: &str, seconds: u32) -> Self {
        let message = format!(
            "Number of '{kind}' requests for subscription '{subscription}' actor '{object_id}' exceeded. Please try again after '{seconds}' seconds."
        );
        Self { retry_after: Some(seconds), ..Self::front(429, "SubscriptionRequestsThrottled", message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_can_have_more_members() {
        let inner = ArmError::new(403, "Inner", "i").with("target", json!("t"));
        let outer = ArmError::new(400, "Outer", "o").with("details", json!([inner.as_detail()]));
        let details = json!([{"code": "Inner", "message": "i", "target": "t"}]);
        assert_eq!(outer.envelope(), json!({"error": {"code": "Outer", "message": "o", "details": details}}));
    }

    #[test]
    fn throttling_has_a_retry_after() {
        let error = ArmError::throttled("read", "S", "OID", 10);
        assert_eq!((error.status, error.retry_after), (429, Some(10)));
        assert_eq!(
            error.envelope()["error"]["message"],
            "Number of 'read' requests for subscription 'S' actor 'OID' exceeded. Please try again after '10' seconds."
        );
    }
}
