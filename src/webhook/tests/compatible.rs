//! Compatibility mode: where the annotations of service accounts come from.

use super::service_account_store::{self, AccountError, Accounts, Metadata, ReadAccount};
use super::*;
use crate::metrics::WebhookMetrics;
use ensign_core::admission::azure_workload_identity::{
    Account, Annotations, Compatibility, EXPIRATION_ANNOTATION, USE_LABEL,
};
use ensign_core::assess::CLIENT_ID_ANNOTATION;

/// Answers as told, and counts the questions.
#[derive(Default)]
struct FakeAccounts {
    accounts: HashMap<String, Value>,
    fails: bool,
    asked: Mutex<usize>,
}

#[async_trait]
impl ReadAccount for FakeAccounts {
    async fn read(&self, namespace: &str, name: &str) -> Result<Account, AccountError> {
        *self.asked.lock().unwrap() += 1;
        if self.fails {
            return Err(AccountError::TimedOut { namespace: namespace.to_owned(), name: name.to_owned() });
        }
        let found = self.accounts.get(&format!("{namespace}/{name}"));
        let annotations = |value: &Value| Annotations::from(&serde_json::from_value(value.clone()).unwrap());
        Ok(found.map_or(Account::Missing, |value| Account::Present(annotations(value))))
    }
}

fn source(annotations: &Value) -> Arc<FakeAccounts> {
    Arc::new(FakeAccounts {
        accounts: [("shop/orders".to_owned(), annotations.clone())].into(),
        ..FakeAccounts::default()
    })
}

fn failing() -> Arc<FakeAccounts> {
    Arc::new(FakeAccounts { fails: true, ..FakeAccounts::default() })
}

fn asked(source: &FakeAccounts) -> usize {
    *source.asked.lock().unwrap()
}

fn metadata(name: &str, annotations: &Value) -> Metadata {
    let metadata = json!({"name": name, "namespace": "shop", "annotations": annotations});
    serde_json::from_value(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})).unwrap()
}

fn cached(accounts: impl IntoIterator<Item = Metadata>) -> Arc<service_account_store::Index> {
    let index = Arc::new(service_account_store::Index::default());
    let mut follower = service_account_store::Follower::new(Arc::clone(&index));
    follower.follow(&Event::Init);
    for account in accounts {
        follower.follow(&Event::InitApply(account));
    }
    follower.follow(&Event::InitDone);
    index
}

fn app(index: Arc<service_account_store::Index>, source: &Arc<FakeAccounts>) -> Router {
    let config = Config {
        authority_host: "https://login.example/".to_owned(),
        audience: "api://AzureADTokenExchange".to_owned(),
        excluded: BTreeSet::new(),
        compatibility: Some(Compatibility { tenant_id: "tenant".to_owned() }),
        gate_pods: true,
    };
    let source: Arc<dyn ReadAccount> = source.clone();
    let accounts = Accounts::new(index, source);
    let lookup = Arc::<FakeLookup>::default();
    let admission = Admission::new(config, filled([]), lookup, Some(accounts), WebhookMetrics::default());
    server::router(Arc::new(admission), RequestLimits::default())
}

fn asking() -> Value {
    review(&json!({"request": {"object": {"metadata": {"labels": {USE_LABEL: "true"}}}}}))
}

fn client_id(response: &Value) -> Option<Value> {
    let mut pod = asking()["request"]["object"].clone();
    json_patch::patch(&mut pod, &patch_of(response)).unwrap();
    let env = pod["spec"]["containers"][0]["env"].as_array().unwrap().clone();
    env.into_iter().find(|one| one["name"] == "AZURE_CLIENT_ID").map(|one| one["value"].clone())
}

#[tokio::test]
async fn a_cached_client_id_asks_nobody() {
    let source = failing();
    let index = cached([metadata("orders", &json!({CLIENT_ID_ANNOTATION: "cached"}))]);
    assert_eq!(client_id(&ask(app(index, &source), &asking()).await), Some(json!("cached")));
    assert_eq!(asked(&source), 0);
}

#[tokio::test]
async fn an_account_that_the_cache_does_not_know_is_read_at_the_source() {
    let source = source(&json!({CLIENT_ID_ANNOTATION: "live"}));
    assert_eq!(client_id(&ask(app(cached([]), &source), &asking()).await), Some(json!("live")));
}

