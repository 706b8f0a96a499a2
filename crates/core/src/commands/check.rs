//! `ensign check`: whether an install works, judging from outside, and who has to do what.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::{Deserialize, Serialize};

use crate::credentials::issuer_url;
use crate::failure::Failure;
use ensign_api::ArmId;

/// The oldest minor version of Kubernetes that is supported.
const OLDEST_MINOR: u32 = 33;

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum CheckResult {
    /// It works.
    Ok,
    /// It may work, or can't be checked from here.
    Warn,
    /// It does not work.
    Fail,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Its name.
    pub check: &'static str,
    /// Its result.
    pub outcome: CheckResult,
    /// What was found.
    pub said: String,
    /// Who has to do what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
}

impl Check {
    /// A check that passed.
    pub fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, outcome: CheckResult::Ok, said: message.into(), cure: None }
    }

    /// A check with a warning.
    pub fn warn(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, outcome: CheckResult::Warn, said: message.into(), cure: Some(remedy.into()) }
    }

    /// A check that failed.
    pub fn fail(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, outcome: CheckResult::Fail, said: message.into(), cure: Some(remedy.into()) }
    }
}

/// Whether no check failed.
pub fn passes(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.outcome != CheckResult::Fail)
}

/// Checks the version of the API server.
pub fn api_server(git_version: &str, minor: &str) -> Check {
    let digits: String = minor.chars().take_while(char::is_ascii_digit).collect();
    match digits.parse::<u32>() {
        Ok(minor) if minor >= OLDEST_MINOR => Check::ok("api-server", git_version),
        _ => Check::warn(
            "api-server",
            format!("{git_version} is older than the versions that Ensign is tested with"),
            format!("use Kubernetes 1.{OLDEST_MINOR} or later"),
        ),
    }
}

/// Checks that the CRDs of this version are installed.
pub fn definitions(found: &[Option<CustomResourceDefinition>], wanted: &[CustomResourceDefinition]) -> Check {
    const CHECK: &str = "crds";
    let mut problems = Vec::new();
    for (found, wanted) in found.iter().zip(wanted) {
        let name = wanted.metadata.name.as_deref().unwrap_or_default();
        let Some(found) = found else {
            problems.push(format!("{name} is missing"));
            continue;
        };
        let conditions = found.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
        if !conditions.into_iter().any(|one| one.type_ == "Established" && one.status == "True") {
            problems.push(format!("{name} is not served yet"));
        }
        let schema = |crd: &CustomResourceDefinition| {
            let versions = crd.spec.versions.iter();
            versions.map(|version| (version.name.clone(), version.schema.clone())).collect::<Vec<_>>()
        };
        if schema(found) != schema(wanted) {
            problems.push(format!("{name} is from another version of Ensign"));
        }
    }
    if problems.is_empty() {
        return Check::ok(CHECK, format!("{} CRDs, of this version", wanted.len()));
    }
    Check::fail(
        CHECK,
        problems.join("; "),
        "a cluster operator runs `ensign crds | kubectl apply --server-side -f -` with the installed version of Ensign",
    )
}

/// Checks that a controller is the leader.
pub fn lease(holder: Option<&str>, renewed_seconds_ago: Option<i64>, duration_seconds: i64) -> Check {
    const CHECK: &str = "leader";
    const REMEDY: &str = "see the controller's pods and their logs: `kubectl get pods -n ensign-system`";
    let Some(holder) = holder.filter(|holder| !holder.is_empty()) else {
        return Check::fail(CHECK, "no controller is the leader: the Lease has no holder", REMEDY);
    };
    match renewed_seconds_ago {
        // Allow for clock skew between here and the holder.
        Some(ago) if ago <= duration_seconds.saturating_mul(2).saturating_add(30) => {
            Check::ok(CHECK, format!("{holder} is the leader"))
        }
        Some(ago) => Check::fail(CHECK, format!("{holder} holds the Lease but has not renewed it for {ago} s"), REMEDY),
        None => Check::fail(CHECK, format!("{holder} holds the Lease, but the Lease has no renewal time"), REMEDY),
    }
}

/// Checks that pods are injected. `entries` is the number of webhooks in the `MutatingWebhookConfiguration`, if it exists.
pub fn injection(entries: Option<usize>, policies_filled: bool) -> Check {
    const CHECK: &str = "injection";
    match (entries, policies_filled) {
        (_, true) => Check::ok(CHECK, "the API server injects pods, by admission policies"),
        (Some(count), false) if count > 0 => {
            Check::ok(CHECK, format!("the webhook injects pods; {count} entries are registered"))
        }
        (Some(_), false) => Check::fail(
            CHECK,
            "pods are not injected: the MutatingWebhookConfiguration and the admission policies are empty",
            "the leading controller fills them in once the webhook responds; its log reports what it waits for",
        ),
        (None, false) => Check::fail(
            CHECK,
            "pods are not injected: there is no MutatingWebhookConfiguration, and no admission policy is active",
            "a cluster operator applies the chart again, which creates the MutatingWebhookConfiguration, or names it with --webhook-configuration",
        ),
    }
}

