//! Metrics of objects by their state, counted at each scrape from the informers' cache.
//!
//! Labels are reasons of conditions and a few classes. `kubectl get mi,mib -A` shows which objects they are, to those who
//! may read them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use arc_swap::ArcSwapOption;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric, LabelValueEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::cache::{Cache, Objects};
use ensign_api::conditions::{ConditionType, Reason, find};
use ensign_api::{CredentialCounts, MAX_CREDENTIALS_PER_IDENTITY};
use ensign_runtime::label_values;

/// From this number of credentials on, an identity's slots are scarce.
const SCARCE_FROM: u32 = MAX_CREDENTIALS_PER_IDENTITY * 4 / 5;

/// Counts the objects of a cache, once there is one.
#[derive(Clone, Default)]
pub(crate) struct Census(Arc<ArcSwapOption<Cache>>);

impl Census {
    /// Counts what is in this cache from now on.
    pub(crate) fn begin(&self, cache: Arc<Cache>) {
        self.0.store(Some(cache));
    }
}

impl fmt::Debug for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Census").finish_non_exhaustive()
    }
}

/// The kinds that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    ManagedIdentity,
    ManagedIdentityBinding,
}

label_values!(Kind { ManagedIdentity => "managed_identity", ManagedIdentityBinding => "managed_identity_binding" });

/// The reason of the condition `Ready`, as it is in the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Why(Reason);

impl EncodeLabelValue for Why {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(&self.0.as_str(), encoder)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct ObjectLabels {
    kind: Kind,
    reason: Why,
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

/// How many of Azure's slots for credentials an identity has left.
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

/// The counts.
#[derive(Debug)]
struct Counted {
    objects: BTreeMap<ObjectLabels, i64>,
    credentials: BTreeMap<CredentialLabels, i64>,
    identities: BTreeMap<SlotLabels, i64>,
}

impl Default for Counted {
    /// Series that alerts use exist from the start.
    fn default() -> Self {
        let ready = [Kind::ManagedIdentity, Kind::ManagedIdentityBinding].map(|kind| (kind, Why(Reason::Ready)));
        Self {
            objects: ready.map(|(kind, reason)| (ObjectLabels { kind, reason }, 0)).into(),
            credentials: [Owner::ThisCluster, Owner::OtherClusters, Owner::Foreign]
                .map(|owner| (CredentialLabels { owner }, 0))
                .into(),
            identities: [Slots::Free, Slots::Scarce, Slots::Full].map(|slots| (SlotLabels { slots }, 0)).into(),
        }
    }
}

impl Counted {
    fn of(objects: &Objects) -> Self {
        let mut counted = Self::default();
        for identity in objects.identities() {
            let status = identity.status.as_ref();
            counted.object(Kind::ManagedIdentity, status.map(|status| status.conditions.as_slice()));
            if let Some(counts) = status.and_then(|status| status.credentials.as_ref()) {
                counted.quota(counts);
            }
        }
        for binding in objects.bindings() {
            let status = binding.status.as_ref();
            counted.object(Kind::ManagedIdentityBinding, status.map(|status| status.conditions.as_slice()));
        }
        counted
    }

    fn object(&mut self, kind: Kind, conditions: Option<&[Condition]>) {
        let ready = find(conditions.unwrap_or_default(), ConditionType::Ready);
        // A reason that this version does not know is about to be replaced.
        let reason = ready.and_then(|ready| Reason::named(&ready.reason)).unwrap_or(Reason::Pending);
        *self.objects.entry(ObjectLabels { kind, reason: Why(reason) }).or_default() += 1;
    }

    fn quota(&mut self, counts: &CredentialCounts) {
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

impl Collector for Census {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let cache = self.0.load();
        let counted = cache.as_ref().map_or_else(Counted::default, |cache| Counted::of(&cache.read()));
        gauges(&mut encoder, "ensign_objects", "Objects by the reason of their condition Ready", counted.objects)?;
        gauges(
            &mut encoder,
            "ensign_credentials",
            "Federated identity credentials under all identities, by owner",
            counted.credentials,
        )?;
        gauges(
            &mut encoder,
            "ensign_identities",
            "Identities by how many credential slots are left",
            counted.identities,
        )
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

    fn identity(name: &str, credentials: &Value, reason: &str) -> ensign_api::ManagedIdentity {
        serde_json::from_value(json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentity", "metadata": {"name": name}, "spec": {},
            "status": {"credentials": credentials, "conditions": [{
                "type": "Ready", "status": "False", "reason": reason, "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]},
        }))
        .unwrap()
    }

    #[test]
    fn objects_are_counted_by_reason_and_slots_without_their_names() {
        let cache = Arc::new(Cache::default());
        let census = Census::default();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(census.clone()));
        let registry = Metrics::from(registry);
        assert!(registry.text().unwrap().contains(r#"ensign_identities{slots="full"} 0"#));
        let of = |this: u32, other: u32, foreign: u32| json!({"thisCluster": this, "otherClusters": other, "foreign": foreign, "limit": 20});
        for (name, credentials, reason) in [
            ("secret-a", of(15, 0, 0), "Ready"),
            ("secret-b", of(10, 4, 2), "Forbidden"),
            ("secret-c", of(12, 6, 2), "QuotaExceeded"),
            ("secret-d", of(0, 0, 0), "OfALaterVersion"),
        ] {
            cache.identity_changed(name, Some(identity(name, &credentials, reason)));
        }
        census.begin(cache);
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
