//! Which file of a crate uses which: read from paths that begin with `crate`, `self`, `super` or the name of a child module.

use std::collections::{BTreeMap, BTreeSet};

use super::source::Source;

/// A path of modules below the crate's root.
type ModulePath = Vec<String>;

/// A path in the source, and how it is used.
#[derive(Debug, PartialEq, Eq)]
struct Reference {
    segments: Vec<String>,
    /// The name it gets in the module, if it is imported.
    import: Option<String>,
    /// It is re-exported: others use it, not this file.
    is_reexport: bool,
}

struct Module {
    path: ModulePath,
    references: Vec<Reference>,
}

/// The files that each file uses, by their paths below `root`.
pub fn graph(root: &str, sources: &[Source]) -> BTreeMap<String, BTreeSet<String>> {
    let files: BTreeMap<ModulePath, &str> =
        sources.iter().map(|source| (module_path(root, &source.path), below(root, &source.path))).collect();
    let modules: BTreeMap<ModulePath, Module> = sources
        .iter()
        .map(|source| {
            let path = module_path(root, &source.path);
            let is_child = |name: &str| files.contains_key(&joined(&path, name));
            let references = references(&source.lines.join("\n"), &path, is_child);
            (path.clone(), Module { path, references })
        })
        .collect();
    let mut graph = BTreeMap::new();
    for (path, module) in &modules {
        let used = module.references.iter().filter(|reference| !reference.is_reexport);
        let targets = used.filter_map(|reference| resolve(&modules, &reference.segments, 8));
        let targets: BTreeSet<String> =
            targets.filter(|target| target != path).map(|target| files[&target].to_owned()).collect();
        graph.insert(files[path].to_owned(), targets);
    }
    graph
}

/// Groups of files that use each other in a circle, each sorted; empty if there is none.
pub fn cycles(graph: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<Vec<String>> {
    let reachable: BTreeMap<&str, BTreeSet<&str>> =
        graph.keys().map(|file| (file.as_str(), from(graph, file))).collect();
    let mut groups = BTreeSet::new();
    for (file, others) in &reachable {
        let group: Vec<String> =
            others.iter().filter(|other| reachable[*other].contains(file)).map(|other| (*other).to_owned()).collect();
        if !group.is_empty() {
            groups.insert(group);
        }
    }
    groups
}

/// Uses of a higher floor by a lower one, and files of rooms that have no floor.
pub fn upward(graph: &BTreeMap<String, BTreeSet<String>>, floors: &[&[&str]]) -> Vec<String> {
    let floor = |file: &str| {
        let room = file.split('/').next().unwrap_or_default().trim_end_matches(".rs");
        floors.iter().position(|rooms| rooms.contains(&room))
    };
    let mut found = Vec::new();
    for (file, used) in graph {
        let Some(own) = floor(file) else {
            found.push(format!("{file} is on no floor"));
            continue;
        };
        let higher = used.iter().filter(|used| floor(used).is_some_and(|floor| floor > own));
        found.extend(higher.map(|used| format!("{file} uses {used}")));
    }
    found
}

/// Every file that a file uses, directly or through others.
fn from<'a>(graph: &'a BTreeMap<String, BTreeSet<String>>, file: &str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut next: Vec<&str> = graph[file].iter().map(String::as_str).collect();
    while let Some(one) = next.pop() {
        if found.insert(one) {
            next.extend(graph[one].iter().map(String::as_str));
        }
    }
    found
}

fn below<'a>(root: &str, path: &'a str) -> &'a str {
    path.strip_prefix(root).expect("a file below the root").trim_start_matches('/')
}

fn module_path(root: &str, path: &str) -> ModulePath {
    let stem = below(root, path).trim_end_matches(".rs");
    let stem = stem.strip_suffix("/mod").unwrap_or(stem);
    if stem == "lib" { Vec::new() } else { stem.split('/').map(str::to_owned).collect() }
}

fn joined(path: &[String], name: &str) -> ModulePath {
    [path, &[name.to_owned()]].concat()
}

/// The module that defines what a path names: through the imports and re-exports of the modules on the way.
fn resolve(modules: &BTreeMap<ModulePath, Module>, segments: &[String], depth: u8) -> Option<ModulePath> {
    let known = (0..=segments.len()).rev().find(|length| modules.contains_key(&segments[..*length]))?;
    let module = &modules[&segments[..known]];
    let Some(item) = segments.get(known).filter(|_| depth > 0) else { return Some(module.path.clone()) };
    let import = module.references.iter().find(|reference| reference.import.as_ref() == Some(item));
    match import {
        Some(import) if import.segments != segments => resolve(modules, &import.segments, depth - 1),
        _ => Some(module.path.clone()),
    }
}

/// The paths in a module's source that lead to modules of its crate, from the crate's root.
fn references(text: &str, module: &[String], is_child: impl Fn(&str) -> bool) -> Vec<Reference> {
    let mut found = Vec::new();
    let mut at = 0;
    // Everything since the end of the last statement, to tell `use` and `pub use` from expressions.
    let mut statement = 0;
    let bytes = text.as_bytes();
    while at < bytes.len() {
        if !is_identifier(bytes[at]) {
            if matches!(bytes[at], b';' | b'{' | b'}') {
                statement = at + 1;
            }
            at += 1;
            continue;
        }
        let end = at + bytes[at..].iter().take_while(|byte| is_identifier(**byte)).count();
        let (word, begins_path) = (&text[at..end], !text[..at].ends_with("::"));
        let base = match word {
            "crate" => Some(Vec::new()),
            "self" => Some(module.to_vec()),
            "super" => module.split_last().map(|(_, parent)| parent.to_vec()),
            child if is_child(child) => Some(joined(module, child)),
            _ => None,
        };
        if let Some(base) = base.filter(|_| begins_path && text[end..].starts_with("::")) {
            let before: Vec<&str> = text[statement..at].split_whitespace().collect();
            let is_use = before.last() == Some(&"use");
            let is_reexport = is_use && before.iter().any(|word| word.starts_with("pub"));
            let mut paths = Vec::new();
            at = tree(text, end + 2, &base, &mut paths);
            found.extend(paths.into_iter().map(|(segments, name)| Reference {
                segments,
                import: name.filter(|_| is_use),
                is_reexport,
            }));
        } else {
            at = end;
        }
    }
    found
}

