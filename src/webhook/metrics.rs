//! What the webhook counts. docs/metrics.md explains each.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::decide::admit::{Decision, RefusalCode};

/// The webhook's metrics. Copies count together.
#[derive(Clone, Debug, Default)]
pub struct WebhookMetrics {
    admissions: Family<Labels, Counter>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    outcome: Outcome,
    reason: Why,
}

/// What became of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Outcome {
    Allowed,
    Injected,
    Held,
    Refused,
}

/// Why it was refused, if it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Why(Option<RefusalCode>);

impl EncodeLabelValue for Why {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.0.map_or("", RefusalCode::as_str), encoder)
    }
}

impl From<&Decision> for Labels {
    fn from(decision: &Decision) -> Self {
        let (outcome, code) = match decision {
            Decision::Allow { .. } => (Outcome::Allowed, None),
            Decision::Patch { held: false, .. } => (Outcome::Injected, None),
            Decision::Patch { held: true, .. } => (Outcome::Held, None),
            Decision::Refuse(refusal) => (Outcome::Refused, Some(refusal.code)),
        };
        Self { outcome, reason: Why(code) }
    }
}

impl WebhookMetrics {
    /// Puts them into the registry of a process, those that every install has at zero.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("ensign_admissions", "Pods that the API server asked about", self.admissions.clone());
        for outcome in [Outcome::Allowed, Outcome::Injected, Outcome::Held] {
            drop(self.admissions.get_or_create(&Labels { outcome, reason: Why(None) }));
        }
    }

    /// Counts a pod.
    pub fn admitted(&self, decision: &Decision) {
        self.admissions.get_or_create(&Labels::from(decision)).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::admit::Refusal;
    use crate::runtime::metrics::Metrics;

    #[test]
    fn a_refusal_is_counted_under_its_reason() {
        let metrics = WebhookMetrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let patch = |held| Decision::Patch { operations: Vec::new(), warnings: Vec::new(), held };
        let refusal = Refusal { code: RefusalCode::NoBinding, message: "of pod secret-name".to_owned() };
        for decision in [patch(true), patch(false), patch(true), Decision::Refuse(refusal)] {
            metrics.admitted(&decision);
        }
        let text = Metrics::from(registry).text().unwrap();
        for line in [
            r#"ensign_admissions_total{outcome="Held",reason=""} 2"#,
            r#"ensign_admissions_total{outcome="Injected",reason=""} 1"#,
            r#"ensign_admissions_total{outcome="Allowed",reason=""} 0"#,
            r#"ensign_admissions_total{outcome="Refused",reason="NoBinding"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is missing: {text}");
        }
        assert!(!text.contains("secret-name"), "names are nobody's business");
    }
}
