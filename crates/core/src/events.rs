//! Which status changes are reported as events.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use ensign_api::conditions::{ConditionType, Reason, Severity, Verdict, find};

/// An event to publish on an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The event's reason.
    pub reason: Reason,
    /// The event's text.
    pub message: String,
}

/// The Warning event for a new problem; `None` if the condition already has the same reason, or if there is no problem.
pub fn warning(before: &[Condition], kind: ConditionType, now: &Verdict) -> Option<Event> {
    let problem = matches!(now.reason.severity(), Severity::Terminal | Severity::Retrying);
    let known = find(before, kind).is_some_and(|condition| condition.reason == now.reason.as_str());
    (problem && !known).then(|| Event { reason: now.reason, message: now.message.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ensign_api::conditions::condition;
    use k8s_openapi::jiff::Timestamp;

    #[test]
    fn a_problem_is_reported_once() {
        let problem = Verdict::bad(Reason::NotAllowed, "ask the operator");
        assert_eq!(warning(&[], ConditionType::Ready, &problem).map(|event| event.reason), Some(Reason::NotAllowed));
        let known = [condition(ConditionType::Ready, &problem, None, &[], Timestamp::UNIX_EPOCH)];
        assert_eq!(warning(&known, ConditionType::Ready, &problem), None);
        let other = Verdict::bad(Reason::QuotaExceeded, "20/20");
        assert!(warning(&known, ConditionType::Ready, &other).is_some(), "a different problem gets its own event");
    }

    #[test]
    fn progress_and_success_are_not_reported() {
        assert_eq!(warning(&[], ConditionType::Ready, &Verdict::good(Reason::Ready, "")), None);
        assert_eq!(warning(&[], ConditionType::Ready, &Verdict::unknown(Reason::Pending, "")), None);
    }
}
