//! Fault injection: rules that make requests fail before or after they are applied.

use axum::http::Method;
use serde::{Deserialize, Serialize};

use super::log::LogKind;
use crate::state::Staleness;

/// Which requests a rule matches; what is absent matches all. The emulator's own endpoints never fail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FaultMatch {
    /// HTTP method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// A part of path and query, case-insensitive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_contains: Option<String>,
    /// What the request is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<LogKind>,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
#[expect(clippy::large_enum_variant, reason = "there are few rules, and tests build them")]
pub enum FaultAction {
    /// An action without parameters.
    Named(NamedAction),
    /// Wait, then continue normally.
    Delay(Delay),
    /// Return this response and apply nothing.
    Answer(FaultAnswer),
    /// Answer a read of ARM from an earlier state, and anything else normally.
    Stale(Stale),
}

/// Actions without parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamedAction {
    /// Close the connection and apply nothing.
    DropBefore,
    /// Apply, then close the connection.
    ApplyThenDrop,
    /// Apply, then return 500.
    #[serde(rename = "apply-then-500")]
    ApplyThen500,
    /// Return 200 with an HTML page and apply nothing, as a proxy might.
    Html,
    /// Apply, then return half of the JSON.
    TruncatedJson,
}

/// Wait, then continue normally.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Delay {
    /// How long, in milliseconds.
    pub delay_ms: u64,
}

/// Answer a read of ARM from an earlier state: `{"stale": {"seconds": 30}}` or `{"stale": {"upToSeconds": 30}}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stale {
    /// How old the state is.
    pub stale: Staleness,
}

/// Return this response and apply nothing: an error, unless `body`, `text` or `html` say otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultAnswer {
    /// HTTP status, from 200 to 599.
    pub status: u16,
    /// Error code. `AADSTS` and a number makes an error of Entra's token endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Error message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `Retry-After`: seconds, or an HTTP date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<String>,
    /// The whole body, instead of an error, for example outdated data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<serde_json::Value>,
    /// `target` of ARM's error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// `details` of ARM's error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<serde_json::Value>,
    /// `additionalInfo` of ARM's error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub additional_info: Option<serde_json::Value>,
    /// The whole body as text, for example the `Too Many Requests` with which Microsoft.Authorization throttles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Return an HTML page instead of JSON; with `text`, that one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub html: bool,
}

/// A fault rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultRule {
    /// Which requests it matches.
    #[serde(rename = "match", default)]
    pub matching: FaultMatch,
    /// The first matching request that fails, counted from 1.
    #[serde(default = "one")]
    pub nth: u64,
    /// How many fail, from that one on.
    #[serde(default = "one")]
    pub times: u64,
    /// How it fails.
    pub action: FaultAction,
    /// Matching requests so far.
    #[serde(default)]
    pub matched: u64,
    /// Failed requests so far.
    #[serde(default)]
    pub fired: u64,
}

fn one() -> u64 {
    1
}

/// The fault rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FaultPlan {
    rules: Vec<FaultRule>,
}

impl FaultPlan {
    pub(crate) fn new(rules: Vec<FaultRule>) -> Self {
        Self { rules }
    }

    pub(crate) fn rules(&self) -> &[FaultRule] {
        &self.rules
    }

    /// What happens to a request. Every matching rule counts it, and the first one that is due decides.
    pub(super) fn next(&mut self, method: &Method, target: &str, kind: LogKind) -> Option<FaultAction> {
        if kind == LogKind::Emulator {
            return None;
        }
        let mut due = None;
        for rule in self.rules.iter_mut().filter(|rule| rule.matching.matches(method, target, kind)) {
            rule.matched += 1;
            if due.is_none() && rule.matched >= rule.nth && rule.fired < rule.times {
                rule.fired += 1;
                due = Some(rule.action.clone());
            }
        }
        due
    }
}

impl FaultMatch {
    fn matches(&self, method: &Method, target: &str, kind: LogKind) -> bool {
        self.method.as_ref().is_none_or(|wanted| method.as_str().eq_ignore_ascii_case(wanted))
            && self.kind.is_none_or(|wanted| wanted == kind)
            && self.path_contains.as_ref().is_none_or(|part| target.to_lowercase().contains(&part.to_lowercase()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan(rules: serde_json::Value) -> FaultPlan {
        FaultPlan::new(serde_json::from_value(rules).unwrap())
    }

    #[test]
    fn a_rule_fires_from_its_nth_match_on_for_the_given_number_of_times() {
        let mut plan = plan(json!([{"match": {"method": "put"}, "nth": 2, "times": 2, "action": "apply-then-500"}]));
        let mut put = || plan.next(&Method::PUT, "/x", LogKind::ArmWrite).is_some();
        assert_eq!([put(), put(), put(), put()], [false, true, true, false]);
    }

    #[test]
    fn a_request_that_does_not_match_is_neither_counted_nor_failed() {
        let mut plan = plan(json!([{"match": {"kind": "token", "pathContains": "OAUTH2"}, "action": {"delayMs": 1}}]));
        assert_eq!(plan.next(&Method::POST, "/oauth2", LogKind::Discovery), None);
        assert_eq!(plan.next(&Method::POST, "/other", LogKind::Token), None);
        assert_eq!(plan.rules()[0].matched, 0);
        assert!(plan.next(&Method::POST, "/t/oauth2/v2.0/token", LogKind::Token).is_some());
    }

    #[test]
    fn the_emulators_own_endpoints_never_fail() {
        let mut plan = plan(json!([{"action": "drop-before", "times": 1000}]));
        assert_eq!(plan.next(&Method::GET, "/_emulator/log", LogKind::Emulator), None);
    }

    #[test]
    fn a_stale_answer_has_a_fixed_or_a_largest_age() {
        for (written, staleness) in [("seconds", Staleness::Seconds(30)), ("upToSeconds", Staleness::UpToSeconds(30))] {
            let rule: FaultRule = serde_json::from_value(json!({"action": {"stale": {written: 30}}})).unwrap();
            assert_eq!(rule.action, FaultAction::Stale(Stale { stale: staleness }));
            assert_eq!(json!(rule)["action"], json!({"stale": {written: 30}}));
        }
    }

    #[test]
    fn a_typo_in_a_rule_is_rejected() {
        for rule in [
            json!({"action": "drop"}),
            json!({"actoin": "html"}),
            json!({"action": {"delay": 1}}),
            json!({"action": {"stale": {}}}),
        ] {
            assert!(serde_json::from_value::<FaultRule>(rule.clone()).is_err(), "{rule}");
        }
    }
}
