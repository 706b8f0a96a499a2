use super::*;

fn failure(operation: Operation, status: u16, code: &str, message: &str) -> Failure {
    let identity: ArmId = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders".parse().unwrap();
    let cause = ArmErrorCause::Refused {
        status,
        code: code.into(),
        message: message.into(),
        details: Vec::new(),
        retry_after: None,
    };
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
        (409, "ReadOnlyDisabledSubscription", "…", Reason::SubscriptionDisabled),
        (403, "ReadOnlyDisabledSubscription", "…", Reason::SubscriptionDisabled),
        (
            409,
            "Conflict",
            "The subscription 's' is disabled and therefore marked as read only. You cannot perform any write actions on this subscription until it is re-enabled.",
            Reason::SubscriptionDisabled,
        ),
        (403, "DisallowedOperation", "The current subscription type is not permitted …", Reason::SubscriptionDisabled),
        (403, "DenyAssignmentAuthorizationFailed", "…", Reason::DeniedByAssignment),
        (
            403,
            "AuthorizationFailed",
            "… however, the access is denied because of the deny assignment with name 'x'",
            Reason::DeniedByAssignment,
        ),
        (403, "LinkedAuthorizationFailed", "…", Reason::Forbidden),
        (409, "MissingSubscriptionRegistration", "…", Reason::ProviderNotRegistered),
        (409, "SubscriptionNotRegistered", "…", Reason::ProviderNotRegistered),
        (400, "NoRegisteredProviderFound", "…", Reason::APIVersionNotSupported),
        (404, "InvalidResourceType", "…", Reason::APIVersionNotSupported),
        (401, "InvalidAuthenticationTokenTenant", "…", Reason::TenantMismatch),
        (401, "InvalidAuthenticationTokenAudience", "…", Reason::CredentialUnavailable),
        (401, "ExpiredAuthenticationToken", "…", Reason::CredentialUnavailable),
        (409, "ResourceGroupBeingDeleted", "…", Reason::AzureUnavailable),
        (409, "AnotherOperationInProgress", "…", Reason::ConcurrentWrites),
        (403, "Directory_QuotaExceeded", "…", Reason::QuotaExceeded),
        (503, "ServerBusy", "…", Reason::AzureUnavailable),
        (503, "ServerTimeout", "…", Reason::AzureUnavailable),
        (429, "TooManyRequests", "The quota of requests is used up", Reason::Throttled),
        (429, "SubscriptionRequestsThrottled", "…", Reason::Throttled),
        (400, "BadRequest", "MS Graph resource not found", Reason::AzureUnavailable),
        (404, "NotFound", "MS Graph resource not found", Reason::AzureUnavailable),
        (
            404,
            "ResourceNotFound",
            "MS Graph resource not found during Federated Identity Credential creation.",
            Reason::AzureUnavailable,
        ),
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
        (409, "ResourceGroupBeingDeleted", "…", Reason::ResourceGroupNotFound),
        (400, "LocationNotAvailableForResourceType", "…", Reason::RegionNotSupported),
        (403, "RequestDisallowedByAzure", "…", Reason::RegionNotSupported),
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
    let failure = judge(Operation::PutCredential, &identity, &ArmErrorCause::OutOfScope(identity.to_string()), None);
    assert_eq!(failure.reason, Reason::ScopeNotAllowed);
}

#[test]
fn entras_times_and_ids_do_not_reach_a_status() {
    let message = "WorkloadIdentityCredential authentication failed. AADSTS700024: Client assertion is not within its valid time range. Current time: 2026-01-18T00:16:16.0000000Z, assertion valid from x. Trace ID: y";
    let shown = without_variable_parts(message);
    assert!(shown.ends_with("valid time range."), "{shown}");
    assert_eq!(without_variable_parts("AADSTS70025: no. Trace ID: z"), "AADSTS70025: no.");
    assert_eq!(without_variable_parts("connection refused"), "connection refused");
}

#[test]
fn a_throttled_answer_gives_the_same_text_each_time() {
    let one = failure(Operation::ListCredentials, 429, "X", "Please try again after '10' seconds.");
    let other = failure(Operation::ListCredentials, 429, "X", "Please try again after '7' seconds.");
    assert_eq!(one.message, other.message);
}

/// The failure of a response with errors within it, the outer ones first.
fn wrapped(operation: Operation, status: u16, code: &str, details: &[(&str, &str)]) -> Failure {
    let detail = |(code, message): &(&str, &str)| ErrorDetail { code: (*code).into(), message: (*message).into() };
    let cause = ArmErrorCause::Refused {
        status,
        code: code.into(),
        message: "see details".into(),
        details: details.iter().map(detail).collect(),
        retry_after: None,
    };
    judge(operation, &identity(), &cause, Some("c0ffee"))
}

fn identity() -> ArmId {
    "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders".parse().unwrap()
}

