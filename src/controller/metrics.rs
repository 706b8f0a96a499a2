//! What the controller counts. docs/metrics.md explains each.

use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The controller's metrics. Copies count together.
#[derive(Clone, Debug, Default)]
pub struct ControllerMetrics {
    pub(super) held: Gauge<i64, AtomicI64>,
    pub(super) missed: Gauge<i64, AtomicI64>,
    lifted: Family<LiftLabels, Counter>,
    reconciles: Family<ReconcileLabels, Counter>,
}

/// Why a pod was let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Lift {
    /// Its identity works.
    Settled,
    /// Its binding does not hold it any more.
    WithoutIdentity,
}

/// What a reconcile was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Subject {
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
pub(super) enum Ended {
    /// Nothing is left to do.
    Done,
    /// Time has to pass, or the cache to catch up.
    Waiting,
    /// It failed and is tried again.
    Failed,
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
        for outcome in [Lift::Settled, Lift::WithoutIdentity] {
            drop(self.lifted.get_or_create(&LiftLabels { outcome }));
        }
        for subject in [Subject::Identity, Subject::Webhook, Subject::Pod, Subject::Unlabelled, Subject::Missed] {
            for outcome in [Ended::Done, Ended::Waiting, Ended::Failed] {
                drop(self.reconciles.get_or_create(&ReconcileLabels { subject, outcome }));
            }
        }
    }

    pub(super) fn lifted(&self, outcome: Lift) {
        self.lifted.get_or_create(&LiftLabels { outcome }).inc();
    }

    pub(super) fn reconciled(&self, subject: Subject, outcome: Ended) {
        self.reconciles.get_or_create(&ReconcileLabels { subject, outcome }).inc();
    }
}
