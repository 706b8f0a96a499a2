//! What the controller counts. docs/metrics.md explains each.

mod objects;

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use self::objects::Census;
use crate::cache::Cache;
use ensign_azure::AzureMetrics;
use ensign_core::cel::Mode;
use ensign_core::credentials::plan::CredentialWrite;

/// The controller's metrics. Copies count together.
#[derive(Clone, Debug, Default)]
pub struct ControllerMetrics {
    pub(crate) held: Gauge<i64, AtomicI64>,
    pub(crate) missed: Gauge<i64, AtomicI64>,
    lifted: Family<LiftLabels, Counter>,
    reconciles: Family<ReconcileLabels, Counter>,
    writes: Family<WriteLabels, Counter>,
    leader: Gauge<i64, AtomicI64>,
    injection: Family<InjectionLabels, Gauge<i64, AtomicI64>>,
    census: Census,
    pub(crate) azure: AzureMetrics,
}

/// Why a pod was let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Lift {
    /// Its identity works.
    Settled,
    /// Its binding does not hold it any more.
    WithoutIdentity,
}

/// What a reconcile was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Subject {
    /// An identity, or the name of one.
    Identity,
    /// The webhook's registration.
    Webhook,
    /// A held pod.
    Pod,
    /// Held pods without the label.
    Unlabelled,
    /// Missed pods of a binding.
    Missed,
}

/// How a reconcile ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Ended {
    /// Nothing is left to do.
    Done,
    /// Time has to pass, or the cache to catch up.
    Waiting,
    /// It failed and is tried again.
    Failed,
}

/// What was written to Azure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum WriteKind {
    /// A credential that was not there.
    Create,
    /// One that somebody had changed.
    Repair,
    /// One that nobody is to be trusted by any more.
    Delete,
}

/// How a write to Azure ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Written {
    /// Azure confirmed it.
    Confirmed,
    /// Azure refused it, or did not answer.
    Failed,
    /// Leadership ended before the answer came.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    kind: WriteKind,
    outcome: Written,
}

/// Who injects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Injector {
    Webhook,
    Policy,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InjectionLabels {
    mode: Injector,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LiftLabels {
    outcome: Lift,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    subject: Subject,
    outcome: Ended,
}

impl ControllerMetrics {
    /// Puts them into the registry of a process, those with labels at zero.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("ensign_held_pods", "Pods that wait for their identity", self.held.clone());
        registry.register(
            "ensign_pods_missed",
            "Pods that run without the identity of a binding that means them",
            self.missed.clone(),
        );
        registry.register("ensign_pods_lifted", "Held pods that were let go", self.lifted.clone());
        registry.register("ensign_reconciles", "Reconciles, by what they were about", self.reconciles.clone());
        registry.register(
            "ensign_credential_writes",
            "Writes of federated identity credentials to Azure",
            self.writes.clone(),
        );
        registry.register("ensign_leader", "Whether this controller is the one that acts", self.leader.clone());
        registry.register("ensign_injection_mode", "1 for who injects pods", self.injection.clone());
        self.azure.register(registry);
        registry.register_collector(Box::new(self.census.clone()));
        for kind in [WriteKind::Create, WriteKind::Repair, WriteKind::Delete] {
            for outcome in [Written::Confirmed, Written::Failed, Written::Unknown] {
                drop(self.writes.get_or_create(&WriteLabels { kind, outcome }));
            }
        }
        for mode in [Injector::Webhook, Injector::Policy] {
            drop(self.injection.get_or_create(&InjectionLabels { mode }));
        }
        for outcome in [Lift::Settled, Lift::WithoutIdentity] {
            drop(self.lifted.get_or_create(&LiftLabels { outcome }));
        }
        for subject in [Subject::Identity, Subject::Webhook, Subject::Pod, Subject::Unlabelled, Subject::Missed] {
            for outcome in [Ended::Done, Ended::Waiting, Ended::Failed] {
                drop(self.reconciles.get_or_create(&ReconcileLabels { subject, outcome }));
            }
        }
    }

    /// From now on this controller acts, on what is in this cache; with the injection that it brings about, if any.
    pub(crate) fn leads(&self, cache: &Arc<Cache>, injection: Option<Mode>) {
        self.leader.set(1);
        self.census.begin(cache.clone());
        for (mode, wanted) in [(Injector::Webhook, Mode::Webhook), (Injector::Policy, Mode::Policy)] {
            self.injection.get_or_create(&InjectionLabels { mode }).set(i64::from(injection == Some(wanted)));
        }
    }

    /// This controller does not act any more.
    pub(crate) fn leads_no_more(&self) {
        self.leader.set(0);
    }

    pub(crate) fn written(&self, step: &CredentialWrite, outcome: Written) {
        let kind = match step {
            CredentialWrite::Put { replaces: None, .. } => WriteKind::Create,
            CredentialWrite::Put { replaces: Some(_), .. } => WriteKind::Repair,
            CredentialWrite::Delete { .. } => WriteKind::Delete,
        };
        self.writes.get_or_create(&WriteLabels { kind, outcome }).inc();
    }

    pub(crate) fn lifted(&self, outcome: Lift) {
        self.lifted.get_or_create(&LiftLabels { outcome }).inc();
    }

    pub(crate) fn reconciled(&self, subject: Subject, outcome: Ended) {
        self.reconciles.get_or_create(&ReconcileLabels { subject, outcome }).inc();
    }
}
