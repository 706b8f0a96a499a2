//! The API server accepts every object in the README, the docs and the examples.
//!
//! The language of a fenced block tells what it is: `yaml` is objects for the API server; `yaml fragment` is part of an object that the page
//! shows in full elsewhere; `yaml foreign` is of another project's kind, whose CRD is not installed here;
//! `yaml values` is for the chart, and `dev/tests/chart/test_docs.py` renders it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use ensign_testkit::control_plane::ControlPlane;
use ensign_testkit::ensign::Ensign;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Replaces `<guid>`.
const GUID: &str = "00000000-0000-4000-8000-000000000001";

/// A block of YAML and its location.
struct Block {
    place: String,
    kind: String,
    text: String,
}

fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("read a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|is| is == extension) {
            found.push(path);
        }
    }
}

fn shown(path: &Path) -> String {
    path.strip_prefix(ROOT).unwrap_or(path).display().to_string()
}

/// The fenced blocks of a page whose language is YAML. A fence can be indented, in a list.
fn fenced(path: &Path) -> Vec<Block> {
    let page = fs::read_to_string(path).expect("read a page");
    let mut found = Vec::new();
    let mut open: Option<(Option<Block>, usize)> = None;
    for (number, line) in page.lines().enumerate() {
        let (fence, indent) = (line.trim_start(), line.len() - line.trim_start().len());
        match &mut open {
            None => {
                if let Some(info) = fence.strip_prefix("```") {
                    let block = info.trim().strip_prefix("yaml").map(|kind| Block {
                        place: format!("{}:{}", shown(path), number + 1),
                        kind: kind.trim().to_owned(),
                        text: String::new(),
                    });
                    open = Some((block, indent));
                }
            }
            Some(_) if fence == "```" => found.extend(open.take().and_then(|(block, _)| block)),
            Some((Some(block), indent)) => {
                block.text.push_str(line.get(*indent..).unwrap_or_default());
                block.text.push('\n');
            }
            Some((None, _)) => {}
        }
    }
    assert!(open.is_none(), "{} ends within a block", shown(path));
    found
}

fn blocks() -> Vec<Block> {
    let root = Path::new(ROOT);
    let mut pages = vec![root.join("README.md"), root.join("SECURITY.md")];
    files(&root.join("docs"), "md", &mut pages);
    let mut found: Vec<Block> = pages.iter().flat_map(|page| fenced(page)).collect();
    let mut examples = Vec::new();
    files(&root.join("examples"), "yaml", &mut examples);
    found.extend(examples.iter().map(|path| Block {
        place: shown(path),
        kind: String::new(),
        text: fs::read_to_string(path).expect("read an example"),
    }));
    found
}

/// Fills in the placeholders of a page.
fn filled_in(text: &str) -> String {
    let text = text.replace("<guid>", GUID);
    let mut parts = text.split('<');
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once('>') {
            Some((name, rest)) if name.chars().all(|c| c.is_ascii_lowercase() || c == ' ') => {
                filled.push_str("placeholder");
                filled.push_str(rest);
            }
            _ => {
                filled.push('<');
                filled.push_str(part);
            }
        }
    }
    filled
}

fn documents(text: &str) -> Vec<String> {
    let text = filled_in(text);
    text.split("\n---\n").map(str::to_owned).collect()
}

fn values_of<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| line.trim().trim_start_matches("- ").strip_prefix(key)).map(str::trim)
}

/// The error of kubectl, if it rejects the text.
fn kubectl(control_plane: &ControlPlane, arguments: &[&str], text: &str) -> Result<(), String> {
    let mut child = control_plane
        .kubectl()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run kubectl");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("write to kubectl");
    let done = child.wait_with_output().expect("wait for kubectl");
    if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned()) }
}

/// Creates the namespaces and service accounts that objects of the docs refer to; a dry run creates nothing for the next one.
fn make_ground(control_plane: &ControlPlane, documents: &[String]) {
    let made = |arguments: &[&str]| {
        let done = control_plane.kubectl().arg("create").args(arguments).output().expect("run kubectl");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success() || said.contains("AlreadyExists"), "{said}");
    };
    for document in documents {
        for namespace in values_of(document, "namespace:") {
            made(&["namespace", namespace]);
        }
        if values_of(document, "kind:").any(|kind| kind == "Pod")
            && let Some(namespace) = values_of(document, "namespace:").next()
        {
            for account in values_of(document, "serviceAccountName:") {
                made(&["serviceaccount", account, "--namespace", namespace]);
            }
        }
    }
}

#[test]
fn the_api_server_accepts_every_object_of_the_docs() {
    let control_plane = Ensign::shared().control_plane;
    let mine: Vec<(String, String)> = blocks()
        .into_iter()
        .filter(|block| block.kind.is_empty())
        .flat_map(|block| documents(&block.text).into_iter().map(move |text| (block.place.clone(), text)))
        .collect();
    assert!(mine.len() > 10, "the test reads the wrong folder");
    let texts: Vec<String> = mine.iter().map(|(_, text)| text.clone()).collect();
    make_ground(control_plane, &texts);
    let mut rejected = Vec::new();
    for (place, text) in mine {
        // Whether a pod gets its identity is for other tests; no binding of the docs exists here.
        let text = text.replace("ensign.dev/inject: \"true\"", "ensign.dev/inject: \"false\"");
        let arguments = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename", "-"];
        if let Err(error) = kubectl(control_plane, &arguments, &text) {
            rejected.push(format!("{place}: {error}"));
        }
    }
    assert!(rejected.is_empty(), "{}", rejected.join("\n"));
}

#[test]
fn an_invalid_object_is_rejected_here_too() {
    let control_plane = Ensign::shared().control_plane;
    let wrong = documents(
        "apiVersion: ensign.dev/v1alpha1\nkind: ManagedIdentity\nmetadata:\n  name: wrong\nspec:\n  existing:\n    resourceId: <guid>\n",
    );
    let arguments = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename", "-"];
    let error = kubectl(control_plane, &arguments, &wrong[0]).expect_err("a typo is refused");
    assert!(error.contains("resourceId"), "{error}");
}

#[test]
fn blocks_that_are_not_applied_say_why() {
    let mut wrong = Vec::new();
    for block in blocks() {
        let apis: Vec<&str> = values_of(&block.text, "apiVersion:").collect();
        let own = apis.iter().any(|api| api.starts_with("ensign.dev/") || !api.contains('.'));
        let right = match block.kind.as_str() {
            "" => !apis.is_empty(),
            "foreign" => !apis.is_empty() && !own,
            "fragment" | "values" => apis.is_empty(),
            _ => false,
        };
        if !right {
            wrong.push(format!("{}: a block `yaml {}` can't be this", block.place, block.kind));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
