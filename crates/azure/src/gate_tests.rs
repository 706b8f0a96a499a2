use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::http::headers::Headers;
use azure_core::http::{AsyncRawResponse, ClientOptions, HttpClient, RetryOptions, Transport};
use azure_core::time::{Duration as TimeDuration, OffsetDateTime};
use parking_lot::Mutex;

use super::*;
use crate::client::ArmClient;
use crate::cloud::{Cloud, CloudArgs};
use ensign_api::IsolationScope;
use ensign_core::credentials::ownership::Credential;
use ensign_core::provisioning::Desired;
use ensign_core::roles::{Assignment, Lookup, RoleScope};

const SUBSCRIPTION: &str = "/subscriptions/00000000-0000-0000-0000-000000000001";
const ROLE: &str = "acdd72a7-3385-48ef-bd42-f606fba81ae7";
const OLD: &str = "No registered resource provider found for location 'x' and API version 'y' for type 'userAssignedIdentities'. The supported api-versions are '2018-11-30, 2023-01-31'. The supported locations are 'x'.";

/// An ARM that records the URLs of all requests, and answers as it is told to.
#[derive(Default)]
struct Recorder {
    urls: Mutex<Vec<String>>,
    answers: Mutex<VecDeque<(StatusCode, String)>>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recorder")
    }
}

#[async_trait]
impl HttpClient for Recorder {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        self.urls.lock().push(request.url().to_string());
        let answer = self.answers.lock().pop_front();
        let (status, body) = answer.unwrap_or((StatusCode::NotFound, "<html></html>".to_owned()));
        Ok(AsyncRawResponse::from_bytes(status, Headers::new(), body))
    }
}

#[derive(Debug)]
struct AnyToken;

#[async_trait]
impl TokenCredential for AnyToken {
    async fn get_token(&self, _: &[&str], _: Option<TokenRequestOptions<'_>>) -> azure_core::Result<AccessToken> {
        Ok(AccessToken::new("token", OffsetDateTime::now_utc() + TimeDuration::hours(1)))
    }
}

fn client(recorder: &Arc<Recorder>, scopes: &[&str], versions: &[&str]) -> ArmClient {
    let transport = Some(Transport::new(Arc::clone(recorder) as Arc<dyn HttpClient>));
    let options = ClientOptions { transport, retry: RetryOptions::none(), ..ClientOptions::default() };
    let versions: Vec<String> = versions.iter().map(ToString::to_string).collect();
    let cloud = CloudArgs::default().resolve().unwrap();
    let cloud = Cloud { api_versions: api_versions::parse_all(&versions).unwrap(), ..cloud };
    let scopes = AllowedScopes::new(scopes.iter().map(|scope| scope.parse().unwrap()));
    ArmClient::with_options(&cloud, options, Arc::new(AnyToken), "test").bounded(scopes)
}

fn group(name: &str) -> String {
    format!("{SUBSCRIPTION}/resourceGroups/{name}")
}

fn identity() -> String {
    format!("{}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders", group("rg"))
}

fn desired(isolation_scope: IsolationScope) -> Desired {
    Desired { location: "x".to_owned(), tags: BTreeMap::new(), isolation_scope }
}

/// The URLs that a request leads to.
async fn sent<T>(recorder: &Recorder, request: impl Future<Output = T>) -> Vec<String> {
    request.await;
    std::mem::take(&mut recorder.urls.lock())
}

