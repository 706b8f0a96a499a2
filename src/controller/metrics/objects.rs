//! Metrics of objects by their state, counted at each scrape.
//!
//! Labels are reasons of conditions and a few classes. `kubectl get mi,mib -A` shows the objects, to those who may read
//! them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric, LabelValueEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use ensign_api::conditions::{ConditionType, Reason, find};
use ensign_api::{CredentialCounts, MAX_CREDENTIALS_PER_IDENTITY, ManagedIdentity, ManagedIdentityBinding};
use ensign_runtime::label_values;

/// From this number of credentials on, an identity's slots are scarce.
const SCARCE_FROM: u32 = MAX_CREDENTIALS_PER_IDENTITY * 4 / 5;

/// What holds the objects that are counted.
pub(crate) trait CountedObjects: Send + Sync {
    /// The counts at this moment.
    fn count(&self) -> ObjectCounts;
}

/// Counts objects at each scrape, once there are any.
#[derive(Clone, Default)]
pub(super) struct ObjectMetrics(Arc<Mutex<Option<Arc<dyn CountedObjects>>>>);

impl ObjectMetrics {
    /// Counts these objects from now on.
    pub(super) fn count(&self, objects: Arc<dyn CountedObjects>) {
        *self.0.lock() = Some(objects);
    }
}

impl fmt::Debug for ObjectMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectMetrics").finish_non_exhaustive()
    }
}

/// The kinds that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum ObjectKind {
    ManagedIdentity,
    ManagedIdentityBinding,
}

label_values!(ObjectKind { ManagedIdentity => "managed_identity", ManagedIdentityBinding => "managed_identity_binding" });

/// The reason of the condition `Ready`, as it is in the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct ReadyReason(Reason);

impl EncodeLabelValue for ReadyReason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(&self.0.as_str(), encoder)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct ObjectLabels {
    kind: ObjectKind,
    reason: ReadyReason,
}

/// Who wrote credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Owner {
    ThisCluster,
    OtherClusters,
    Foreign,
}

label_values!(Owner { ThisCluster => "this_cluster", OtherClusters => "other_clusters", Foreign => "foreign" });

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct CredentialLabels {
    owner: Owner,
}

/// How many of Azure's credential slots an identity has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Slots {
    Free,
    Scarce,
    Full,
}

label_values!(Slots { Free => "free", Scarce => "scarce", Full => "full" });

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct SlotLabels {
    slots: Slots,
}

/// How many objects there are in each state.
#[derive(Debug)]
pub(crate) struct ObjectCounts {
    objects: BTreeMap<ObjectLabels, i64>,
    credentials: BTreeMap<CredentialLabels, i64>,
    identities: BTreeMap<SlotLabels, i64>,
}

impl Default for ObjectCounts {
    /// Series that alerts use exist from the start.
    fn default() -> Self {
        let ready = [ObjectKind::ManagedIdentity, ObjectKind::ManagedIdentityBinding]
            .map(|kind| (kind, ReadyReason(Reason::Ready)));
        Self {
            objects: ready.map(|(kind, reason)| (ObjectLabels { kind, reason }, 0)).into(),
            credentials: [Owner::ThisCluster, Owner::OtherClusters, Owner::Foreign]
                .map(|owner| (CredentialLabels { owner }, 0))
                .into(),
            identities: [Slots::Free, Slots::Scarce, Slots::Full].map(|slots| (SlotLabels { slots }, 0)).into(),
        }
    }
}

impl ObjectCounts {
    pub(crate) fn identity(&mut self, identity: &ManagedIdentity) {
        let status = identity.status.as_ref();
        self.object(ObjectKind::ManagedIdentity, status.map(|status| status.conditions.as_slice()));
        if let Some(counts) = status.and_then(|status| status.credentials.as_ref()) {
            self.credentials(counts);
        }
    }

    pub(crate) fn binding(&mut self, binding: &ManagedIdentityBinding) {
        let status = binding.status.as_ref();
        self.object(ObjectKind::ManagedIdentityBinding, status.map(|status| status.conditions.as_slice()));
    }

    fn object(&mut self, kind: ObjectKind, conditions: Option<&[Condition]>) {
        let ready = find(conditions.unwrap_or_default(), ConditionType::Ready);
        // A reason that this version does not know will be replaced by the next reconcile.
        let reason = ready.and_then(|ready| Reason::named(&ready.reason)).unwrap_or(Reason::Pending);
        *self.objects.entry(ObjectLabels { kind, reason: ReadyReason(reason) }).or_default() += 1;
    }