/// Checks that Entra can reach the issuer, judging by its URL.
pub fn issuer_is_public(issuer: &str, allow_private: bool) -> Check {
    const CHECK: &str = "issuer";
    match issuer_url::refusal(issuer) {
        None => Check::ok(CHECK, issuer),
        Some(refusal) if allow_private => Check::warn(CHECK, refusal, "this works only with an emulator of Entra"),
        Some(refusal) => Check::fail(CHECK, refusal, "publish the issuer on a public https address"),
    }
}

/// The part of a discovery document that Entra reads.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Document {
    /// The issuer.
    pub issuer: String,
    /// The URL of its keys.
    pub jwks_uri: String,
}

/// Checks the discovery document and the keys. `answer` is the document and the number of keys, or why they can't be read.
pub fn discovery(issuer: &str, answer: &Result<(Document, usize), String>) -> Check {
    const CHECK: &str = "discovery";
    const REMEDY: &str = "Entra reads it from the internet and without credentials: publish /.well-known/openid-configuration and the keys under the issuer's URL (on AKS: `az aks update --enable-oidc-issuer`)";
    match answer {
        Err(problem) => {
            Check::fail(CHECK, format!("the discovery document of {issuer} can't be read from here: {problem}"), REMEDY)
        }
        Ok((document, _)) if document.issuer != issuer => Check::fail(
            CHECK,
            format!(
                "the discovery document has issuer {:?}, but tokens have {issuer:?}, and Entra requires an exact match",
                document.issuer
            ),
            "make the API server's --service-account-issuer and the issuer in the published document identical, to the last slash",
        ),
        Ok((document, 0)) => Check::fail(CHECK, format!("{} has no keys", document.jwks_uri), REMEDY),
        Ok((_, keys)) => Check::ok(CHECK, format!("readable from here, {keys} key(s)")),
    }
}

/// The controller's own identity and the token that it presents to Entra.
#[derive(Clone, Copy, Debug)]
pub struct Bootstrap<'a> {
    /// The cluster's issuer, if known.
    pub issuer: Option<&'a str>,
    /// Ensign's own namespace.
    pub namespace: &'a str,
    /// The controller's service account.
    pub service_account: &'a str,
    /// The audience of its tokens.
    pub audience: &'a str,
    /// The client ID of its identity, if it has a workload identity.
    pub client_id: Option<&'a str>,
    /// The Entra tenant that this install serves, if set.
    pub tenant_id: Option<&'a str>,
}

impl Bootstrap<'_> {
    fn create_credential(&self) -> String {
        format!(
            "az identity federated-credential create --name ensign-controller --resource-group <its resource group> --identity-name <the controller's identity> --issuer {} --subject system:serviceaccount:{}:{} --audiences {}",
            self.issuer.unwrap_or("<the cluster's issuer>"),
            self.namespace,
            self.service_account,
            self.audience
        )
    }
}

/// Checks that Entra issues a token for the controller's own identity.
pub fn credential(bootstrap: &Bootstrap<'_>, answer: &Result<(), String>) -> Check {
    const CHECK: &str = "credential";
    let who = bootstrap.client_id.unwrap_or("the user who is signed in with a developer tool");
    match answer {
        Ok(()) => Check::ok(CHECK, format!("Entra issues a token to {who}")),
        Err(problem) if bootstrap.client_id.is_none() => Check::fail(
            CHECK,
            format!("Entra issues no token: {problem}"),
            "run `az login`, or run this in the controller's pod",
        ),
        Err(problem) => Check::fail(
            CHECK,
            format!("Entra issues no token to {who}: {problem}"),
            format!(
                "an Azure administrator runs `{}`; a new credential takes a minute or two to propagate",
                bootstrap.create_credential()
            ),
        ),
    }
}

/// Checks that the identity is in the tenant that this install serves.
pub fn tenant(bootstrap: &Bootstrap<'_>, id: &ArmId, tenant_id: &str) -> Check {
    const CHECK: &str = "tenant";
    match bootstrap.tenant_id {
        Some(own) if own.eq_ignore_ascii_case(tenant_id) => Check::ok(CHECK, format!("{} is in {own}", id.name())),
        Some(own) => Check::fail(
            CHECK,
            format!("{id} is in tenant {tenant_id}, but this install serves {own}"),
            "a cluster operator names an identity in that tenant, or an administrator of Ensign corrects --azure-tenant-id",
        ),
        None => Check::warn(CHECK, "no tenant is set, so any is accepted", "set --azure-tenant-id"),
    }
}

