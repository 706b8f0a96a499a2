//! The invariants of docs/architecture.md that can be read off the tree, by their numbers there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const MAX_LINES: usize = 500;

/// Source files below a folder or file of the repository, with their text up to their unit tests.
fn sources(under: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    collect(&Path::new(ROOT).join(under), &mut found);
    assert!(!found.is_empty(), "{under} has no sources: the test looks in the wrong place");
    found
}

fn collect(path: &Path, found: &mut Vec<(PathBuf, String)>) {
    if path.ends_with("tests") {
        return;
    }
    if path.is_dir() {
        let entries = fs::read_dir(path).expect("read a folder");
        return entries.for_each(|entry| collect(&entry.expect("an entry").path(), found));
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_source = path.extension().is_some_and(|extension| extension == "rs");
    if is_source && !name.contains("tests") {
        let text = fs::read_to_string(path).expect("read a source");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
        found.push((path.to_owned(), code));
    }
}

/// Lines of code (comments left out) that contain one of the words, as `file:line: text`.
fn lines_with(under: &str, words: &[&str], except: &[&str]) -> Vec<String> {
    let mut hits = Vec::new();
    for (path, code) in sources(under) {
        let shown = path.strip_prefix(ROOT).unwrap_or(&path).display().to_string();
        if except.iter().any(|allowed| shown.starts_with(allowed)) {
            continue;
        }
        for (number, line) in code.lines().enumerate() {
            if !line.trim_start().starts_with("//") && words.iter().any(|word| line.contains(word)) {
                hits.push(format!("{shown}:{}: {}", number + 1, line.trim()));
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
fn invariant_2_the_kinds_know_nothing_above_them() {
    is_not_built_from("ensign-api", INPUT_AND_OUTPUT);
    is_not_built_from("ensign-api", &["ensign-core"]);
}

#[test]
fn no_released_program_contains_what_is_for_tests() {
    is_not_built_from("ensign", TESTS_ONLY);
}

#[test]
fn the_processes_do_not_know_each_other() {
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
    let writer = "src/controller/writers/azure.rs";
    let clients = ["crates/azure/src/client.rs", "crates/azure/src/role_assignments.rs", writer];
    for room in ["src", "crates/azure/src"] {
        none(&lines_with(room, &writes, &clients), "only controller/writers/azure.rs writes to Azure");
    }
    assert_eq!(lines_with(writer, &writes, &[]).len(), 6, "and it does");
}

#[test]
fn invariant_4_one_file_of_each_process_writes_to_kubernetes() {
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
    let allowed = ["src/controller/writers/kubernetes.rs", lease];
    let elsewhere: Vec<String> = lines_with("src/controller", &writes, &allowed)
        .into_iter()
        .chain(lines_with("src/webhook", &writes, &["src/webhook/certificates/"]))
        .collect();
    none(&elsewhere, "only writers/kubernetes.rs, leader election and the certificates write to Kubernetes");
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
        .map(|(path, code)| (path, code.lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(path, lines)| format!("{}: {lines} lines", path.display()))
        .collect();
    none(&large, "a file that has grown beyond 500 lines before its tests wants to be two");
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
fn invariant_9_there_is_one_tls_provider() {
    for package in ["ensign", "ensign-azure-emulator"] {
        assert!(built_from(package).contains("aws-lc-rs"));
        is_not_built_from(package, &["ring", "openssl", "native-tls"]);
    }
}