    fn credentials(&mut self, counts: &CredentialCounts) {
        let owners = [
            (Owner::ThisCluster, counts.this_cluster),
            (Owner::OtherClusters, counts.other_clusters),
            (Owner::Foreign, counts.foreign),
        ];
        for (owner, count) in owners {
            *self.credentials.entry(CredentialLabels { owner }).or_default() += i64::from(count);
        }
        let used: u32 = owners.iter().map(|(_, count)| count).sum();
        let slots = match used {
            used if used >= counts.limit => Slots::Full,
            used if used >= SCARCE_FROM => Slots::Scarce,
            _ => Slots::Free,
        };
        *self.identities.entry(SlotLabels { slots }).or_default() += 1;
    }
}

impl Collector for ObjectMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let objects = self.0.lock().clone();
        let counts = objects.map(|objects| objects.count()).unwrap_or_default();
        gauges(&mut encoder, "ensign_objects", "Objects by the reason of their condition Ready", counts.objects)?;
        gauges(
            &mut encoder,
            "ensign_credentials",
            "Federated identity credentials under all identities, by owner",
            counts.credentials,
        )?;
        gauges(&mut encoder, "ensign_identities", "Identities by how many credential slots are left", counts.identities)
    }
}

fn gauges<L>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    counts: BTreeMap<L, i64>,
) -> Result<(), fmt::Error>
where
    L: Clone + Eq + std::hash::Hash + EncodeLabelSet,
{
    let family: Family<L, Gauge<i64, AtomicI64>> = Family::default();
    for (labels, count) in counts {
        family.get_or_create(&labels).set(count);
    }
    family.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use serde_json::{Value, json};

    use super::*;
    use ensign_runtime::metrics::Metrics;

    fn identity(name: &str, credentials: &Value, reason: &str) -> ManagedIdentity {
        serde_json::from_value(json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentity", "metadata": {"name": name}, "spec": {},
            "status": {"credentials": credentials, "conditions": [{
                "type": "Ready", "status": "False", "reason": reason, "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]},
        }))
        .unwrap()
    }

    struct Identities(Vec<ManagedIdentity>);

    impl CountedObjects for Identities {
        fn count(&self) -> ObjectCounts {
            let mut counts = ObjectCounts::default();
            self.0.iter().for_each(|identity| counts.identity(identity));
            counts
        }
    }

    #[test]
    fn objects_are_counted_by_reason_and_slots_without_their_names() {
        let metrics = ObjectMetrics::default();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(metrics.clone()));
        let registry = Metrics::from(registry);
        assert!(registry.text().unwrap().contains(r#"ensign_identities{slots="full"} 0"#));
        let of = |this: u32, other: u32, foreign: u32| json!({"thisCluster": this, "otherClusters": other, "foreign": foreign, "limit": 20});
        let identities = [
            ("secret-a", of(15, 0, 0), "Ready"),
            ("secret-b", of(10, 4, 2), "Forbidden"),
            ("secret-c", of(12, 6, 2), "QuotaExceeded"),
            ("secret-d", of(0, 0, 0), "OfALaterVersion"),
        ]
        .map(|(name, credentials, reason)| identity(name, &credentials, reason));
        metrics.count(Arc::new(Identities(identities.into())));
        let text = registry.text().unwrap();
        for line in [
            r#"ensign_identities{slots="free"} 2"#,
            r#"ensign_identities{slots="scarce"} 1"#,
            r#"ensign_identities{slots="full"} 1"#,
            r#"ensign_credentials{owner="this_cluster"} 37"#,
            r#"ensign_credentials{owner="other_clusters"} 10"#,
            r#"ensign_credentials{owner="foreign"} 4"#,
            r#"ensign_objects{kind="managed_identity",reason="Forbidden"} 1"#,
            r#"ensign_objects{kind="managed_identity",reason="Pending"} 1"#,
            r#"ensign_objects{kind="managed_identity_binding",reason="Ready"} 0"#,
        ] {
            assert!(text.contains(line), "{line} is missing: {text}");
        }
        assert!(!text.contains("secret"), "{text}");
    }
}