#[test]
fn a_wrapped_error_is_judged_by_what_is_within_it() {
    let policy = [("RequestDisallowedByPolicy", "Resource 'orders' was disallowed by policy 'Tags'.")];
    for (status, code) in
        [(400, "ResourceValidationFailed"), (400, "InvalidTemplateDeployment"), (409, "Conflict"), (403, "Forbidden")]
    {
        let failure = wrapped(Operation::PutIdentity, status, code, &policy);
        assert_eq!(failure.reason, Reason::PolicyDenied, "{code}");
        assert!(
            failure.message.contains("exempt the identity (RequestDisallowedByPolicy: Resource 'orders'"),
            "{}",
            failure.message
        );
    }
    let cases: [(&[(&str, &str)], Reason); 6] = [
        (&[("BadRequest", "…"), ("Directory_QuotaExceeded", "…")], Reason::QuotaExceeded),
        (&[("NotFound", "MS Graph resource not found")], Reason::AzureUnavailable),
        (&[("AuthorizationFailed", "…")], Reason::Forbidden),
        (&[("ScopeLocked", "…")], Reason::ResourceLocked),
        (&[("SomethingElse", "…")], Reason::AzureRefused),
        (&[], Reason::AzureRefused),
    ];
    for (details, reason) in cases {
        assert_eq!(wrapped(Operation::PutIdentity, 400, "BadRequest", details).reason, reason, "{details:?}");
    }
    assert_eq!(wrapped(Operation::PutIdentity, 500, "InternalServerError", &policy).reason, Reason::AzureUnavailable);
}

#[test]
fn what_the_response_itself_says_comes_before_what_is_within_it() {
    let details = [("RequestDisallowedByPolicy", "…")];
    assert_eq!(wrapped(Operation::PutCredential, 409, "ScopeLocked", &details).reason, Reason::ResourceLocked);
    assert_eq!(wrapped(Operation::PutCredential, 429, "", &details).reason, Reason::Throttled);
}

#[test]
fn an_identity_is_not_gone_because_something_within_an_error_is() {
    for code in ["ResourceNotFound", "ParentResourceNotFound", "NotFound"] {
        for status in [400, 403, 404, 409] {
            let details = [(code, "The parent user-assigned identity doesn't exist.")];
            assert!(!wrapped(Operation::DeleteCredential, status, "Wrapper", &details).is_gone(), "{status} {code}");
        }
    }
}

#[test]
fn who_has_to_do_what_is_in_the_message() {
    let said = |code: &str, message: &str| failure(Operation::PutCredential, 403, code, message).message;
    let subscription = "00000000-0000-0000-0000-000000000001";
    let register = said(
        "MissingSubscriptionRegistration",
        "The subscription is not registered to use namespace 'Microsoft.ManagedIdentity'. See …",
    );
    assert!(
        register.contains(&format!(
            "az provider register --subscription {subscription} --namespace Microsoft.ManagedIdentity`"
        )),
        "{register}"
    );
    let other = said("MissingSubscriptionRegistration", "… namespace 'Microsoft.Web'. See …");
    assert!(other.contains("--namespace Microsoft.Web`"), "{other}");
    let unfit = said("MissingSubscriptionRegistration", "… namespace 'Microsoft.Web;rm -rf /'. See …");
    assert!(unfit.contains("--namespace Microsoft.ManagedIdentity`"), "{unfit}");
    let disabled = said("ReadOnlyDisabledSubscription", "…");
    assert!(disabled.contains("reactivate") && !disabled.contains("lock"), "{disabled}");
    let denied = said("DenyAssignmentAuthorizationFailed", "…");
    assert!(denied.contains("no role overrides") && !denied.contains("az role assignment create"), "{denied}");
    let linked = said("LinkedAuthorizationFailed", "…");
    assert!(linked.contains("linked scope") && !linked.contains("Managed Identity Contributor"), "{linked}");
    assert!(said("Directory_QuotaExceeded", "…").contains("30 days"));
    let version = failure(Operation::ReadRole, 400, "NoRegisteredProviderFound", "…").message;
    assert!(version.contains("--azure-api-version Microsoft.Authorization="), "{version}");
}

#[test]
fn a_missing_resource_of_a_role_says_nothing_about_the_identity() {
    for operation in Operation::OF_ROLES {
        for code in
            ["ResourceNotFound", "NotFound", "ParentResourceNotFound", "ResourceGroupNotFound", "SubscriptionNotFound"]
        {
            let failure = failure(operation, 404, code, "The parent user-assigned identity doesn't exist.");
            assert!(!failure.is_gone(), "{operation:?} {code}");
        }
    }
}

#[test]
fn a_pause_that_only_the_text_asks_for_is_kept() {
    let text = "Request is temporarily throttled because resource /subscriptions/s has issued too many requests. Retry after 20 seconds.";
    assert_eq!(failure(Operation::PutCredential, 429, "", text).retry_after, Some(Duration::from_secs(20)));
    assert_eq!(failure(Operation::PutCredential, 503, "ServerBusy", text).retry_after, Some(Duration::from_secs(20)));
    assert_eq!(failure(Operation::PutCredential, 400, "BadRequest", text).retry_after, None);
}

#[test]
fn a_page_of_microsoft_authorization_throttles_roles_and_not_the_identity() {
    let message = failure(Operation::PutRoleAssignment, 429, "", "").message;
    assert!(message.contains("requests about roles to subscription"), "{message}");
}

#[test]
fn a_role_scope_outside_the_allowed_ones_is_named() {
    let cause = ArmErrorCause::OutOfScope("/subscriptions/s/resourcegroups/other".to_owned());
    let failure = judge(Operation::PutRoleAssignment, &identity(), &cause, None);
    assert_eq!(failure.reason, Reason::ScopeNotAllowed);
    assert!(failure.message.contains("/resourcegroups/other is outside"), "{}", failure.message);
}