/// Every request of the client about the identity `orders` and its resource group, with its name.
async fn everything(client: &ArmClient, recorder: &Recorder) -> Vec<(&'static str, usize)> {
    let id: ArmId = identity().parse().unwrap();
    let credential = Credential {
        name: "trust".to_owned(),
        issuer: "https://issuer.example".to_owned(),
        subject: "system:serviceaccount:shop:app".to_owned(),
        audiences: vec!["api://AzureADTokenExchange".to_owned()],
    };
    let scope: RoleScope = group("rg").parse().unwrap();
    let assignment = Assignment {
        name: ROLE.to_owned(),
        scope: scope.to_string(),
        role: ROLE.to_owned(),
        principal: ROLE.to_owned(),
        condition: None,
    };
    let by = |role: &str| Lookup { root: scope.clone(), role: role.to_owned() };
    let (by_name, by_guid) = (by("reader"), by(ROLE));
    let scopes = [SUBSCRIPTION.to_owned(), group("rg")].map(|scope| scope.parse().unwrap());
    let desired = desired(IsolationScope::None);
    let mut done = Vec::new();
    macro_rules! each {
        ($($name:literal: $request:expr,)*) => { $(done.push(($name, sent(recorder, $request).await.len()));)* };
    }
    each! {
        "get_identity": client.get_identity(&id),
        "put_identity": client.put_identity(&id, &desired),
        "delete_identity": client.delete_identity(&id),
        "list_credentials": client.list_credentials(&id),
        "put_credential": client.put_credential(&id, &credential),
        "delete_credential": client.delete_credential(&id, "trust"),
        "role_definition by name": client.role_definition(&id, &by_name),
        "role_definition by GUID": client.role_definition(&id, &by_guid),
        "role_assignments": client.role_assignments(&id, &scope, ROLE),
        "role_assignment": client.role_assignment(&id, &scope, ROLE),
        "put_role_assignment": client.put_role_assignment(&id, &assignment, ""),
        "delete_role_assignment": client.delete_role_assignment(&id, &assignment),
        "list_identities of the subscription": client.list_identities(&scopes[0]),
        "list_identities of the group": client.list_identities(&scopes[1]),
    }
    done
}

#[tokio::test]
async fn outside_the_allowed_scopes_no_request_of_any_kind_is_sent() {
    let recorder = Arc::new(Recorder::default());
    let other = "/subscriptions/00000000-0000-0000-0000-000000000002";
    for elsewhere in [other.to_owned(), group("rg2"), group("other")] {
        for (name, requests) in everything(&client(&recorder, &[&elsewhere], &[]), &recorder).await {
            assert_eq!(requests, 0, "{name}, with {elsewhere}");
        }
    }
}

#[tokio::test]
async fn within_the_allowed_scopes_every_request_is_sent() {
    let recorder = Arc::new(Recorder::default());
    for scopes in [&[][..], &[SUBSCRIPTION]] {
        for (name, requests) in everything(&client(&recorder, scopes, &[]), &recorder).await {
            assert_eq!(requests, 1, "{name}, with {scopes:?}");
        }
    }
}

#[tokio::test]
async fn a_list_or_a_role_in_a_wider_scope_than_the_allowed_one_is_not_sent() {
    let recorder = Arc::new(Recorder::default());
    let group = group("rg");
    for (name, requests) in everything(&client(&recorder, &[&group], &[]), &recorder).await {
        assert_eq!(requests, usize::from(name != "list_identities of the subscription"), "{name}");
    }
    // Only the identity: the roles of its group can be read, and nothing can be written or listed there.
    let refused = [
        "put_role_assignment",
        "delete_role_assignment",
        "list_identities of the subscription",
        "list_identities of the group",
    ];
    for (name, requests) in everything(&client(&recorder, &[&identity()], &[]), &recorder).await {
        assert_eq!(requests, usize::from(!refused.contains(&name)), "{name}");
    }
}

#[tokio::test]
async fn a_scope_for_roles_allows_requests_about_roles_in_it_and_no_others() {
    let recorder = Arc::new(Recorder::default());
    let elsewhere = group("other");
    let resource = format!("{}/providers/Microsoft.Storage/storageAccounts/data", group("rg"));
    let is_role = |name: &str| name.contains("role_");
    let reads = ["role_definition by name", "role_definition by GUID", "role_assignments", "role_assignment"];
    for (allowed, all) in [(group("rg"), true), (SUBSCRIPTION.to_owned(), true), (resource, false)] {
        let client = client(&recorder, &[&elsewhere], &[]).with_role_scopes(vec![allowed.parse().unwrap()]);
        for (name, requests) in everything(&client, &recorder).await {
            let expected = is_role(name) && (all || reads.contains(&name));
            assert_eq!(requests, usize::from(expected), "{name}, with roles in {allowed}");
        }
    }
}

