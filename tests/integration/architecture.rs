//! The invariants of docs/architecture.md that can be read off the tree, by their numbers there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const MAX_LINES: usize = 500;

/// Source files below a folder or file of `src`, with their text up to their unit tests.
fn sources(under: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    collect(&Path::new(ROOT).join("src").join(under), &mut found);
    assert!(!found.is_empty(), "src/{under} has no sources: the test looks in the wrong place");
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

#[test]
fn invariant_1_decisions_are_pure() {
    let forbidden = [
        "tokio",
        "async ",
        "std::fs",
        "std::env",
        "std::net::Tcp",
        "reqwest",
        "axum",
        "kube::Client",
        "kube::Api",
        "kube::api::",
        "kube::runtime",
        "kube_runtime",
        "crate::azure",
        "crate::controller",
        "crate::webhook",
        "crate::runtime",
        "crate::emulator",
        "Instant",
        "SystemTime",
        "Timestamp::now",
        "Clock",
    ];
    none(&lines_with("decide", &forbidden, &[]), "decide does no I/O, reads no clock and knows no client");
}

#[test]
fn invariant_2_the_kinds_know_nothing_above_them() {
    let above =
        ["decide", "azure", "controller", "webhook", "runtime", "emulator", "cli"].map(|room| format!("crate::{room}"));
    let above: Vec<&str> = above.iter().map(String::as_str).collect();
    none(&lines_with("api", &above, &[]), "api imports no module above it");
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
    let allowed = ["src/azure/arm.rs", "src/azure/authorization.rs", "src/controller/azure_writes.rs", "src/emulator/"];
    none(&lines_with("", &writes, &allowed), "only controller/azure_writes.rs writes to Azure");
    assert_eq!(lines_with("controller/azure_writes.rs", &writes, &[]).len(), 6, "and it does");
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
    let allowed = ["src/controller/kube_writes.rs", "src/controller/lease.rs"];
    let elsewhere: Vec<String> = lines_with("controller", &writes, &allowed)
        .into_iter()
        .chain(lines_with("webhook", &writes, &["src/webhook/certificates/"]))
        .collect();
    none(&elsewhere, "only kube_writes.rs, the lease and the certificates write to Kubernetes");
    for file in allowed {
        let under = file.trim_start_matches("src/");
        assert!(!lines_with(under, &writes, &[]).is_empty(), "and {file} does");
    }
    let other_kinds = ["ManagedIdentity", "Recorder", "ServiceAccount", "MutatingWebhookConfiguration"];
    none(&lines_with("controller/lease.rs", &other_kinds, &[]), "lease.rs writes nothing but the Lease");
}

#[test]
fn invariant_5_the_webhook_makes_no_call_to_azure() {
    none(
        &lines_with("webhook", &["crate::azure", "azure_core", "azure_identity", "reqwest"], &[]),
        "webhook knows no Azure",
    );
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
    none(&lines_with("controller", &clocks, &[]), "requeues go through the queue, on an injected clock");
}

#[test]
fn invariant_7_files_are_small() {
    let large: Vec<String> = sources("")
        .into_iter()
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
    let reasons: BTreeSet<&str> = ensign::api::conditions::Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    let shown = |names: Vec<&&str>| names.into_iter().map(ToString::to_string).collect::<Vec<_>>();
    none(&shown(reasons.difference(&explained).collect()), "docs/conditions.md explains each reason");
    none(&shown(explained.difference(&reasons).collect()), "docs/conditions.md explains no reason that there is not");
}

#[test]
fn invariant_9_there_is_one_tls_provider() {
    let lock = fs::read_to_string(Path::new(ROOT).join("Cargo.lock")).expect("read Cargo.lock");
    let has = |name: &str| lock.contains(&format!("name = \"{name}\"\n"));
    assert!(has("aws-lc-rs"));
    for other in ["ring", "openssl", "native-tls"] {
        if has(other) {
            // An optional dependency of a dependency is listed, but not built.
            let tree = std::process::Command::new(env!("CARGO"))
                .args(["tree", "--offline", "--features", "emulator", "--edges", "normal", "--prefix", "none"])
                .current_dir(ROOT)
                .output()
                .expect("run cargo tree");
            let built =
                String::from_utf8_lossy(&tree.stdout).lines().any(|line| line.starts_with(&format!("{other} v")));
            assert!(tree.status.success() && !built, "{other} is a second TLS provider");
        }
    }
}
