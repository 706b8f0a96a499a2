//! Rollouts of the webhook, and changes of its certificates, while pods are created.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use ensign_api::keys::{INJECT_LABEL, ROTATE_CA_ANNOTATION};
use ensign_core::webhook_configuration::{GRANTED_ENTRY, LABELLED_ENTRY};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use ensign_testkit::control_plane::ControlPlane;
use ensign_testkit::objects::{apply, kubectl, unique, wait_for};
use ensign_testkit::replica::{Replica, ReplicaOptions};
use ensign_testkit::testbed::{Testbed, TestbedTeam};
use ensign_testkit::webhook_process::{Install, LoadBalancer, WebhookProcess};

const CREATORS: usize = 50;

/// Two replicas behind a load balancer, a controller that has registered them, and a team whose pods get an identity.
struct Cluster<'a> {
    testbed: &'a Testbed,
    install: Install,
    balancer: LoadBalancer,
    replicas: Vec<WebhookProcess>,
    team: TestbedTeam<'a>,
    _controller: Replica,
}

impl<'a> Cluster<'a> {
    fn start(testbed: &'a Testbed, prefix: &str) -> Self {
        let install = Install::new(testbed.control_plane, prefix);
        let balancer = LoadBalancer::start();
        // Started together, they race to fill the Secret.
        let mut replicas: Vec<_> = (0..2).map(|_| start_replica(&install)).collect();
        for replica in &mut replicas {
            balancer.add(replica.endpoint());
        }
        let webhook = Some(install.target(balancer.address));
        let controller = testbed.start(&unique(prefix), ReplicaOptions { webhook, ..ReplicaOptions::default() });
        let team = testbed.team(prefix);
        kubectl(testbed.control_plane, &["create", "serviceaccount", "app", "--namespace", &team.name]);
        team.bind();
        team.wait_ready("app");
        let cluster = Self { testbed, install, balancer, replicas, team, _controller: controller };
        wait_for("the API server to call the webhook", || {
            cluster.create(&cluster.team.name, false).ok().filter(injected)
        });
        cluster
    }

    /// Creates a pod; returns it as admitted, or the error of kubectl.
    fn create(&self, namespace: &str, labelled: bool) -> Result<Value, String> {
        let pod = pod(namespace, labelled);
        let name = pod["metadata"]["name"].as_str().expect("a name").to_owned();
        apply(self.testbed.control_plane, &pod)?;
        let arguments = ["get", "pod", &name, "--namespace", namespace, "--output", "json"];
        Ok(serde_json::from_str(&kubectl(self.testbed.control_plane, &arguments)).expect("a pod"))
    }

    /// Restarts each replica in turn, and waits each time until pods were created before, meanwhile and after.
    fn roll(&mut self, creators: &Creators) {
        for index in 0..self.replicas.len() {
            creators.wait_for_more();
            let status = self.replicas[index].terminate();
            assert!(status.success(), "{status}: {}", self.replicas[index].log());
            creators.wait_for_more();
            let mut replica = start_replica(&self.install);
            self.balancer.add(replica.endpoint());
            self.replicas[index] = replica;
            creators.wait_for_more();
        }
    }
}

fn start_replica(install: &Install) -> WebhookProcess {
    install.start(&["--drain-duration=1s", "--ca-propagation-delay=1s"])
}

fn pod(namespace: &str, labelled: bool) -> Value {
    let labels = if labelled { json!({INJECT_LABEL: "true"}) } else { json!({}) };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": unique("pod"), "namespace": namespace, "labels": labels},
        "spec": {
            "serviceAccountName": "app", "automountServiceAccountToken": false,
            "containers": [{"name": "app", "image": "app:1"}],
        },
    })
}

fn injected(pod: &Value) -> bool {
    let env = pod["spec"]["containers"][0]["env"].as_array();
    env.is_some_and(|env| env.iter().any(|variable| variable["name"] == "AZURE_CLIENT_ID"))
}

/// Fifty clients that create pods as fast as they can.
struct Creators {
    stop: Arc<AtomicBool>,
    created: Arc<AtomicUsize>,
    failures: Arc<Mutex<BTreeMap<String, usize>>>,
    thread: JoinHandle<()>,
}

