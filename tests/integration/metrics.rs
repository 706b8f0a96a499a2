//! docs/metrics.md lists what the processes count: no more and no less.

use std::collections::BTreeSet;
use std::path::Path;

use ensign::controller::ControllerMetrics;
use ensign::runtime::metrics::Metrics;
use ensign::webhook::metrics::WebhookMetrics;
use prometheus_client::registry::Registry;

/// Name, type and labels of each metric of a process.
fn served(register: impl FnOnce(&mut Registry)) -> BTreeSet<(String, String, String)> {
    let mut registry = Registry::default();
    register(&mut registry);
    let text = Metrics::from(registry).text().expect("text");
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types
        .map(|(name, kind)| {
            let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
            let sample = text.lines().find(|line| line.starts_with(&name)).expect("a sample of each metric");
            let labels =
                sample.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(labels, _)| labels);
            let labels: Vec<&str> =
                labels.split(',').filter_map(|label| label.split_once('=')).map(|(label, _)| label).collect();
            (name, kind.to_owned(), labels.join(", "))
        })
        .collect()
}

#[test]
fn the_page_and_the_processes_agree() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md")).expect("read");
    let rows = page.lines().filter(|line| line.starts_with("| `ensign_"));
    let listed: BTreeSet<(String, String, String)> = rows
        .map(|row| {
            let cells: Vec<String> = row.split('|').map(|cell| cell.trim().replace('`', "")).collect();
            (cells[1].clone(), cells[2].clone(), cells[3].clone())
        })
        .collect();
    let controller = served(|registry| ControllerMetrics::default().register(registry));
    let webhook = served(|registry| WebhookMetrics::default().register(registry));
    assert_eq!(listed, &controller | &webhook);
}
