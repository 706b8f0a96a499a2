//! Leader election over a `Lease`: the requests. What to do, and why it is safe, is in `decide::lease`.

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

/// Tries to give the lease back; after that it ends by itself.
const RELEASE_TRIES: usize = 3;

/// The lease that this process wants to hold.
#[derive(Clone)]
pub struct LeaseConfig {
    /// The cluster. This client must not retry by itself: a late retry would be counted as a prompt one.
    pub client: Client,
    /// Namespace of the `Lease`.
    pub namespace: String,
    /// Name of the `Lease`.
    pub name: String,
    /// Who this process is. No other one may have the same name, not even an earlier life of this one.
    pub identity: String,
    /// How long the lease is good for without a renewal, in seconds.
    pub duration_seconds: u64,
}

/// Where this process stands in the election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leadership {
    /// The lease has not been read yet.
    Unknown,
    /// Another process leads, or will.
    Standby,
    /// This process leads.
    Leading,
}

/// This process's part in the election.
pub(crate) struct Election {
    standing: watch::Receiver<Leadership>,
    release: CancellationToken,
    task: JoinSet<Result<(), Loss>>,
}

impl Election {
    /// Stands for election. The gate is open while this process leads.
    pub(crate) fn start(config: LeaseConfig, clock: SharedClock) -> (Self, WriteGate) {
        let terms = Terms::new(config.duration_seconds);
        let gate = WriteGate::shut(clock.clone(), terms.least_for_a_write());
        let (told, standing) = watch::channel(Leadership::Unknown);
        let release = CancellationToken::new();
        let elector = Elector {
            api: Api::namespaced(config.client.clone(), &config.namespace),
            object: format!("Lease {}/{}", config.namespace, config.name),
            candidate: Candidate::new(config.identity.clone(), terms),
            origin: clock.monotonic(),
            clock,
            gate: gate.clone(),
            told,
            release: release.clone(),
            last: None,
            complaint: None,
            config,
        };
        let mut task = JoinSet::new();
        task.spawn(elector.run());
        (Self { standing, release, task }, gate)
    }

    /// Tells where this process stands.
    pub(crate) fn standing(&self) -> watch::Receiver<Leadership> {
        self.standing.clone()
    }

    /// Waits until leadership is lost.
    pub(crate) async fn lost(&mut self) -> Loss {
        match self.task.join_next().await {
            Some(Ok(Err(loss))) => loss,
            _ => Loss::NotRenewed,
        }
    }

    /// Gives the lease back, if this process holds it, so that another one leads at once. All work has to be over.
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
    told: watch::Sender<Leadership>,
    release: CancellationToken,
    /// The object as it was last read or stored; what is not Ensign's in it is kept.
    last: Option<Lease>,
    /// The last problem that was logged, so that it is logged once.
    complaint: Option<String>,
}

/// What became of a request.
enum Answer {
    Found(Option<Record>),
    Stored(Record),
    /// The lease is not as it was seen.
    Behind,
    /// There is no saying whether it was applied.
    Unknown,
}

impl Elector {
    async fn run(mut self) -> Result<(), Loss> {
        // A change that is heard of saves waiting for the next look; nothing depends on it.
        let changed = Arc::new(Notify::new());
        let mut hints = JoinSet::new();
        hints.spawn(hint(self.config.clone(), changed.clone()));
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
                self.give_back().await;
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
            _ => self.look().await,
        };
        let now = self.now();
        match (answer, &act) {
            (Answer::Found(found), _) => self.candidate.saw(found, now),
            (Answer::Stored(stored), Act::Create { .. }) => self.candidate.created(stored, sent, now),
            (Answer::Stored(stored), _) => self.candidate.replaced(stored, sent),
            (Answer::Behind, _) => self.candidate.behind(now),
            (Answer::Unknown, _) => return self.candidate.unanswered(now),
        }
        self.tell();
    }

    fn tell(&mut self) {
        let standing = match self.candidate.authority_ends() {
            Some(end) => {
                self.gate.open_until(self.origin + end);
                Leadership::Leading
            }
            None => Leadership::Standby,
        };
        let changed = self.told.send_if_modified(|told| std::mem::replace(told, standing) != standing);
        if changed {
            let (lease, identity) = (&self.object, self.candidate.identity());
            if standing == Leadership::Leading {
                tracing::info!(lease, identity, "leading");
            } else {
                tracing::info!(lease, identity, holder = self.candidate.holder(), "standing by");
            }
        }
    }

    async fn look(&mut self) -> Answer {
        let request = self.api.get_opt(&self.config.name);
        match tokio::time::timeout(self.candidate.terms().request_deadline(), request).await {
            Ok(Ok(None)) => {
                self.last = None;
                Answer::Found(None)
            }
            Ok(Ok(Some(lease))) => self.understand(lease).map_or(Answer::Unknown, |record| Answer::Found(Some(record))),
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
        // For people; no decision looks at them.
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
            Ok(Ok(lease)) => self.understand(lease).map_or(Answer::Unknown, Answer::Stored),
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Answer::Behind,
            Ok(Err(error)) => self.failed(act, &error),
            Err(_) => self.late(act),
        }
    }

    fn understand(&mut self, lease: Lease) -> Option<Record> {
        let spec = lease.spec.clone().unwrap_or_default();
        let version = lease.metadata.resource_version.clone();
        let record = Record::new(version, spec.holder_identity, spec.lease_duration_seconds, spec.lease_transitions);
        match record {
            Ok(record) => {
                self.last = Some(lease);
                self.complaint = None;
                Some(record)
            }
            Err(malformed) => {
                self.complain_malformed(&malformed);
                None
            }
        }
    }

    fn complain_malformed(&mut self, malformed: &Malformed) {
        let LeaseConfig { namespace, name, .. } = &self.config;
        let text = format!(
            "{} can't be understood: {malformed}; nobody leads until somebody deletes it: kubectl delete lease {name} --namespace {namespace}",
            self.object
        );
        self.complain(text);
    }

    fn failed(&mut self, act: &str, error: &kube::Error) -> Answer {
        let cure = match error {
            kube::Error::Api(status) if status.code == 403 => {
                "; the controller's Role has to allow get, list, watch, create and update of leases in its own namespace"
            }
            _ => "",
        };
        self.complain(format!("{act} {} failed: {error}{cure}", self.object));
        Answer::Unknown
    }

    fn late(&mut self, act: &str) -> Answer {
        let deadline = self.candidate.terms().request_deadline();
        self.complain(format!("{act} {}: no answer within {deadline:?}", self.object));
        Answer::Unknown
    }

    fn complain(&mut self, text: String) {
        if self.complaint.as_ref() != Some(&text) {
            tracing::error!("{text}");
            self.complaint = Some(text);
        }
    }

    async fn give_back(&mut self) {
        for _ in 0..RELEASE_TRIES {
            let Some(held) = self.candidate.held().cloned() else { return };
            match self.replace(&held.version, held.transitions, false, None).await {
                Answer::Stored(_) => {
                    tracing::info!(lease = self.object, "leadership given back");
                    return;
                }
                // Its last renewal had no answer, or somebody touched the object.
                _ => match self.look().await {
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

/// Wakes whoever stands by when the lease changes.
async fn hint(config: LeaseConfig, changed: Arc<Notify>) {
    let api: Api<PartialObjectMeta<Lease>> = Api::namespaced(config.client, &config.namespace);
    let selection = watcher::Config::default().fields(&format!("metadata.name={}", config.name));
    let mut events = std::pin::pin!(watcher(api, selection).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_)) => changed.notify_one(),
            Ok(_) => {}
            Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "watch of the Lease"),
        }
    }
}
