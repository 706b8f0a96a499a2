//! The webhook's metrics, documented in docs/metrics.md.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use arc_swap::ArcSwapOption;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric, LabelValueEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::certificates::Resolver;
use ensign_core::admission::{Decision, DenialCode};
use ensign_runtime::label_values;

/// The webhook's metrics. Copies count together.
#[derive(Clone, Debug, Default)]
pub struct WebhookMetrics {
    admissions: Family<Labels, Counter>,
    certificates: Certificates,
}

/// The expiry of the certificates that are served, read at each scrape.
#[derive(Clone, Debug, Default)]
struct Certificates(Arc<ArcSwapOption<Resolver>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabels {
    certificate: Certificate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Certificate {
    /// The certificate that is served.
    Leaf,
    /// The CA that signed it.
    Ca,
}

label_values!(Certificate { Leaf => "leaf", Ca => "ca" });

impl Collector for Certificates {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let expiry = self.0.load().as_ref().and_then(|resolver| resolver.expiry());
        let (leaf, ca) = expiry.map_or((0, 0), |expiry| (expiry.leaf.as_second(), expiry.authority.as_second()));
        let family: Family<CertificateLabels, Gauge<i64, AtomicI64>> = Family::default();
        for (certificate, until) in [(Certificate::Leaf, leaf), (Certificate::Ca, ca)] {
            family.get_or_create(&CertificateLabels { certificate }).set(until);
        }
        let (name, help) = ("ensign_certificate_expiry_timestamp_seconds", "Expiry of the webhook's certificate");
        family.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    outcome: AdmissionOutcome,
    reason: Why,
    mode: Mode,
}

/// The rules by which a pod was evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Ensign's own.
    Native,
    /// Those of azure-workload-identity, in compatibility mode.
    Compatible,
}

label_values!(Mode { Native => "native", Compatible => "compatible" });

/// The outcome of an admission review.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum AdmissionOutcome {
    Allowed,
    Injected,
    Gated,
    Denied,
}

label_values!(AdmissionOutcome { Allowed => "allowed", Injected => "injected", Gated => "gated", Denied => "denied" });

/// Why it was denied, if it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Why(Option<DenialCode>);

impl EncodeLabelValue for Why {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.0.map_or("", DenialCode::as_str), encoder)
    }
}

impl Labels {
    fn new(decision: &Decision, mode: Mode) -> Self {
        let (outcome, code) = match decision {
            Decision::Allow { .. } => (AdmissionOutcome::Allowed, None),
            Decision::Patch { gated: false, .. } => (AdmissionOutcome::Injected, None),
            Decision::Patch { gated: true, .. } => (AdmissionOutcome::Gated, None),
            Decision::Deny(refusal) => (AdmissionOutcome::Denied, Some(refusal.code)),
        };
        Self { outcome, reason: Why(code), mode }
    }
}

impl WebhookMetrics {
    /// Registers them, with those of every install at zero.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("ensign_admissions", "Pods that the API server sent for review", self.admissions.clone());
        for outcome in [AdmissionOutcome::Allowed, AdmissionOutcome::Injected, AdmissionOutcome::Gated] {
            drop(self.admissions.get_or_create(&Labels { outcome, reason: Why(None), mode: Mode::Native }));
        }
        registry.register_collector(Box::new(self.certificates.clone()));
    }

    /// Counts an admission review.
    pub fn admitted(&self, decision: &Decision, mode: Mode) {
        self.admissions.get_or_create(&Labels::new(decision, mode)).inc();
    }

    /// Reports the expiry of this resolver's certificates from now on.
    pub(super) fn watch(&self, resolver: &Arc<Resolver>) {
        self.certificates.0.store(Some(Arc::clone(resolver)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ensign_core::admission::Denial;
    use ensign_runtime::metrics::Metrics;

    #[test]
    fn a_denial_is_counted_with_its_reason() {
        let metrics = WebhookMetrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let patch = |gated| Decision::Patch { operations: Vec::new(), warnings: Vec::new(), gated };
        let refusal = Denial { code: DenialCode::NoBinding, message: "of pod secret-name".to_owned() };
        for decision in [patch(true), patch(false), patch(true), Decision::Deny(refusal)] {
            metrics.admitted(&decision, Mode::Native);
        }
        metrics.admitted(&patch(false), Mode::Compatible);
        let text = Metrics::from(registry).text().unwrap();
        for line in [
            r#"ensign_admissions_total{outcome="gated",reason="",mode="native"} 2"#,
            r#"ensign_admissions_total{outcome="injected",reason="",mode="native"} 1"#,
            r#"ensign_admissions_total{outcome="allowed",reason="",mode="native"} 0"#,
            r#"ensign_admissions_total{outcome="injected",reason="",mode="compatible"} 1"#,
            r#"ensign_admissions_total{outcome="denied",reason="no_binding",mode="native"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is missing: {text}");
        }
        assert!(!text.contains("secret-name"), "metrics must not contain names");
    }
}
