//! docs/metrics.md lists exactly the metrics of the processes; alerts and the dashboard use only those.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ensign_api::conditions::Reason;
use ensign_azure_emulator::{FaultAction, FaultAnswer, FaultMatch, FaultRule, LogKind};
use ensign_controller::ControllerMetrics;
use ensign_core::admission::{Decision, Denial, DenialCode};
use ensign_runtime::metrics::{Metrics, registry};
use ensign_webhook::metrics::{Mode, WebhookMetrics};
use prometheus_client::registry::Registry;
use serde_json::Value;

use ensign_testkit::objects::{condition_of, unique, wait_for};
use ensign_testkit::replica::ReplicaOptions;
use ensign_testkit::testbed::Testbed;

/// The metrics of a process as text.
fn text(register: impl FnOnce(&mut Registry)) -> String {
    let mut registry = registry();
    register(&mut registry);
    Metrics::from(registry).text().expect("text")
}

fn controller() -> String {
    text(|registry| ControllerMetrics::default().register(registry))
}

fn webhook() -> String {
    text(|registry| {
        let metrics = WebhookMetrics::default();
        metrics.register(registry);
        let refusal = Denial { code: DenialCode::NoBinding, message: String::new() };
        metrics.admitted(&Decision::Deny(refusal), Mode::Native);
    })
}

/// Name and type of each metric of a process, with its labels and their values.
fn served(text: &str) -> BTreeMap<(String, String), BTreeMap<String, BTreeSet<String>>> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types
        .map(|(name, kind)| {
            let name = match kind {
                "counter" => format!("{name}_total"),
                "info" => format!("{name}_info"),
                _ => name.to_owned(),
            };
            let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            let mut samples = 0;
            for line in text.lines().filter(|line| !line.starts_with('#')) {
                let rest = line.strip_prefix(&name).filter(|rest| rest.starts_with([' ', '{']));
                let Some(rest) = rest else { continue };
                samples += 1;
                let listed = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(list, _)| list);
                for (label, value) in listed.split(',').filter_map(|pair| pair.split_once('=')) {
                    labels.entry(label.to_owned()).or_default().insert(value.trim_matches('"').to_owned());
                }
            }
            assert!(samples > 0, "{name} has no sample at startup");
            ((name, kind.to_owned()), labels)
        })
        .collect()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("read")
}

#[test]
fn the_metrics_page_and_the_processes_agree() {
    let page = read("docs/metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| `ensign_"));
    let listed: BTreeSet<(String, String, BTreeSet<String>)> = rows
        .map(|row| {
            let cells: Vec<String> = row.split('|').map(|cell| cell.trim().replace('`', "")).collect();
            let labels = cells[3].split(", ").filter(|label| !label.is_empty()).map(str::to_owned).collect();
            (cells[1].clone(), cells[2].clone(), labels)
        })
        .collect();
    let found: BTreeSet<_> = [controller(), webhook()]
        .iter()
        .flat_map(|text| served(text))
        .map(|((name, kind), labels)| (name, kind, labels.into_keys().collect()))
        .collect();
    assert_eq!(listed, found);
}

/// A label and the values that a selector asks for.
type Matcher = (String, Vec<String>);

/// The names of metrics in an expression, each with its label selector.
fn used(expression: &str) -> Vec<(String, Vec<Matcher>)> {
    let mut found = Vec::new();
    for (at, _) in expression.match_indices("ensign_") {
        let rest = &expression[at..];
        let name = &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())];
        let selector = rest[name.len()..].strip_prefix('{').and_then(|rest| rest.split_once('}')).map(|(list, _)| list);
        let matchers = selector.into_iter().flat_map(|list| list.split(',')).map(|matcher| {
            let (label, values) = matcher.split_once(['=', '!']).expect("a matcher");
            let values = values.trim_matches(|c| "=~!\"".contains(c)).split('|').map(str::to_owned).collect();
            (label.trim().to_owned(), values)
        });
        found.push((name.to_owned(), matchers.collect()));
    }
    found
}

/// Checks that every metric of the expression exists, with the labels and values that it selects.
fn holds(expression: &str, labels_shown: &[&str]) {
    let counted: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = [controller(), webhook()]
        .iter()
        .flat_map(|text| served(text))
        .map(|((name, _), labels)| (name, labels))
        .collect();
    let used = used(expression);
    assert!(!used.is_empty(), "{expression} uses no metric of Ensign");
    for (name, matchers) in &used {
        let labels = counted.get(name).unwrap_or_else(|| panic!("there is no metric {name}: {expression}"));
        for (label, values) in matchers {
            let known = labels.get(label).unwrap_or_else(|| panic!("{name} has no label {label}: {expression}"));
            for value in values {
                let is_reason = label == "reason" && Reason::named(value).is_some();
                assert!(known.contains(value) || is_reason, "{name} is never {label}={value}: {expression}");
            }
        }
    }
    let (open, closed) = (expression.matches(['(', '{', '[']).count(), expression.matches([')', '}', ']']).count());
    assert_eq!(open, closed, "{expression}");
    for label in labels_shown {
        let grouped = expression.split("by (").skip(1).filter_map(|rest| rest.split_once(')'));
        let is_grouped = grouped.into_iter().any(|(list, _)| list.split(", ").any(|one| one == *label));
        assert!(is_grouped, "{label} is shown, but not kept by {expression}");
    }
}