/// Checks that the controller's role lets it read the identity.
pub fn role(bootstrap: &Bootstrap<'_>, id: &ArmId, answer: Result<(), &Failure>) -> Check {
    const CHECK: &str = "role";
    match answer {
        Ok(()) => Check::ok(CHECK, format!("{id} and its credentials can be read; writing was not tested")),
        Err(failure) => Check::fail(
            CHECK,
            failure.message.clone(),
            format!(
                "an Azure administrator runs the script that `ensign azure-role --scope {id} --principal-id <object ID of {}>` prints",
                bootstrap.client_id.unwrap_or("the controller's identity")
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ensign_api::conditions::Reason;

    const ID: &str = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders";
    const BOOTSTRAP: Bootstrap<'_> = Bootstrap {
        issuer: Some("https://i.example"),
        namespace: "ensign-system",
        service_account: "ensign-controller",
        audience: "api://AzureADTokenExchange",
        client_id: Some("c0ffee"),
        tenant_id: Some("t"),
    };

    fn failed(check: &Check) -> String {
        assert_eq!(check.outcome, CheckResult::Fail, "{check:?}");
        format!("{} {}", check.said, check.cure.as_deref().expect("every failure has a remedy"))
    }

    #[test]
    fn a_lease_without_a_holder_or_a_recent_renewal_fails() {
        assert_eq!(lease(Some("a"), Some(10), 15).outcome, CheckResult::Ok);
        failed(&lease(None, Some(1), 15));
        failed(&lease(Some(""), Some(1), 15));
        assert!(failed(&lease(Some("a"), Some(600), 15)).contains("600 s"));
        failed(&lease(Some("a"), None, 15));
    }

    #[test]
    fn without_webhook_and_policies_injection_fails() {
        assert_eq!(injection(Some(2), false).outcome, CheckResult::Ok);
        assert_eq!(injection(None, true).outcome, CheckResult::Ok);
        failed(&injection(Some(0), false));
        failed(&injection(None, false));
    }

    #[test]
    fn an_issuer_has_to_match_its_document_exactly() {
        let document =
            |issuer: &str| Document { issuer: issuer.to_owned(), jwks_uri: "https://i.example/keys".to_owned() };
        let check = |answer| discovery("https://i.example", &answer);
        assert_eq!(check(Ok((document("https://i.example"), 1))).outcome, CheckResult::Ok);
        assert!(failed(&check(Ok((document("https://i.example/"), 1)))).contains("last slash"));
        failed(&check(Ok((document("https://i.example"), 0))));
        assert!(failed(&check(Err("timed out".to_owned()))).contains("timed out"));
    }

    #[test]
    fn an_issuer_that_entra_cannot_reach_fails_unless_it_is_allowed() {
        failed(&issuer_is_public("https://kubernetes.default.svc", false));
        assert_eq!(issuer_is_public("https://kubernetes.default.svc", true).outcome, CheckResult::Warn);
        assert_eq!(issuer_is_public("https://i.example", false).outcome, CheckResult::Ok);
    }

    #[test]
    fn without_a_token_the_remedy_is_the_command_that_creates_the_credential() {
        let said = failed(&credential(&BOOTSTRAP, &Err("AADSTS70025".to_owned())));
        for part in [
            "AADSTS70025",
            "az identity federated-credential create",
            "--issuer https://i.example",
            "--subject system:serviceaccount:ensign-system:ensign-controller",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let laptop = Bootstrap { client_id: None, ..BOOTSTRAP };
        assert!(failed(&credential(&laptop, &Err(String::new()))).contains("az login"));
    }

    #[test]
    fn a_missing_role_and_a_foreign_tenant_fail() {
        let id = ID.parse().unwrap();
        let failure = Failure { reason: Reason::Forbidden, message: "no".to_owned(), retry_after: None };
        assert!(failed(&role(&BOOTSTRAP, &id, Err(&failure))).contains("ensign azure-role --scope /subscriptions"));
        assert!(passes(&[role(&BOOTSTRAP, &id, Ok(())), tenant(&BOOTSTRAP, &id, "T")]));
        failed(&tenant(&BOOTSTRAP, &id, "other"));
        assert!(!passes(&[tenant(&BOOTSTRAP, &id, "other")]));
    }

    #[test]
    fn crds_of_another_version_are_distinguished_from_missing_ones() {
        let wanted: Vec<_> = ensign_api::crds::all().into_iter().map(|(_, crd)| crd).collect();
        let served = |mut crd: CustomResourceDefinition| {
            let status = serde_json::json!({"conditions": [{"type": "Established", "status": "True"}]});
            crd.status = serde_json::from_value(status).unwrap();
            crd
        };
        let same: Vec<_> = wanted.iter().cloned().map(served).map(Some).collect();
        assert_eq!(definitions(&same, &wanted).outcome, CheckResult::Ok);
        let mut other = same.clone();
        other[0].as_mut().unwrap().spec.versions[0].schema = None;
        other[1] = None;
        let said = failed(&definitions(&other, &wanted));
        assert!(said.contains("is from another version") && said.contains("is missing"), "{said}");
        assert!(
            failed(&definitions(&wanted.iter().cloned().map(Some).collect::<Vec<_>>(), &wanted))
                .contains("not served yet")
        );
    }
}
