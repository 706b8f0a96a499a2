//! The controller's metrics, documented in docs/metrics.md.

mod objects;

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use self::objects::ObjectMetrics;
pub(crate) use self::objects::{CountedObjects, ObjectCounts};
use crate::engine::outcome::ReconcileOutcome;
use ensign_azure::AzureMetrics;
use ensign_core::cel::Mode;
use ensign_core::credentials::plan::CredentialWrite;
use ensign_runtime::label_values;

/// The controller's metrics. Copies count together.
#[derive(Clone, Debug, Default)]
pub struct ControllerMetrics {
    pub(crate) gated: Gauge<i64, AtomicI64>,
    pub(crate) uninjected: Gauge<i64, AtomicI64>,
    ungated: Family<UngateLabels, Counter>,
    reconciles: Family<ReconcileLabels, Counter>,
    writes: Family<WriteLabels, Counter>,
    leader: Gauge<i64, AtomicI64>,
    injection: Family<InjectionLabels, Gauge<i64, AtomicI64>>,
    objects: ObjectMetrics,
    pub(crate) azure: AzureMetrics,
}

/// Why a pod was ungated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum UngateReason {
    /// Its identity works.
    Propagated,
    /// Its binding does not gate it any more.
    WithoutIdentity,
}

label_values!(UngateReason { Propagated => "propagated", WithoutIdentity => "without_identity" });

/// What was reconciled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    /// An identity, or the name of one.
    Identity,
    /// The webhook configuration.
    Webhook,
    /// A gated pod.
    Pod,
    /// Gated pods without the label.
    Unlabelled,
    /// Uninjected pods of a binding.
    Uninjected,
}

label_values!(Subject {
    Identity => "identity",
    Webhook => "webhook",
    Pod => "pod",
    Unlabelled => "unlabelled",
    Uninjected => "uninjected",
});

/// How a reconcile ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Ended {
    /// Everything is in sync.
    Done,
    /// It waits for time to pass or for the cache to catch up.
    Waiting,
    /// It failed, and is retried.
    Failed,
}

impl From<&ReconcileOutcome> for Ended {
    fn from(outcome: &ReconcileOutcome) -> Self {
        match outcome {
            ReconcileOutcome::Nothing | ReconcileOutcome::InSync => Self::Done,
            ReconcileOutcome::Again(_)
            | ReconcileOutcome::Behind
            | ReconcileOutcome::RateLimited(_)
            | ReconcileOutcome::Paused(_)
            | ReconcileOutcome::InjectionWaits(_) => Self::Waiting,
            ReconcileOutcome::Retry | ReconcileOutcome::AzureFailed(_) => Self::Failed,
        }
    }
}

label_values!(Ended { Done => "done", Waiting => "waiting", Failed => "failed" });

/// What was written to Azure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum WriteKind {
    /// A new credential.
    Create,
    /// One that drifted.
    Repair,
    /// One that must not be trusted any more.
    Delete,
}

label_values!(WriteKind { Create => "create", Repair => "repair", Delete => "delete" });

/// How a write to Azure ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Written {
    /// Azure confirmed it.
    Confirmed,
    /// Azure rejected it, or did not respond.
    Failed,
    /// Leadership ended before the response.
    Unknown,
}

label_values!(Written { Confirmed => "confirmed", Failed => "failed", Unknown => "unknown" });

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    kind: WriteKind,
    outcome: Written,
}

/// What injects pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Injector {
    Webhook,
    Policy,
}

label_values!(Injector { Webhook => "webhook", Policy => "policy" });

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InjectionLabels {
    mode: Injector,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UngateLabels {
    outcome: UngateReason,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    subject: Subject,
    outcome: Ended,
}

impl ControllerMetrics {
    /// Registers them, those with labels at zero.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("ensign_pods_gated", "Pods that are gated until their identity works", self.gated.clone());
        registry.register(
            "ensign_pods_uninjected",
            "Pods that run without the identity of a binding that selects them",
            self.uninjected.clone(),
        );
        registry.register("ensign_pod_gates_removed", "Gated pods that were ungated", self.ungated.clone());
        registry.register("ensign_reconciles", "Keys taken from the work queue", self.reconciles.clone());
        registry.register(
            "ensign_credential_writes",
            "Writes of federated identity credentials to Azure",
            self.writes.clone(),
        );
        registry.register("ensign_leader", "1 while this replica is the leader", self.leader.clone());
        registry.register("ensign_injection_mode", "1 for the injection mode in use", self.injection.clone());
        self.azure.register(registry);
        registry.register_collector(Box::new(self.objects.clone()));
        for kind in [WriteKind::Create, WriteKind::Repair, WriteKind::Delete] {
            for outcome in [Written::Confirmed, Written::Failed, Written::Unknown] {
                drop(self.writes.get_or_create(&WriteLabels { kind, outcome }));
            }
        }
        for mode in [Injector::Webhook, Injector::Policy] {
            drop(self.injection.get_or_create(&InjectionLabels { mode }));
        }
        for outcome in [UngateReason::Propagated, UngateReason::WithoutIdentity] {
            drop(self.ungated.get_or_create(&UngateLabels { outcome }));
        }
        for subject in [Subject::Identity, Subject::Webhook, Subject::Pod, Subject::Unlabelled, Subject::Uninjected] {
            for outcome in [Ended::Done, Ended::Waiting, Ended::Failed] {
                drop(self.reconciles.get_or_create(&ReconcileLabels { subject, outcome }));
            }
        }
    }

    /// Reports this replica as the leader, the objects that it acts on, and its injection mode, if any.
    pub(crate) fn leads(&self, objects: Arc<dyn CountedObjects>, injection: Option<Mode>) {
        self.leader.set(1);
        self.objects.count(objects);
        for (mode, active) in [(Injector::Webhook, Mode::Webhook), (Injector::Policy, Mode::Policy)] {
            self.injection.get_or_create(&InjectionLabels { mode }).set(i64::from(injection == Some(active)));
        }
    }

    /// Reports this replica as not leading any more.
    pub(crate) fn leads_no_more(&self) {
        self.leader.set(0);
    }

    pub(crate) fn written(&self, write: &CredentialWrite, outcome: Written) {
        let kind = match write {
            CredentialWrite::Put { replaces: None, .. } => WriteKind::Create,
            CredentialWrite::Put { replaces: Some(_), .. } => WriteKind::Repair,
            CredentialWrite::Delete { .. } => WriteKind::Delete,
        };
        self.writes.get_or_create(&WriteLabels { kind, outcome }).inc();
    }

    pub(crate) fn ungated(&self, outcome: UngateReason) {
        self.ungated.get_or_create(&UngateLabels { outcome }).inc();
    }

    pub(crate) fn reconciled(&self, subject: Subject, outcome: &ReconcileOutcome) {
        let outcome = Ended::from(outcome);
        self.reconciles.get_or_create(&ReconcileLabels { subject, outcome }).inc();
    }
}