impl Creators {
    fn start(control_plane: &'static ControlPlane, namespace: &str) -> Self {
        let (stop, created) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let failures = Arc::new(Mutex::new(BTreeMap::new()));
        let (stopped, count, failed) = (Arc::clone(&stop), Arc::clone(&created), Arc::clone(&failures));
        let namespace = namespace.to_owned();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let mut config = control_plane.config().await;
                // A failure counts even if it would be retried.
                config.default_retry = false;
                let api: Api<Pod> = Api::namespaced(kube::Client::try_from(config).expect("a client"), &namespace);
                let creator = |number: usize| {
                    let (api, stopped, count, failed) = (&api, &stopped, &count, &failed);
                    let namespace = &namespace;
                    async move {
                        while !stopped.load(Ordering::Relaxed) {
                            // Dry runs go through admission, and leave no pods behind.
                            let params = PostParams { dry_run: number.is_multiple_of(2), ..PostParams::default() };
                            let pod = serde_json::from_value(pod(namespace, number.is_multiple_of(3))).expect("a pod");
                            let problem = match api.create(&params, &pod).await {
                                Ok(pod) if injected(&serde_json::to_value(&pod).expect("JSON")) => {
                                    count.fetch_add(1, Ordering::Relaxed);
                                    continue;
                                }
                                Ok(_) => "not injected".to_owned(),
                                Err(error) => error.to_string(),
                            };
                            *failed.lock().expect("no panic").entry(problem).or_default() += 1;
                        }
                    }
                };
                futures::future::join_all((0..CREATORS).map(creator)).await;
            });
        });
        Self { stop, created, failures, thread }
    }

    /// Waits until each has created several more pods.
    fn wait_for_more(&self) {
        let goal = self.created.load(Ordering::Relaxed) + 3 * CREATORS;
        wait_for("more pods to be created", || {
            let failures = self.failures.lock().expect("no panic").clone();
            assert!(failures.is_empty(), "{failures:#?}");
            (self.created.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    /// Stops them; nothing may have failed.
    fn finish(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the clients stop");
        let failures = self.failures.lock().expect("no panic").clone();
        assert!(failures.is_empty(), "{failures:#?}");
        self.created.load(Ordering::Relaxed)
    }
}

#[test]
fn no_creation_fails_while_replicas_are_restarted_one_after_the_other() {
    let testbed = Testbed::acquire();
    let mut cluster = Cluster::start(&testbed, "roll");
    let creators = Creators::start(testbed.control_plane, &cluster.team.name);
    cluster.roll(&creators);
    let created = creators.finish();
    assert!(created >= 6 * 3 * CREATORS, "{created}");
    assert_eq!(cluster.balancer.turned_away(), 0);
}

#[test]
fn no_creation_fails_while_the_ca_is_rotated() {
    let testbed = Testbed::acquire();
    let mut cluster = Cluster::start(&testbed, "rotate-live");
    let trusted = || cluster.install.entry(LABELLED_ENTRY).expect("an entry")["clientConfig"]["caBundle"].clone();
    let (before, leaf) = (trusted(), cluster.install.secret("tls.crt"));
    let creators = Creators::start(testbed.control_plane, &cluster.team.name);
    creators.wait_for_more();
    let (name, annotation) = (&cluster.install.name, format!("{ROTATE_CA_ANNOTATION}=now"));
    kubectl(testbed.control_plane, &["annotate", "secret", name, &annotation, "--namespace", name]);
    wait_for("the new CA to sign", || (cluster.install.secret("tls.crt") != leaf).then_some(()));
    assert_ne!(trusted(), before, "it was registered first");
    assert_eq!(cluster.install.secret("next-ca.key"), None);
    assert_eq!(cluster.install.secret("ca.crt").expect("a CA").matches("BEGIN CERTIFICATE").count(), 2);
    creators.wait_for_more();
    // New replicas know only the new one.
    cluster.roll(&creators);
    creators.finish();
}

#[test]
fn a_wiped_ca_bundle_is_restored() {
    let testbed = Testbed::acquire();
    let cluster = Cluster::start(&testbed, "wipe");
    for entry in [GRANTED_ENTRY, LABELLED_ENTRY] {
        let entries = cluster.install.registration()["webhooks"].as_array().expect("entries").clone();
        let index = entries.iter().position(|found| found["name"] == entry).expect("the entry");
        let path = format!("/webhooks/{index}/clientConfig/caBundle");
        cluster.install.patch_registration(&json!([{"op": "remove", "path": path}]));
        wait_for("the CA bundle to be restored", || {
            let entry = cluster.install.entry(entry)?;
            (entry["clientConfig"]["caBundle"] == entries[index]["clientConfig"]["caBundle"]).then_some(())
        });
    }
    wait_for("pods to be created again", || cluster.create(&cluster.team.name, false).ok().filter(injected));
}

#[test]
fn without_replicas_other_namespaces_work_and_granted_ones_deny_with_the_reason() {
    let testbed = Testbed::acquire();
    let mut cluster = Cluster::start(&testbed, "gone");
    let elsewhere = unique("elsewhere");
    kubectl(testbed.control_plane, &["create", "namespace", &elsewhere]);
    kubectl(testbed.control_plane, &["create", "serviceaccount", "app", "--namespace", &elsewhere]);
    for replica in &mut cluster.replicas {
        assert!(replica.terminate().success());
    }

    assert!(!injected(&cluster.create(&elsewhere, false).expect("it is not sent to the webhook")));
    for (labelled, entry) in [(false, GRANTED_ENTRY), (true, LABELLED_ENTRY)] {
        let error = cluster.create(&cluster.team.name, labelled).expect_err("denied");
        assert!(error.contains(&format!("failed calling webhook \"{entry}\"")), "{error}");
    }

    // A namespace that is granted meanwhile continues as well, until the webhook responds.
    let late = testbed.team("late");
    kubectl(testbed.control_plane, &["create", "serviceaccount", "app", "--namespace", &late.name]);
    let asked = cluster.balancer.turned_away();
    late.bind();
    wait_for("the controller to probe the webhook", || (cluster.balancer.turned_away() > asked).then_some(()));
    let is_asked = |team: &TestbedTeam<'_>| {
        let entry = cluster.install.entry(GRANTED_ENTRY).map(|entry| entry["namespaceSelector"].to_string());
        entry.is_some_and(|entry| entry.contains(&format!("\"{}\"", team.name)))
    };
    assert!(is_asked(&cluster.team) && !is_asked(&late));
    assert!(!injected(&cluster.create(&late.name, false).expect("as before")));

    // Revoking needs no webhook.
    let nobody = ["patch", "mi", &cluster.team.name, "--type=merge", "--patch", r#"{"spec":{"allowedSubjects":[]}}"#];
    kubectl(testbed.control_plane, &nobody);
    wait_for("the namespace to be removed from the webhook configuration", || (!is_asked(&cluster.team)).then_some(()));
    wait_for("its pods to be created", || cluster.create(&cluster.team.name, false).ok());
    assert!(!is_asked(&late));
}
