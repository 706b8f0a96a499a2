//! `ensign orphans` as a process: what a deleted cluster has left is found and deleted, and nothing else.

use ensign_azure_emulator::LogKind;
use ensign_azure_emulator::state::Credential;
use ensign_core::credentials::names::{Subject, credential_name};
use ensign_runtime::clock::{Clock, SystemClock};
use serde_json::Value;

use super::Azure;
use ensign_testkit::control_plane::ControlPlane;
use ensign_testkit::objects::kubectl;

const ISSUER: &str = "https://issuer.example/gone";

fn written(cluster: &str, name: Option<&str>) -> Credential {
    let subject = Subject::new("shop", "orders");
    let issuer = format!("{ISSUER}{}", if cluster == "gone" { "" } else { cluster });
    Credential {
        name: name.map_or_else(|| credential_name(cluster, &issuer, &subject), str::to_owned),
        issuer,
        subject: subject.to_string(),
        audiences: vec!["api://AzureADTokenExchange".to_owned()],
        written_at: SystemClock.now(),
    }
}

fn put(azure: &Azure, credentials: &[Credential]) {
    azure.emulator.with_state(|state| {
        let orders = state.identities.values_mut().find(|found| found.id.name == "orders").expect("it exists");
        orders.credentials.extend(credentials.iter().map(|one| (one.name.clone(), one.clone())));
    });
}

fn existing(azure: &Azure) -> Vec<String> {
    azure.emulator.with_state(|state| {
        let orders = state.identities.values().find(|found| found.id.name == "orders").expect("it exists");
        orders.credentials.keys().cloned().collect()
    })
}

/// Exit status, standard output as JSON, and standard error.
fn run(azure: &Azure, more: &[&str], kubeconfig: Option<&ControlPlane>) -> (i32, Value, String) {
    let scope = format!("/subscriptions/{}", azure.emulator.info().subscription_id);
    let mut command = azure.ensign(&[&["orphans", "--scope", &scope, "-o", "json"][..], more].concat());
    if let Some(cluster) = kubeconfig {
        command.env("KUBECONFIG", &cluster.kubeconfig);
    }
    let done = command.output().expect("run ensign");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    (done.status.code().expect("an exit status"), serde_json::from_slice(&done.stdout).unwrap_or_default(), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_orphans_of_a_deleted_cluster_are_listed_and_deleted() {
    let azure = Azure::start();
    let (gone, alive, by_hand) = (written("gone", None), written("alive", None), written("gone2", Some("by-hand")));
    put(&azure, &[gone.clone(), alive.clone(), by_hand.clone()]);

    let (status, found, said) = run(&azure, &["--cluster-id=gone"], None);
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("could not verify"), "{said}");
    let names: Vec<&Value> = found["orphans"].as_array().expect("a list").iter().map(|one| &one["name"]).collect();
    assert_eq!(names, [&gone.name], "{found:#}");
    assert_eq!(found["identities"], 2, "the whole subscription was searched");

    let delete = ["--cluster-id=gone", "--delete", "--issuer", ISSUER];
    let (status, _, said) = run(&azure, &delete, None);
    assert_eq!((status, existing(&azure).len()), (2, 3), "without --yes: {said}");
    let (status, done, said) = run(&azure, &[&delete[..], &["--yes"]].concat(), None);
    assert_eq!((status, &done["deleted"][0]), (0, &Value::from(gone.name)), "{said}");
    let mut left = vec![alive.name, by_hand.name];
    left.sort();
    assert_eq!(existing(&azure), left);
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_of_the_current_cluster_are_not_deleted() {
    let azure = Azure::start();
    let cluster = ControlPlane::shared();
    let uid = kubectl(cluster, &["get", "namespace", "kube-system", "--output", "jsonpath={.metadata.uid}"]);
    put(&azure, &[Credential { issuer: ISSUER.to_owned(), ..written(&uid, None) }]);
    let id = format!("--cluster-id={uid}");
    let (status, _, said) = run(&azure, &[&id, "--delete", "--yes", "--issuer", ISSUER], Some(cluster));
    assert_eq!(status, 2, "{said}");
    assert!(said.contains("still exists") && said.contains("ensign teardown"), "{said}");
    assert_eq!(existing(&azure).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_reported_and_fails() {
    let azure = Azure::start();
    azure.allow(["Microsoft.ManagedIdentity/userAssignedIdentities/read".to_owned()]);
    let (status, found, said) = run(&azure, &["--cluster-id=gone"], None);
    assert_eq!(status, 1, "{said}");
    let problems = found["problems"].to_string();
    assert!(problems.contains("federatedIdentityCredentials/read"), "{problems}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_listed_outside_the_allowed_scopes() {
    let azure = Azure::start();
    put(&azure, &[written("gone", None)]);
    let elsewhere = "--azure-allowed-scopes=/subscriptions/00000000-0000-0000-0000-00000000e15e";
    let (status, found, said) = run(&azure, &["--cluster-id=gone", elsewhere], None);
    assert_eq!((status, &found["identities"]), (1, &Value::from(0)), "{said}");
    assert!(found["problems"].to_string().contains("--azure-allowed-scopes"), "{found:#}");
    assert_eq!(azure.requests(LogKind::ArmRead).len(), 0, "no request was sent");
}