/// Reads a path, or all paths of a tree in braces, from where its first `::` has ended; returns where it ends.
fn tree(text: &str, start: usize, base: &[String], found: &mut Vec<(Vec<String>, Option<String>)>) -> usize {
    let bytes = text.as_bytes();
    let skip = |mut at: usize| {
        while at < bytes.len() && bytes[at].is_ascii_whitespace() {
            at += 1;
        }
        at
    };
    let mut at = skip(start);
    if text[at..].starts_with('{') {
        at = skip(at + 1);
        while at < bytes.len() && bytes[at] != b'}' {
            at = skip(tree(text, at, base, found));
            if text[at..].starts_with(',') {
                at = skip(at + 1);
            }
        }
        return at + 1;
    }
    if text[at..].starts_with('*') {
        found.push((base.to_vec(), None));
        return at + 1;
    }
    let end = at + bytes[at..].iter().take_while(|byte| is_identifier(**byte)).count();
    let word = &text[at..end];
    let path = match word {
        "self" => base.to_vec(),
        "super" => base.split_last().map(|(_, parent)| parent.to_vec()).unwrap_or_default(),
        _ => joined(base, word),
    };
    if end == at {
        // Not a path after all, such as the `::` of a generic argument.
        found.push((base.to_vec(), None));
        return at + 1;
    }
    if text[end..].starts_with("::") {
        return tree(text, end + 2, &path, found);
    }
    let after = skip(end);
    if let Some(rest) = text[after..].strip_prefix("as ") {
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let end = after + "as ".len() + name.len();
        found.push((path, Some(name)));
        return end;
    }
    let name = path.last().cloned();
    found.push((path, name));
    end
}

fn is_identifier(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: format!("src/{path}"), lines: text.lines().map(str::to_owned).collect(), length: 0 }
    }

    fn uses(files: &[(&str, &str)]) -> BTreeMap<String, BTreeSet<String>> {
        let sources: Vec<Source> = files.iter().map(|(path, text)| source(path, text)).collect();
        graph("src", &sources)
    }

    fn list(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn paths_of_every_form_are_edges() {
        let graph = uses(&[
            ("lib.rs", "pub mod a;\npub mod b;\n"),
            ("a/mod.rs", "mod x;\nuse self::x::One;\npub fn f() { crate::b::g(); }\n"),
            ("a/x.rs", "use super::{self, y::Two};\nuse crate::{b::{self as other, C}};\n"),
            ("a/y.rs", "fn f() -> Vec<super::super::b::C> { super::x::h::<u8>() }\n"),
            ("b.rs", "pub struct C;\n"),
        ]);
        assert_eq!(graph["a/mod.rs"], list(&["a/x.rs", "b.rs"]));
        assert_eq!(graph["a/x.rs"], list(&["a/mod.rs", "a/y.rs", "b.rs"]));
        assert_eq!(graph["a/y.rs"], list(&["a/x.rs", "b.rs"]));
        assert_eq!(graph["lib.rs"], list(&[]));
    }

    #[test]
    fn a_reexport_is_no_use_and_leads_to_where_the_item_is_defined() {
        let graph = uses(&[
            ("lib.rs", "pub mod a;\n"),
            ("a/mod.rs", "mod x;\nmod y;\npub use x::One;\npub(crate) use self::y::{Two, three as four};\n"),
            ("a/x.rs", "use super::Two;\n"),
            ("a/y.rs", "fn f() { crate::a::four(); }\npub struct Two;\n"),
        ]);
        assert_eq!(graph["a/mod.rs"], list(&[]));
        assert_eq!(graph["a/x.rs"], list(&["a/y.rs"]));
        assert_eq!(graph["a/y.rs"], list(&[]));
    }

    #[test]
    fn a_child_that_uses_its_parent_and_is_called_by_it_is_a_cycle() {
        let graph = uses(&[
            ("lib.rs", "pub mod a;\npub mod b;\n"),
            ("a/mod.rs", "mod x;\npub struct Config;\npub fn f() { x::g() }\n"),
            ("a/x.rs", "use super::Config;\n"),
            ("b.rs", "use crate::a::Config;\n"),
        ]);
        assert_eq!(cycles(&graph), BTreeSet::from([vec!["a/mod.rs".to_owned(), "a/x.rs".to_owned()]]));
    }

    #[test]
    fn a_use_of_a_higher_floor_is_found_and_so_is_a_room_without_a_floor() {
        let graph = uses(&[
            ("low.rs", "use crate::high::x::One;\n"),
            ("high/mod.rs", "mod x;\nuse crate::low::Two;\n"),
            ("high/x.rs", "use super::y;\n"),
            ("new.rs", ""),
        ]);
        assert_eq!(upward(&graph, &[&["low"], &["high"]]), ["low.rs uses high/x.rs", "new.rs is on no floor"]);
    }
}
