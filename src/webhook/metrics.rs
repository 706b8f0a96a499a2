//! What the webhook counts. docs/metrics.md explains each.

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

/// The webhook's metrics. Copies count together.
#[derive(Clone, Debug, Default)]
pub struct WebhookMetrics {
    admissions: Family<Labels, Counter>,
    certificates: Certificates,
}

/// When the certificates that are served expire, read at each scrape.
#[derive(Clone, Debug, Default)]
struct Certificates(Arc<ArcSwapOption<Resolver>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabels {
    certificate: Certificate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Certificate {
    /// The one that is served.
    Leaf,
    /// That of the authority that signed it.
    Authority,
}

impl Collector for Certificates {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let expiry = self.0.load().as_ref().and_then(|resolver| resolver.expiry());
        let (leaf, authority) = expiry.map_or((0, 0), |expiry| (expiry.leaf.as_second(), expiry.authority.as_second()));
        let family: Family<CertificateLabels, Gauge<i64, AtomicI64>> = Family::default();
        for (certificate, until) in [(Certificate::Leaf, leaf), (Certificate::Authority, authority)] {
            family.get_or_create(&CertificateLabels { certificate }).set(until);
        }
        let (name, help) = ("ensign_certificate_expiry_timestamp_seconds", "When a certificate of the webhook expires");
        family.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    outcome: AdmissionOutcome,
    reason: Why,
    mode: Mode,
}

/// By which rules a pod was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Mode {
    /// Ensign's own.
    Native,
    /// Those of azure-workload-identity, in compatibility mode.
    Compatible,
}

/// What became of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum AdmissionOutcome {
    Allowed,
    Injected,
    Held,
    Refused,
}

/// Why it was refused, if it was.
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
            Decision::Patch { gated: true, .. } => (AdmissionOutcome::Held, None),
            Decision::Deny(refusal) => (AdmissionOutcome::Refused, Some(refusal.code)),
        };
        Self { outcome, reason: Why(code), mode }
    }
}

impl WebhookMetrics {
    /// Puts them into the registry of a process, those that every install has at zero.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("ensign_admissions", "Pods that the API server asked about", self.admissions.clone());
        for outcome in [AdmissionOutcome::Allowed, AdmissionOutcome::Injected, AdmissionOutcome::Held] {
            drop(self.admissions.get_or_create(&Labels { outcome, reason: Why(None), mode: Mode::Native }));
        }
        registry.register_collector(Box::new(self.certificates.clone()));
    }

    /// Counts a pod.
    pub fn admitted(&self, decision: &Decision, mode: Mode) {
        self.admissions.get_or_create(&Labels::new(decision, mode)).inc();
    }

    /// Tells from now on when what this resolver serves expires.
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
    fn a_refusal_is_counted_under_its_reason() {
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
            r#"ensign_admissions_total{outcome="Held",reason="",mode="Native"} 2"#,
            r#"ensign_admissions_total{outcome="Injected",reason="",mode="Native"} 1"#,
            r#"ensign_admissions_total{outcome="Allowed",reason="",mode="Native"} 0"#,
            r#"ensign_admissions_total{outcome="Injected",reason="",mode="Compatible"} 1"#,
            r#"ensign_admissions_total{outcome="Refused",reason="NoBinding",mode="Native"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is missing: {text}");
        }
        assert!(!text.contains("secret-name"), "names are nobody's business");
    }
}
