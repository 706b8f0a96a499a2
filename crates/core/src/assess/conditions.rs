//! Conditions from verdicts, in line with kstatus.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;

use ensign_api::conditions::{ConditionType, Reason, Severity, Verdict, condition};

/// The verdict `Ready`: that of the first verdict that does not hold, in the given order.
pub fn ready(verdicts: &[(ConditionType, Verdict)], good_message: &str) -> Verdict {
    match verdicts.iter().find(|(_, verdict)| !verdict.holds()) {
        Some((_, verdict)) => Verdict { status: Some(false), ..verdict.clone() },
        None => Verdict::good(Reason::Ready, good_message),
    }
}

/// All conditions: `Ready`, the verdicts, and `Reconciling` or `Stalled` while `Ready` does not hold.
pub fn conditions(
    ready: &Verdict,
    verdicts: &[(ConditionType, Verdict)],
    generation: Option<i64>,
    before: &[Condition],
    now: Timestamp,
) -> Vec<Condition> {
    let build = |kind, verdict: &Verdict| condition(kind, verdict, generation, before, now);
    let mut list = vec![build(ConditionType::Ready, ready)];
    list.extend(verdicts.iter().map(|(kind, verdict)| build(*kind, verdict)));
    let hint = match ready.reason.severity() {
        Severity::Good => None,
        Severity::Progressing | Severity::Retrying => Some(ConditionType::Reconciling),
        Severity::Terminal => Some(ConditionType::Stalled),
    };
    if let Some(kind) = hint.filter(|_| !ready.holds()) {
        list.push(build(kind, &Verdict { status: Some(true), ..ready.clone() }));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(list: &[Condition]) -> Vec<(&str, &str)> {
        list.iter().map(|condition| (condition.type_.as_str(), condition.status.as_str())).collect()
    }

    #[test]
    fn if_everything_holds_the_object_is_ready_and_neither_reconciling_nor_stalled() {
        let verdicts = [(ConditionType::Accepted, Verdict::good(Reason::Accepted, ""))];
        let list = conditions(&ready(&verdicts, "works"), &verdicts, Some(3), &[], Timestamp::UNIX_EPOCH);
        assert_eq!(kinds(&list), [("Ready", "True"), ("Accepted", "True")]);
        assert_eq!(list[0].observed_generation, Some(3));
    }

    #[test]
    fn a_terminal_reason_is_reported_as_stalled_so_that_tools_stop_waiting() {
        let verdicts = [(ConditionType::Accepted, Verdict::bad(Reason::NotAllowed, "ask"))];
        let list = conditions(&ready(&verdicts, ""), &verdicts, None, &[], Timestamp::UNIX_EPOCH);
        assert_eq!(kinds(&list), [("Ready", "False"), ("Accepted", "False"), ("Stalled", "True")]);
        assert_eq!((list[0].reason.as_str(), list[0].message.as_str()), ("NotAllowed", "ask"));
    }

    #[test]
    fn work_in_progress_is_reported_as_reconciling() {
        let verdicts = [(ConditionType::CredentialReady, Verdict::unknown(Reason::CredentialPending, "soon"))];
        let list = conditions(&ready(&verdicts, ""), &verdicts, None, &[], Timestamp::UNIX_EPOCH);
        assert_eq!(kinds(&list), [("Ready", "False"), ("CredentialReady", "Unknown"), ("Reconciling", "True")]);
    }

    #[test]
    fn a_transition_time_changes_only_with_the_status() {
        let verdicts = [(ConditionType::Accepted, Verdict::bad(Reason::NotAllowed, "ask"))];
        let first = conditions(&ready(&verdicts, ""), &verdicts, None, &[], Timestamp::UNIX_EPOCH);
        let later = Timestamp::from_second(60).unwrap();
        assert_eq!(conditions(&ready(&verdicts, ""), &verdicts, None, &first, later), first);
    }
}
