//! The invariants of docs/architecture.md that can be read from the source tree, by their numbers there, and rules about
//! files, functions and names.
//!
//! A rule that the tree does not obey everywhere has a list of exceptions. An exception that is no longer needed fails the
//! test as well, so that the lists only become shorter.

mod items;
mod modules;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use source::sources;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const MAX_LINES: usize = 500;
const MAX_FUNCTION_LINES: usize = 80;

/// Lines of code (comments and unit tests left out) that contain one of the words, as `file:line: text`.
fn lines_with(path: &str, words: &[&str], except: &[&str]) -> Vec<String> {
    let mut hits = Vec::new();
    for source in sources(path) {
        if except.iter().any(|allowed| source.path.starts_with(allowed)) {
            continue;
        }
        for (number, line) in source.lines.iter().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                hits.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    hits
}

fn none(hits: &[String], rule: &str) {
    assert!(hits.is_empty(), "{rule}\n{}", hits.join("\n"));
}

/// Names of the crates that a package of the workspace is built from, itself included, but for its tests.
fn built_from(package: &str) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--package", package, "--edges", "normal", "--prefix", "none"])
        .current_dir(ROOT)
        .output()
        .expect("run cargo tree");
    assert!(tree.status.success(), "cargo tree --package {package}: {}", String::from_utf8_lossy(&tree.stderr));
    let names = String::from_utf8_lossy(&tree.stdout);
    names.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn is_not_built_from(package: &str, forbidden: &[&str]) {
    let crates = built_from(package);
    assert!(crates.contains(package), "cargo tree lists the package itself");
    let found: Vec<&str> = forbidden.iter().copied().filter(|name| crates.contains(*name)).collect();
    assert!(found.is_empty(), "{package} must not be built from {found:?}: see docs/architecture.md");
}

/// Runtimes, clients and TLS.
const INPUT_AND_OUTPUT: &[&str] = &[
    "tokio",
    "hyper",
    "axum",
    "reqwest",
    "rustls",
    "aws-lc-rs",
    "aws-lc-sys",
    "kube-client",
    "kube-runtime",
    "azure_core",
    "azure_identity",
    "ensign-runtime",
    "ensign-azure",
    "ensign-controller",
    "ensign-webhook",
];
/// What only tests and development use.
const TESTS_ONLY: &[&str] = &["ensign-azure-emulator", "ensign-testkit", "ensign-faults"];

#[test]
fn invariant_1_decisions_are_pure() {
    is_not_built_from("ensign-core", INPUT_AND_OUTPUT);
    // The standard library is always there.
    let forbidden =
        ["async ", "std::fs", "std::env", "std::net::Tcp", "std::process", "Instant", "SystemTime", "Timestamp::now"];
    none(&lines_with("crates/core/src", &forbidden, &[]), "core does no I/O and reads no clock");
}

#[test]
fn invariant_2_the_api_depends_on_nothing_above_it() {
    is_not_built_from("ensign-api", INPUT_AND_OUTPUT);
    is_not_built_from("ensign-api", &["ensign-core"]);
}

#[test]
fn no_released_program_contains_test_code() {
    is_not_built_from("ensign", TESTS_ONLY);
}

#[test]
fn controller_and_webhook_do_not_depend_on_each_other() {
    is_not_built_from("ensign-controller", &["ensign-webhook", "ensign"]);
    is_not_built_from("ensign-webhook", &["ensign-controller", "ensign"]);
    is_not_built_from("ensign-azure", &["kube-client", "ensign-controller", "ensign-webhook"]);
    is_not_built_from("ensign-runtime", &["ensign-api", "ensign-core", "ensign-azure"]);
}

#[test]
fn invariant_3_one_file_writes_to_azure() {
    let writes = [
        "put_credential(",
        "delete_credential(",
        "arm.put_identity(",
        "arm.delete_identity(",
        "put_role_assignment(",
        "delete_role_assignment(",
    ];
    let own = "src/controller/writers/azure.rs";
    let clients = ["crates/azure/src/client.rs", "crates/azure/src/role_assignments.rs", own];
    for room in ["src", "crates/azure/src"] {
        none(&lines_with(room, &writes, &clients), "only controller/writers/azure.rs writes to Azure");
    }
    assert_eq!(lines_with(own, &writes, &[]).len(), 6, "and it does");
}

#[test]
fn every_request_to_arm_passes_the_gate() {
    let gate = "crates/azure/src/gate.rs";
    // One file sends, one creates what it sends with, and the client hands that to it.
    let sends = lines_with("crates/azure/src", &["pipeline.send(", "self.pipeline"], &[gate]);
    none(&sends, "only the gate sends requests to ARM, where --azure-allowed-scopes is checked");
    assert!(!lines_with(gate, &["self.pipeline.send("], &[]).is_empty(), "and it does");
    let creates = lines_with("crates/azure/src", &["Pipeline::new("], &["crates/azure/src/client.rs"]);
    none(&creates, "there is one pipeline to ARM");
    assert_eq!(lines_with("crates/azure/src/client.rs", &["Pipeline::new("], &[]).len(), 1);
    // Whatever else speaks HTTP does not know where ARM is.
    let http = ["crates/azure/src/http.rs", "crates/azure/src/check.rs", "crates/azure/src/exchange.rs"];
    none(&lines_with("crates/azure/src", &["http_client(", "reqwest::Client"], &http), "nothing else has a client");
    for file in http {
        none(&lines_with(file, &["arm_endpoint"], &[]), "it sends nothing to ARM");
    }
    none(&lines_with("src", &["reqwest::Client", "arm_endpoint"], &[]), "no client outside");
}

#[test]
fn invariant_4_one_room_of_each_process_writes_to_kubernetes() {
    let writes = [
        ".patch(",
        ".patch_status(",
        ".replace(",
        ".replace_status(",
        ".create(",
        ".delete(",
        ".delete_collection(",
        ".publish(",
        ".evict(",
        ".create_subresource(",
        ".replace_subresource(",
    ];
    let lease = "src/controller/engine/leader_election.rs";
    let allowed = ["src/controller/writers/kubernetes.rs", "src/controller/writers/injection.rs", lease];
    let elsewhere: Vec<String> = lines_with("src/controller", &writes, &["src/controller/writers/", lease])
        .into_iter()
        .chain(lines_with("src/webhook", &writes, &["src/webhook/certificates/"]))
        .collect();
    none(&elsewhere, "only controller/writers, leader election and the certificates write to Kubernetes");
    for file in allowed {
        assert!(!lines_with(file, &writes, &[]).is_empty(), "and {file} does");
    }
    let other_kinds = ["ManagedIdentity", "Recorder", "ServiceAccount", "MutatingWebhookConfiguration"];
    none(&lines_with(lease, &other_kinds, &[]), "leader election writes nothing but the Lease");
}

#[test]
fn invariant_5_the_webhook_makes_no_call_to_azure() {
    is_not_built_from("ensign-webhook", &["ensign-azure", "azure_core", "azure_identity", "reqwest"]);
}

#[test]
fn invariant_6_the_controller_takes_its_time_from_the_injected_clock() {
    let clocks = [
        "tokio::time::sleep",
        "thread::sleep",
        "tokio::time::interval",
        "Instant::now",
        "Timestamp::now",
        "SystemTime",
    ];
    none(&lines_with("src/controller", &clocks, &[]), "requeues go through the queue, on an injected clock");
}

#[test]
fn invariant_7_files_are_small() {
    let large: Vec<String> = ["src", "crates"]
        .into_iter()
        .flat_map(sources)
        .filter(|source| source.length > MAX_LINES)
        .map(|source| format!("{}: {} lines", source.path, source.length))
        .collect();
    none(&large, "split files of more than 500 lines before their tests");
}

#[test]
fn invariant_8_every_reason_is_explained() {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/conditions.md")).expect("read docs/conditions.md");
    // The first cell of each row; types of conditions stand in the second.
    let explained: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |")).map(|(reason, _)| reason).collect();
    let reasons: BTreeSet<&str> = ensign_api::conditions::Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    let shown = |names: Vec<&&str>| names.into_iter().map(ToString::to_string).collect::<Vec<_>>();
    none(&shown(reasons.difference(&explained).collect()), "docs/conditions.md explains each reason");
    none(&shown(explained.difference(&reasons).collect()), "docs/conditions.md explains no reason that there is not");
}

#[test]
fn every_entra_code_is_explained() {
    let page =
        fs::read_to_string(Path::new(ROOT).join("docs/troubleshooting.md")).expect("read docs/troubleshooting.md");
    for code in ensign_core::commands::entra_codes::CODES {
        let named = format!("AADSTS{}", code.number);
        assert!(page.contains(&named), "docs/troubleshooting.md does not explain {named}");
    }
}

#[test]
fn invariant_9_there_is_one_tls_provider() {
    for package in ["ensign", "ensign-azure-emulator"] {
        assert!(built_from(package).contains("aws-lc-rs"));
        is_not_built_from(package, &["ring", "openssl", "native-tls"]);
    }
}

/// Folders in which files must not use each other in a circle, each with the circles that are left.
const KNOWN_CYCLES: &[(&str, &[&[&str]])] =
    &[("crates/core/src", &[]), ("crates/azure/src", &[]), ("src/controller", &[]), ("src/webhook", &[])];

/// Functions that are longer than they should be, as `file: name`.
const KNOWN_LONG_FUNCTIONS: &[&str] = &[];

/// Names of public types that several files define, and why they may.
const KNOWN_HOMONYMS: &[(&str, &str)] = &[
    ("Annotations", "of a pod, of a service account as admission reads it, and of one as the controller writes it"),
    ("Config", "each module that is configured has one"),
    ("Follower", "each store of the webhook has one"),
    ("Index", "each store of the webhook has one"),
    ("Inputs", "what a plan of credentials is made from, and what one of roles is made from"),
    ("Mode", "who injects, and the value of a metric's label"),
];

/// Checks that a rule finds exactly the exceptions that are known.
fn only_known<T: Ord + std::fmt::Debug>(found: &BTreeSet<T>, known: &BTreeSet<T>, rule: &str) {
    let shown = |of: Vec<&T>| of.into_iter().map(|one| format!("    {one:?}")).collect::<Vec<_>>().join("\n");
    let new = shown(found.difference(known).collect());
    let stale = shown(known.difference(found).collect());
    assert!(new.is_empty(), "{rule}. Not known yet:\n{new}");
    assert!(stale.is_empty(), "{rule}. These exceptions are no longer needed; delete them:\n{stale}");
}

#[test]
fn files_do_not_use_each_other_in_a_circle() {
    for (root, known) in KNOWN_CYCLES {
        let graph = modules::graph(root, &sources(root));
        let known = known.iter().map(|cycle| cycle.iter().map(ToString::to_string).collect()).collect();
        let cycles = modules::cycles(&graph);
        for cycle in &cycles {
            for file in cycle {
                let used: Vec<&String> = graph[file].iter().filter(|used| cycle.contains(used)).collect();
                // Shown only if the test fails.
                println!("{root}/{file} uses {used:?}");
            }
            println!();
        }
        only_known(&cycles, &known, &format!("files of {root} must not use each other in a circle"));
    }
}

/// The rooms of the controller from the lowest floor to the highest; lib.rs only re-exports.
const CONTROLLER_FLOORS: &[&[&str]] = &[
    &["kube_names", "kube_request", "status_fingerprint"],
    &["engine", "error"],
    &["metrics"],
    &["cache"],
    &["writers"],
    &["cluster", "injection", "pods"],
    &["identity"],
    &["commands", "dispatch"],
    &["lifecycle"],
];

#[test]
fn rooms_of_the_controller_use_no_higher_floor() {
    let root = "src/controller";
    let mut graph = modules::graph(root, &sources(root));
    graph.remove("lib.rs");
    none(&modules::upward(&graph, CONTROLLER_FLOORS), "a room of the controller uses only rooms on its floor or below");
}

#[test]
fn no_function_is_longer_than_80_lines() {
    let long = ["src", "crates"].into_iter().flat_map(sources).flat_map(|source| {
        let functions = items::functions(&source).into_iter().filter(|(_, lines)| *lines > MAX_FUNCTION_LINES);
        functions.map(|(name, _)| format!("{}: {name}", source.path)).collect::<Vec<_>>()
    });
    let known = KNOWN_LONG_FUNCTIONS.iter().map(ToString::to_string).collect();
    only_known(&long.collect(), &known, "split functions of more than 80 lines");
}

#[test]
fn a_public_type_name_means_one_type() {
    let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in ["src", "crates/core/src"].into_iter().flat_map(sources) {
        for name in items::public_types(&source) {
            files.entry(name.to_owned()).or_default().push(source.path.clone());
        }
    }
    files.retain(|_, files| files.len() > 1);
    for (name, files) in &files {
        println!("{name}: {files:?}");
    }
    let known = KNOWN_HOMONYMS.iter().map(|(name, _)| (*name).to_owned()).collect();
    only_known(&files.into_keys().collect(), &known, "each public type has a name of its own");
}