#[tokio::test]
async fn a_link_to_a_next_page_does_not_lead_out_of_the_allowed_scopes() {
    let recorder = Arc::new(Recorder::default());
    let link = format!("https://management.azure.com{}/providers/Microsoft.ManagedIdentity/x", group("other"));
    let body = serde_json::json!({"value": [], "nextLink": link}).to_string();
    recorder.answers.lock().push_back((StatusCode::Ok, body));
    let client = client(&recorder, &[&group("rg")], &[]);
    let (id, scope) = (identity().parse().unwrap(), group("rg").parse().unwrap());
    assert_eq!(sent(&recorder, client.list_identities(&scope)).await.len(), 1);
    let refused = client.list_identities(&group("other").parse().unwrap()).await.unwrap_err();
    assert!(refused.to_string().contains("--azure-allowed-scopes"), "{refused}");
    recorder.answers.lock().push_back((StatusCode::Ok, serde_json::json!({"value": [], "nextLink": link}).to_string()));
    assert_eq!(sent(&recorder, client.list_credentials(&id)).await.len(), 1);
}

fn refusal(code: &str, message: &str) -> (StatusCode, String) {
    (StatusCode::BadRequest, serde_json::json!({"error": {"code": code, "message": message}}).to_string())
}

#[tokio::test]
async fn an_unsupported_api_version_is_replaced_for_this_request_and_all_later_ones() {
    for code in ["NoRegisteredProviderFound", "InvalidApiVersionParameter", "InvalidResourceType"] {
        let recorder = Arc::new(Recorder::default());
        recorder.answers.lock().push_back(refusal(code, OLD));
        let client = client(&recorder, &[], &[]);
        let id = identity().parse().unwrap();
        let versions = |urls: Vec<String>| -> Vec<String> {
            urls.iter().map(|url| url.split("api-version=").nth(1).unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(versions(sent(&recorder, client.get_identity(&id)).await), ["2024-11-30", "2023-01-31"]);
        assert_eq!(versions(sent(&recorder, client.list_credentials(&id)).await), ["2023-01-31"]);
        let other = client.identified(Uuid::new_v4());
        assert_eq!(versions(sent(&recorder, other.get_identity(&id)).await), ["2023-01-31"], "clones know it too");
        let lookup = Lookup { root: group("rg").parse().unwrap(), role: ROLE.to_owned() };
        assert_eq!(versions(sent(&recorder, client.role_definition(&id, &lookup)).await), ["2022-04-01"]);
    }
}

#[tokio::test]
async fn without_a_version_that_works_the_error_says_so_and_nothing_is_sent_again() {
    let recorder = Arc::new(Recorder::default());
    let id: ArmId = identity().parse().unwrap();
    let none = OLD.replace(", 2023-01-31", "");
    for (client, message) in [
        (client(&recorder, &[], &[]), none.as_str()),
        (client(&recorder, &[], &["Microsoft.ManagedIdentity=2025-05-31-preview"]), OLD),
    ] {
        recorder.answers.lock().push_back(refusal("NoRegisteredProviderFound", message));
        let failure = client.get_identity(&id).await.unwrap_err().failure(None);
        assert_eq!(failure.reason.as_str(), "APIVersionNotSupported");
        assert!(failure.message.contains("--azure-api-version Microsoft.ManagedIdentity="), "{}", failure.message);
        assert_eq!(std::mem::take(&mut *recorder.urls.lock()).len(), 1);
    }
}

#[tokio::test]
async fn isolation_is_not_lost_to_an_older_api_version() {
    let recorder = Arc::new(Recorder::default());
    let id: ArmId = identity().parse().unwrap();
    let client = client(&recorder, &[], &[]);
    recorder.answers.lock().push_back(refusal("NoRegisteredProviderFound", OLD));
    let regional = desired(IsolationScope::Regional);
    assert_eq!(sent(&recorder, client.put_identity(&id, &regional)).await.len(), 1, "not again without isolation");
    let failure = client.put_identity(&id, &regional).await.unwrap_err().failure(None);
    assert_eq!(failure.reason.as_str(), "APIVersionNotSupported");
    assert!(failure.message.contains("isolationScope"), "{}", failure.message);
    assert_eq!(recorder.urls.lock().len(), 0, "it is known by then");
    assert_eq!(sent(&recorder, client.put_identity(&id, &desired(IsolationScope::None))).await.len(), 1);
}
