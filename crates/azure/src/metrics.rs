//! Metrics of requests to ARM, documented in docs/metrics.md.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::error::{ArmErrorCause, Operation};
use ensign_core::scheduling::rate_limiter::Deferral;
use ensign_runtime::label_values;

/// The metrics of requests to ARM. Copies count together.
#[derive(Clone, Debug, Default)]
pub struct AzureMetrics {
    requests: Family<RequestLabels, Counter>,
    postponed: Family<PostponedLabels, Counter>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    operation: &'static str,
    status: Status,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PostponedLabels {
    cause: Cause,
}

/// How ARM answered, as a closed set: statuses that mean something by themselves, and the classes of all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Status {
    Success,
    Known(&'static str),
    ClientError,
    ServerError,
    /// Neither a success nor an error, such as a redirect, or a body that can't be understood.
    Unexpected,
    NoAnswer,
    NoToken,
}

/// Statuses with a meaning of their own.
const KNOWN: [(u16, &str); 5] = [(401, "401"), (403, "403"), (404, "404"), (409, "409"), (429, "429")];

/// Why a request was not sent yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Cause {
    /// It would have gone beyond Azure's limits.
    Limit,
    /// Azure sent `Retry-After`, or a request just failed.
    Pause,
}

label_values!(Cause { Limit => "limit", Pause => "pause" });

impl Status {
    const REST: [Self; 6] =
        [Self::Success, Self::ClientError, Self::ServerError, Self::Unexpected, Self::NoAnswer, Self::NoToken];

    fn all() -> impl Iterator<Item = Self> {
        KNOWN.into_iter().map(|(_, text)| Self::Known(text)).chain(Self::REST)
    }

    fn of(status: u16) -> Self {
        if let Some((_, text)) = KNOWN.iter().find(|(known, _)| *known == status) {
            return Self::Known(text);
        }
        match status {
            200..=299 => Self::Success,
            400..=499 => Self::ClientError,
            500..=599 => Self::ServerError,
            _ => Self::Unexpected,
        }
    }

    /// Nothing for what was never sent.
    fn of_error(cause: &ArmErrorCause) -> Option<Self> {
        match cause {
            ArmErrorCause::Refused { status, .. } => Some(Self::of(*status)),
            ArmErrorCause::Unreadable(_) => Some(Self::Unexpected),
            ArmErrorCause::Credential(_) => Some(Self::NoToken),
            ArmErrorCause::Transport(_) | ArmErrorCause::Deadline(_) => Some(Self::NoAnswer),
            ArmErrorCause::OutOfScope(_) | ArmErrorCause::NotSent(_) => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Success => "2xx",
            Self::Known(text) => text,
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
            Self::Unexpected => "unexpected",
            Self::NoAnswer => "no_answer",
            Self::NoToken => "no_token",
        }
    }
}

impl EncodeLabelValue for Status {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

impl AzureMetrics {
    /// Puts them into the registry of a process, at zero.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("ensign_arm_requests", "Requests to Azure Resource Manager", self.requests.clone());
        registry.register(
            "ensign_arm_requests_postponed",
            "Requests to Azure Resource Manager that had to wait",
            self.postponed.clone(),
        );
        for operation in Operation::ALL.into_iter().chain(Operation::OF_ROLES) {
            for status in Status::all() {
                drop(self.requests.get_or_create(&RequestLabels { operation: operation.as_str(), status }));
            }
        }
        for cause in [Cause::Limit, Cause::Pause] {
            drop(self.postponed.get_or_create(&PostponedLabels { cause }));
        }
    }

    /// Counts what became of a request.
    pub(super) fn answered<T>(&self, operation: Operation, answer: &Result<T, ArmErrorCause>) {
        let status = match answer {
            Ok(_) => Some(Status::Success),
            Err(ArmErrorCause::NotSent(refusal)) => {
                self.postponed(refusal);
                None
            }
            Err(cause) => Status::of_error(cause),
        };
        if let Some(status) = status {
            self.requests.get_or_create(&RequestLabels { operation: operation.as_str(), status }).inc();
        }
    }

    /// Counts a request, or several that go out together, that has to wait.
    pub fn postponed(&self, refusal: &Deferral) {
        let cause = match refusal {
            Deferral::RateLimited { .. } => Cause::Limit,
            Deferral::Paused { .. } => Cause::Pause,
        };
        self.postponed.get_or_create(&PostponedLabels { cause }).inc();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use ensign_runtime::metrics::Metrics;

    fn refused(status: u16) -> Result<(), ArmErrorCause> {
        let (code, message) = ("Code-of-tenant-x".to_owned(), String::new());
        Err(ArmErrorCause::Refused { status, code, message, details: Vec::new(), retry_after: None })
    }

    #[test]
    fn every_answer_counts_under_one_of_a_few_statuses() {
        let metrics = AzureMetrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let lines = |registry: &Metrics| registry.text().unwrap().lines().count();
        let registry = Metrics::from(registry);
        let before = lines(&registry);
        for status in 100..=599 {
            metrics.answered(Operation::PutCredential, &refused(status));
        }
        metrics.answered(Operation::ReadIdentity, &Ok(()));
        metrics.answered::<()>(Operation::ReadIdentity, &Err(ArmErrorCause::Deadline(Duration::ZERO)));
        metrics.answered::<()>(Operation::ReadIdentity, &Err(ArmErrorCause::OutOfScope(String::new())));
        let paced = Deferral::RateLimited { wait: Duration::ZERO };
        metrics.answered::<()>(Operation::ReadIdentity, &Err(ArmErrorCause::NotSent(paced)));
        let text = registry.text().unwrap();
        assert_eq!(lines(&registry), before, "no answer makes a new series: {text}");
        for line in [
            r#"ensign_arm_requests_total{operation="put_credential",status="429"} 1"#,
            r#"ensign_arm_requests_total{operation="put_credential",status="4xx"} 95"#,
            r#"ensign_arm_requests_total{operation="put_credential",status="5xx"} 100"#,
            r#"ensign_arm_requests_total{operation="read_identity",status="2xx"} 1"#,
            r#"ensign_arm_requests_total{operation="read_identity",status="no_answer"} 1"#,
            r#"ensign_arm_requests_postponed_total{cause="limit"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is missing: {text}");
        }
        assert!(!text.contains("tenant-x"));
    }
}
