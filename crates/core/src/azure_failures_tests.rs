use super::*;

fn failure(operation: Operation, status: u16, code: &str, message: &str) -> Failure {
    let identity: ArmId = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders".parse().unwrap();
    let cause = ArmErrorCause::Refused { status, code: code.into(), message: message.into(), retry_after: None };
    judge(operation, &identity, &cause, Some("c0ffee"))
}

#[test]
fn every_known_refusal_has_its_reason() {
    let concurrent = "ConcurrentFederatedIdentityCredentialsWritesForSingleManagedIdentity";
    let cases = [
        (403, "AuthorizationFailed", "The client 'x' …", Reason::Forbidden),
        (403, "RequestDisallowedByPolicy", "…", Reason::PolicyDenied),
        (409, "ScopeLocked", "…", Reason::ResourceLocked),
        (409, concurrent, "…", Reason::ConcurrentWrites),
        (
            409,
            "Conflict",
            "Issuer and subject combination already exists for this Managed Identity.",
            Reason::ConcurrentWrites,
        ),
        (
            400,
            "BadRequest",
            "Issuer and subject combination already exists for this Managed Identity.",
            Reason::ConcurrentWrites,
        ),
        (404, "ResourceNotFound", "…", Reason::IdentityNotFound),
        (404, "ParentResourceNotFound", "…", Reason::IdentityNotFound),
        (404, "ResourceGroupNotFound", "…", Reason::IdentityNotFound),
        (404, "", "<html>not found</html>", Reason::AzureUnavailable),
        (404, "SubscriptionNotFound", "…", Reason::SubscriptionNotFound),
        (404, "InvalidSubscriptionId", "…", Reason::SubscriptionNotFound),
        (403, "", "<html>proxy</html>", Reason::AzureUnavailable),
        (401, "AuthenticationFailed", "…", Reason::CredentialUnavailable),
        (
            405,
            "MethodNotAllowed",
            "The request format was unexpected: Support for federated identity credentials not enabled.",
            Reason::RegionNotSupported,
        ),
        (
            400,
            "BadRequest",
            "Too many Federated Identity Credentials: a managed identity can have at most 20 Federated Identity Credentials.",
            Reason::QuotaExceeded,
        ),
        (409, "Conflict", "The maximum number of federated identity credentials is reached.", Reason::QuotaExceeded),
        (
            409,
            "Conflict",
            "Too many Federated Identity Credentials are written concurrently for the managed identity 'x'.",
            Reason::AzureRefused,
        ),
        (
            400,
            "BadRequest",
            "The subject of a Federated Identity Credential must not exceed the limit of 600 characters.",
            Reason::AzureRefused,
        ),
        (400, "BadRequest", "Federated identity credentials must have exactly one audience.", Reason::AzureRefused),
        (409, "ReadOnlyDisabledSubscription", "…", Reason::ResourceLocked),
        (429, "SubscriptionRequestsThrottled", "…", Reason::Throttled),
        (400, "BadRequest", "MS Graph resource not found", Reason::AzureUnavailable),
        (404, "NotFound", "MS Graph resource not found", Reason::AzureUnavailable),
        (401, "", "<html>sign in</html>", Reason::CredentialUnavailable),
        (408, "RequestTimeout", "…", Reason::AzureUnavailable),
        (404, "NotFound", "The parent user-assigned identity doesn't exist.", Reason::IdentityNotFound),
        (500, "InternalServerError", "…", Reason::AzureUnavailable),
        (503, "", "", Reason::AzureUnavailable),
    ];
    for (status, code, message, reason) in cases {
        assert_eq!(failure(Operation::PutCredential, status, code, message).reason, reason, "{status} {code}");
    }
}