#[tokio::test]
async fn a_cached_account_without_a_client_id_is_read_again_and_serves_if_that_fails() {
    let index = || cached([metadata("orders", &json!({EXPIRATION_ANNOTATION: "7200"}))]);
    let late = source(&json!({CLIENT_ID_ANNOTATION: "late"}));
    assert_eq!(client_id(&ask(app(index(), &late), &asking()).await), Some(json!("late")));
    let response = ask(app(index(), &failing()), &asking()).await;
    assert_eq!(client_id(&response), None);
    let patch = serde_json::to_string(&patch_of(&response)).unwrap();
    assert!(patch.contains("7200"), "{patch}");
}

#[tokio::test]
async fn an_account_that_exists_nowhere_refuses_the_pod() {
    let response = ask(app(cached([]), &Arc::default()), &asking()).await;
    assert_eq!(response["allowed"], false);
    let said = response["status"]["message"].as_str().unwrap();
    assert!(said.contains("serviceaccounts \"orders\" not found"), "{said}");
}

#[tokio::test]
async fn an_account_that_cannot_be_read_is_no_answer() {
    let (status, text) = post(app(cached([]), &failing()), "application/json", asking().to_string()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text.contains("retry"), "{text}");
}

#[tokio::test]
async fn pods_without_the_upstreams_label_depend_on_no_account() {
    let source = failing();
    assert_eq!(ask(app(cached([]), &source), &review(&json!({}))).await["allowed"], true);
    assert_eq!(asked(&source), 0);
}

#[test]
fn the_index_follows_changes_and_deletions() {
    let index = cached([metadata("a", &json!({CLIENT_ID_ANNOTATION: "1"})), metadata("b", &json!({}))]);
    let mut follower = service_account_store::Follower::new(Arc::clone(&index));
    follower.follow(&Event::Apply(metadata("b", &json!({CLIENT_ID_ANNOTATION: "2"}))));
    assert!(index.find("shop", "b").is_some_and(|annotations| annotations.name_a_client_id()));
    follower.follow(&Event::Delete(metadata("a", &json!({}))));
    assert!(index.find("shop", "a").is_none());
    follower.follow(&Event::Delete(metadata("b", &json!({}))));
    assert!(index.find("shop", "b").is_none());
}

#[test]
fn what_a_tenant_could_fill_the_memory_with_is_not_kept() {
    let long = metadata("a", &json!({CLIENT_ID_ANNOTATION: "x".repeat(2_000)}));
    assert!(cached([long.clone()]).find("shop", "a").is_none());
    // Also where a shorter one was kept before.
    let index = cached([metadata("a", &json!({CLIENT_ID_ANNOTATION: "short"}))]);
    service_account_store::Follower::new(Arc::clone(&index)).follow(&Event::Apply(long));
    assert!(index.find("shop", "a").is_none());
}

#[test]
fn of_the_metadata_only_what_is_asked_for_is_taken_in() {
    let mut account = metadata("a", &json!({CLIENT_ID_ANNOTATION: "id", "other/annotation": "x".repeat(2_000)}));
    account.metadata.labels = Some([("team".to_owned(), "orders".to_owned())].into());
    account.metadata.resource_version = Some("7".to_owned());
    service_account_store::strip(&mut account);
    assert_eq!(account.metadata.annotations, Some([(CLIENT_ID_ANNOTATION.to_owned(), "id".to_owned())].into()));
    assert_eq!((account.metadata.labels, account.metadata.resource_version), (None, Some("7".to_owned())));
}

#[test]
fn nothing_is_kept_of_a_service_account_with_very_large_annotations() {
    let large = "x".repeat(200_000);
    let mut follower = service_account_store::Follower::new(Arc::default());
    follower.follow(&Event::Apply(metadata("orders", &json!({"azure.workload.identity/client-id": large}))));
    assert!(!format!("{follower:?}").contains(&large));
}

#[test]
fn service_accounts_of_one_tenant_share_its_id() {
    let annotations = json!({"azure.workload.identity/tenant-id": "one-tenant"});
    let mut follower = service_account_store::Follower::new(Arc::default());
    for name in ["orders", "billing"] {
        follower.follow(&Event::Apply(metadata(name, &annotations)));
    }
    let known = format!("{follower:?}");
    assert_eq!(known.matches("one-tenant").count(), 3, "two accounts and the shared text: {known}");
}
