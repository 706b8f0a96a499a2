//! Leader election with a `Lease`: the requests. The decisions, and why they are safe, are in
//! `ensign_core::scheduling::leader_election`.

use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Client;
use kube::api::{Api, PartialObjectMeta, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::write_gate::WriteGate;
use ensign_core::scheduling::leader_election::{Act, Candidate, Loss, Malformed, Record, Terms};
use ensign_core::scheduling::monotonic::Moment;
use ensign_runtime::clock::SharedClock;

/// Attempts to release the lease; after that it expires by itself.
const RELEASE_ATTEMPTS: usize = 3;

/// The lease that this process wants to hold.
#[derive(Clone)]
pub struct LeaseConfig {
    /// The client of the cluster. It must not retry by itself: a late retry would be taken for a prompt request.
    pub client: Client,
    /// Namespace of the `Lease`.
    pub namespace: String,
    /// Name of the `Lease`.
    pub name: String,
    /// Identifies this process. No other process may use the same identity, not even an earlier run of this one.
    pub identity: String,
    /// How long the lease is valid without a renewal, in seconds.
    pub duration_seconds: u64,
}

/// Whether this process leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leadership {
    /// The lease has not been read yet.
    Unknown,
    /// Another process leads, or will.
    Standby,
    /// This process leads.
    Leading,
}

/// The election, as this process takes part in it.
pub(crate) struct Election {
    leadership: watch::Receiver<Leadership>,
    release: CancellationToken,
    task: JoinSet<Result<(), Loss>>,
}

impl Election {
    /// Takes part in the election. The gate is open while this process leads.
    pub(crate) fn start(config: LeaseConfig, clock: SharedClock) -> (Self, WriteGate) {
        let terms = Terms::new(config.duration_seconds);
        let gate = WriteGate::shut(clock.clone(), terms.least_for_a_write());
        let (published, leadership) = watch::channel(Leadership::Unknown);
        let release = CancellationToken::new();
        let elector = Elector {
            api: Api::namespaced(config.client.clone(), &config.namespace),
            object: format!("Lease {}/{}", config.namespace, config.name),
            candidate: Candidate::new(config.identity.clone(), terms),
            origin: clock.monotonic(),
            clock,
            gate: gate.clone(),
            published,
            release: release.clone(),
            last: None,
            logged: None,
            config,
        };
        let mut task = JoinSet::new();
        task.spawn(elector.run());
        (Self { leadership, release, task }, gate)
    }

    /// Whether this process leads, now and in future.
    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Waits until leadership is lost.
    pub(crate) async fn lost(&mut self) -> Loss {
        match self.task.join_next().await {
            Some(Ok(Err(loss))) => loss,
            _ => Loss::NotRenewed,
        }
    }

    /// Releases the lease, if this process holds it, so that another one leads at once. All work has to be finished.
    pub(crate) async fn release(mut self) {
        self.release.cancel();
        while self.task.join_next().await.is_some() {}
    }
}

struct Elector {
    api: Api<Lease>,
    object: String,
    config: LeaseConfig,
    candidate: Candidate,
    clock: SharedClock,
    origin: Instant,
    gate: WriteGate,
    published: watch::Sender<Leadership>,
    release: CancellationToken,
    /// The object as it was last read or stored; fields that are not Ensign's are kept.
    last: Option<Lease>,
    /// The last problem that was logged, so that it is logged once.
    logged: Option<String>,
}

/// The outcome of a request.
enum Answer {
    Found(Option<Record>),
    Stored(Record),
    /// The lease has changed since it was read.
    Behind,
    /// It is unknown whether it was applied.
    Unknown,
}

impl Elector {
    async fn run(mut self) -> Result<(), Loss> {
        // To notice a change before the next read is due; correctness does not depend on it.
        let changed = Arc::new(Notify::new());
        let mut watch = JoinSet::new();
        watch.spawn(notify_of_changes(self.config.clone(), changed.clone()));
        let release = self.release.clone();
        loop {
            match self.candidate.next(self.now()) {
                Act::Lost(loss) => {
                    self.gate.shut_now();
                    return Err(loss);
                }
                Act::Wait(until) => {
                    let standby = self.candidate.authority_ends().is_none();
                    tokio::select! {
                        biased;
                        () = release.cancelled() => {}
                        () = self.clock.sleep_until(self.origin + until) => {}
                        () = changed.notified(), if standby => self.candidate.behind(self.now()),
                    }
                }
                act => self.carry_out(act).await,
            }
            if release.is_cancelled() {
                self.gate.shut_now();
                self.release_lease().await;
                return Ok(());
            }
        }
    }

    async fn carry_out(&mut self, act: Act) {
        let sent = self.now();
        let answer = match &act {
            Act::Create { transitions } => self.create(*transitions).await,
            Act::Replace { version, transitions, taking } => {
                self.replace(version, *transitions, *taking, Some(self.config.identity.clone())).await
            }
            _ => self.read().await,
        };
        let now = self.now();
        match (answer, &act) {
            (Answer::Found(found), _) => self.candidate.saw(found, now),
            (Answer::Stored(stored), Act::Create { .. }) => self.candidate.created(stored, sent, now),
            (Answer::Stored(stored), _) => self.candidate.replaced(stored, sent),
            (Answer::Behind, _) => self.candidate.behind(now),
            (Answer::Unknown, _) => return self.candidate.unanswered(now),
        }
        self.publish();
    }

    fn publish(&mut self) {
        let leadership = match self.candidate.authority_ends() {
            Some(end) => {
                self.gate.open_until(self.origin + end);
                Leadership::Leading
            }
            None => Leadership::Standby,
        };
        let changed = self.published.send_if_modified(|last| std::mem::replace(last, leadership) != leadership);
        if changed {
            let (lease, identity) = (&self.object, self.candidate.identity());
            if leadership == Leadership::Leading {
                tracing::info!(lease, identity, "leading");
            } else {
                tracing::info!(lease, identity, holder = self.candidate.holder(), "standby");
            }
        }
    }