#[test]
fn refusals_to_make_an_identity_have_reasons_of_their_own() {
    let cases = [
        (404, "ResourceGroupNotFound", "Resource group 'rg' could not be found.", Reason::ResourceGroupNotFound),
        (
            409,
            "InvalidResourceLocation",
            "The resource 'orders' already exists in location …",
            Reason::LocationMismatch,
        ),
        (400, "QuotaExceeded", "…", Reason::QuotaExceeded),
        (
            403,
            "Directory_QuotaExceeded",
            "The directory object quota limit … has been exceeded.",
            Reason::QuotaExceeded,
        ),
        (409, "Conflict", "The maximum number of user assigned identities is reached.", Reason::QuotaExceeded),
        (403, "RequestDisallowedByPolicy", "…", Reason::PolicyDenied),
        (403, "AuthorizationFailed", "The client 'x' …", Reason::Forbidden),
        (409, "ScopeLocked", "…", Reason::ResourceLocked),
        (404, "SubscriptionNotFound", "…", Reason::SubscriptionNotFound),
        (429, "SubscriptionRequestsThrottled", "…", Reason::Throttled),
        (500, "InternalServerError", "…", Reason::AzureUnavailable),
    ];
    for (status, code, message, reason) in cases {
        assert_eq!(failure(Operation::PutIdentity, status, code, message).reason, reason, "{status} {code}");
    }
    let gone = failure(Operation::PutIdentity, 404, "ResourceGroupNotFound", "…");
    assert!(!gone.is_gone() && gone.message.contains("az group create"), "{gone:?}");
}

#[test]
fn a_role_to_make_an_identity_is_asked_for_at_its_resource_group() {
    let message = failure(Operation::PutIdentity, 403, "AuthorizationFailed", "no").message;
    assert!(
        message.contains("--scope /subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg`"),
        "{message}"
    );
}

#[test]
fn a_missing_role_is_reported_with_the_command_that_grants_it() {
    let message = failure(Operation::PutCredential, 403, "AuthorizationFailed", "no").message;
    assert!(message.contains("federatedIdentityCredentials/write"), "{message}");
    assert!(message.contains("az role assignment create --assignee c0ffee"), "{message}");
}

#[test]
fn only_a_missing_identity_counts_as_gone() {
    let gone = |status, code| failure(Operation::DeleteCredential, status, code, "…").is_gone();
    assert!(gone(404, "ResourceNotFound"));
    for (status, code) in [
        (401, "AuthenticationFailed"),
        (403, "AuthorizationFailed"),
        (404, "SubscriptionNotFound"),
        (404, ""),
        (405, "MethodNotAllowed"),
        (409, "ScopeLocked"),
    ] {
        assert!(!gone(status, code), "{status} {code}");
    }
}

#[test]
fn an_action_that_is_missing_is_named_for_each_operation() {
    for operation in Operation::ALL {
        let message = failure(operation, 403, "AuthorizationFailed", "no").message;
        assert!(message.contains(&format!("lacks {}:", operation.action())), "{message}");
    }
}

#[test]
fn an_identity_outside_the_scopes_is_reported_as_such() {
    let identity = failure(Operation::ReadIdentity, 500, "", "").message;
    let identity = identity.split(' ').find(|word| word.starts_with("/subscriptions")).unwrap();
    let identity: ArmId = identity.trim_end_matches(':').parse().unwrap();
    let failure = judge(Operation::PutCredential, &identity, &ArmErrorCause::OutOfScope, None);
    assert_eq!(failure.reason, Reason::ScopeNotAllowed);
}

#[test]
fn entras_times_and_ids_do_not_reach_a_status() {
    let message = "WorkloadIdentityCredential authentication failed. AADSTS700024: Client assertion is not within its valid time range. Current time: 2026-01-18T00:16:16.0000000Z, assertion valid from x. Trace ID: y";
    let shown = stable(message);
    assert!(shown.ends_with("valid time range."), "{shown}");
    assert_eq!(stable("AADSTS70025: no. Trace ID: z"), "AADSTS70025: no.");
    assert_eq!(stable("connection refused"), "connection refused");
}

#[test]
fn a_throttled_answer_gives_the_same_text_each_time() {
    let one = failure(Operation::ListCredentials, 429, "X", "Please try again after '10' seconds.");
    let other = failure(Operation::ListCredentials, 429, "X", "Please try again after '7' seconds.");
    assert_eq!(one.message, other.message);
}