/// The labels that a text refers to, between `open` and `}}`.
fn shown<'a>(text: &'a str, open: &str) -> Vec<&'a str> {
    text.split(open).skip(1).filter_map(|rest| rest.split("}}").next()).map(str::trim).collect()
}

#[test]
fn alerts_use_existing_metrics_and_link_to_their_runbook() {
    let file: Value = serde_saphyr::from_str(&read("charts/ensign/files/alerts.yaml")).expect("YAML");
    let rules: Vec<&Value> = file["groups"]
        .as_array()
        .expect("groups")
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules"))
        .collect();
    let page = read("docs/alerts.md");
    let headings: BTreeSet<&str> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let mut names = BTreeSet::new();
    for rule in rules {
        let name = rule["alert"].as_str().expect("a name");
        names.insert(name);
        let text = |key: &str| rule["annotations"][key].as_str().unwrap_or_default();
        for key in ["summary", "description"] {
            assert!(text(key).len() > 10, "{name} has no {key}");
        }
        assert_eq!(text("runbook_url"), format!("docs/alerts.md#{}", name.to_lowercase()));
        assert!(["critical", "warning"].contains(&rule["labels"]["severity"].as_str().unwrap_or_default()), "{name}");
        assert!(rule["for"].is_string(), "{name}");
        let annotations = format!("{} {}", text("summary"), text("description"));
        holds(rule["expr"].as_str().expect("an expression"), &shown(&annotations, "{{ $labels."));
    }
    assert_eq!(names, headings, "docs/alerts.md has a section for each alert and no other");
}

#[test]
fn the_dashboard_uses_existing_metrics() {
    let dashboard: Value = serde_json::from_str(&read("charts/ensign/files/dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut seen = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        assert!(!panel["description"].as_str().unwrap_or_default().is_empty(), "{title} has no description");
        assert!(seen.insert(panel["id"].to_string()), "{title} has the ID of another panel");
        for target in panel["targets"].as_array().expect("targets") {
            let expression = target["expr"].as_str().expect("an expression");
            holds(expression, &shown(target["legendFormat"].as_str().unwrap_or_default(), "{{"));
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            seen.extend(used(expression).into_iter().map(|(name, _)| name));
        }
    }
    for (name, _) in [controller(), webhook()].iter().flat_map(|text| served(text)).map(|(key, _)| key) {
        assert!(seen.contains(&name), "{name} is on no panel");
    }
}

#[test]
fn errors_from_azure_become_a_condition_and_a_metric_not_a_crash() {
    let testbed = Testbed::acquire();
    let team = testbed.team("trouble");
    let matching = FaultMatch {
        kind: Some(LogKind::ArmRead),
        path_contains: Some(format!("/{}", team.name)),
        ..FaultMatch::default()
    };
    let answer = FaultAnswer {
        status: 503,
        code: Some("ServiceUnavailable".to_owned()),
        message: Some("for the test".to_owned()),
        ..FaultAnswer::default()
    };
    let fault =
        FaultRule { matching, nth: 1, times: u64::MAX, action: FaultAction::Answer(answer), matched: 0, fired: 0 };
    testbed.azure.set_faults(vec![fault]);
    let metrics = ControllerMetrics::default();
    let mut registry = registry();
    metrics.register(&mut registry);
    let registry = Metrics::from(registry);
    let options = ReplicaOptions { metrics, ..ReplicaOptions::default() };
    let controller = testbed.start(&unique("trouble"), options);
    team.bind();
    wait_for("the failure to be counted and reported", || {
        let text = registry.text().expect("text");
        assert!(controller.is_ready(), "it stays ready");
        let failed = r#"ensign_arm_requests_total{operation="read_identity",status="5xx"}"#;
        let counted = text.lines().any(|line| line.starts_with(failed) && !line.ends_with(" 0"));
        let ready = condition_of(&team.get("mi", &team.name)?, "Ready")?["reason"].clone();
        let told = ready == "AzureUnavailable" && text.contains(r#"kind="managed_identity",reason="AzureUnavailable""#);
        (counted && told).then_some(())
    });
    testbed.azure.set_faults(Vec::new());
    team.wait_ready("app");
    let count = |text: &str, line: &str| text.lines().any(|found| found == line);
    wait_for("the objects to be counted", || {
        let text = registry.text().expect("text");
        let written = r#"ensign_credential_writes_total{kind="create",outcome="confirmed"} 1"#;
        // A reason that no object has any more is omitted.
        let cured = !text.contains(r#"reason="AzureUnavailable""#);
        (count(&text, written) && count(&text, "ensign_leader 1") && cured).then_some(())
    });
    assert_eq!(controller.stop(), Ok(()));
    assert!(count(&registry.text().expect("text"), "ensign_leader 0"));
}