    async fn read(&mut self) -> Answer {
        let request = self.api.get_opt(&self.config.name);
        match tokio::time::timeout(self.candidate.terms().request_deadline(), request).await {
            Ok(Ok(None)) => {
                self.last = None;
                Answer::Found(None)
            }
            Ok(Ok(Some(lease))) => self.parse(lease).map_or(Answer::Unknown, |record| Answer::Found(Some(record))),
            Ok(Err(error)) => self.failed("reading", &error),
            Err(_) => self.late("reading"),
        }
    }

    async fn create(&mut self, transitions: i32) -> Answer {
        let metadata = ObjectMeta {
            name: Some(self.config.name.clone()),
            namespace: Some(self.config.namespace.clone()),
            ..ObjectMeta::default()
        };
        let holder = Some(self.config.identity.clone());
        let lease = Lease { metadata, spec: Some(self.spec(LeaseSpec::default(), transitions, true, holder)) };
        let parameters = PostParams::default();
        let request = self.api.create(&parameters, &lease);
        let answer = tokio::time::timeout(self.candidate.terms().request_deadline(), request).await;
        self.stored("creating", answer)
    }

    async fn replace(&mut self, version: &str, transitions: i32, taking: bool, holder: Option<String>) -> Answer {
        let last = self.last.clone().filter(|lease| lease.metadata.resource_version.as_deref() == Some(version));
        let Some(mut lease) = last else { return Answer::Behind };
        lease.spec = Some(self.spec(lease.spec.unwrap_or_default(), transitions, taking, holder));
        let parameters = PostParams::default();
        let request = self.api.replace(&self.config.name, &parameters, &lease);
        let answer = tokio::time::timeout(self.candidate.terms().request_deadline(), request).await;
        self.stored("writing", answer)
    }

    fn spec(&self, before: LeaseSpec, transitions: i32, taking: bool, holder: Option<String>) -> LeaseSpec {
        // For people; no decision depends on them.
        let now = MicroTime(self.clock.now());
        LeaseSpec {
            holder_identity: holder,
            lease_duration_seconds: i32::try_from(self.candidate.terms().duration().as_secs()).ok(),
            lease_transitions: Some(transitions),
            acquire_time: if taking { Some(now.clone()) } else { before.acquire_time },
            renew_time: Some(now),
            ..before
        }
    }

    fn stored(&mut self, act: &str, answer: Result<kube::Result<Lease>, tokio::time::error::Elapsed>) -> Answer {
        match answer {
            Ok(Ok(lease)) => self.parse(lease).map_or(Answer::Unknown, Answer::Stored),
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Answer::Behind,
            Ok(Err(error)) => self.failed(act, &error),
            Err(_) => self.late(act),
        }
    }

    fn parse(&mut self, lease: Lease) -> Option<Record> {
        let spec = lease.spec.clone().unwrap_or_default();
        let version = lease.metadata.resource_version.clone();
        let record = Record::new(version, spec.holder_identity, spec.lease_duration_seconds, spec.lease_transitions);
        match record {
            Ok(record) => {
                self.last = Some(lease);
                self.logged = None;
                Some(record)
            }
            Err(malformed) => {
                self.log_malformed(&malformed);
                None
            }
        }
    }

    fn log_malformed(&mut self, malformed: &Malformed) {
        let LeaseConfig { namespace, name, .. } = &self.config;
        let text = format!(
            "{} is malformed: {malformed}; no controller leads until a cluster operator deletes it: kubectl delete lease {name} --namespace {namespace}",
            self.object
        );
        self.log_once(text);
    }

    fn failed(&mut self, act: &str, error: &kube::Error) -> Answer {
        let cure = match error {
            kube::Error::Api(status) if status.code == 403 => {
                "; the controller's Role has to allow get, list, watch, create and update on leases in its own namespace"
            }
            _ => "",
        };
        self.log_once(format!("{act} {} failed: {error}{cure}", self.object));
        Answer::Unknown
    }

    fn late(&mut self, act: &str) -> Answer {
        let deadline = self.candidate.terms().request_deadline();
        self.log_once(format!("{act} {}: no response within {deadline:?}", self.object));
        Answer::Unknown
    }

    fn log_once(&mut self, text: String) {
        if self.logged.as_ref() != Some(&text) {
            tracing::error!("{text}");
            self.logged = Some(text);
        }
    }

    async fn release_lease(&mut self) {
        for _ in 0..RELEASE_ATTEMPTS {
            let Some(held) = self.candidate.held().cloned() else { return };
            match self.replace(&held.version, held.transitions, false, None).await {
                Answer::Stored(_) => {
                    tracing::info!(lease = self.object, "released the lease");
                    return;
                }
                // The last renewal got no response, or something else has modified the object.
                _ => match self.read().await {
                    Answer::Found(found) => self.candidate.saw(found, self.now()),
                    _ => return,
                },
            }
        }
    }

    fn now(&self) -> Moment {
        self.clock.monotonic().saturating_duration_since(self.origin)
    }
}

/// Wakes a standby when the lease changes.
async fn notify_of_changes(config: LeaseConfig, changed: Arc<Notify>) {
    let api: Api<PartialObjectMeta<Lease>> = Api::namespaced(config.client, &config.namespace);
    let selection = watcher::Config::default().fields(&format!("metadata.name={}", config.name));
    let mut events = std::pin::pin!(watcher(api, selection).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_)) => changed.notify_one(),
            Ok(_) => {}
            Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "watch of the Lease interrupted"),
        }
    }
}
