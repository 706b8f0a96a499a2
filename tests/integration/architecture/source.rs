//! Source files without their tests and comments.

use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A source file, without what only tests see.
pub struct Source {
    /// The path from the root of the repository.
    pub path: String,
    /// Its lines: those of comments and of `#[cfg(test)]` items are empty, so that numbers stay right.
    pub lines: Vec<String>,
    /// How many lines there are before the unit tests.
    pub length: usize,
}

/// The source file of this path, or the sources below a folder, sorted by path; files of tests are left out.
pub fn sources(path: &str) -> Vec<Source> {
    let mut files = Vec::new();
    collect(&Path::new(ROOT).join(path), &mut files);
    assert!(!files.is_empty(), "{path} contains no source: the test reads the wrong folder");
    files.sort();
    files.iter().map(|file| read(file)).collect()
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if path.is_dir() && name != "tests" {
        for entry in fs::read_dir(path).expect("read a folder") {
            collect(&entry.expect("read a folder").path(), files);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") && !name.contains("tests") {
        files.push(path.to_owned());
    }
}

fn read(file: &Path) -> Source {
    let path = file.strip_prefix(ROOT).expect("a file of the repository").display().to_string();
    let text = fs::read_to_string(file).expect("read a source file");
    let length = text.split("#[cfg(test)]").next().unwrap_or_default().lines().count();
    Source { path, lines: without_tests(&text), length }
}

/// The lines of rustfmt'd code, those of comments and of items under `#[cfg(test)]` empty.
pub fn without_tests(text: &str) -> Vec<String> {
    let mut kept = Vec::new();
    // The indentation of the test item that is being skipped, and whether its body has begun.
    let mut skipped: Option<usize> = None;
    for line in text.lines() {
        let indentation = indentation(line);
        let trimmed = line.trim();
        if let Some(item) = skipped {
            kept.push(String::new());
            let is_attribute = trimmed.starts_with("#[");
            let ends = indentation == item && !is_attribute && (trimmed.ends_with(';') || trimmed.ends_with('}'));
            skipped = if ends { None } else { Some(item) };
        } else if trimmed == "#[cfg(test)]" {
            kept.push(String::new());
            skipped = Some(indentation);
        } else if trimmed.starts_with("//") {
            kept.push(String::new());
        } else {
            kept.push(line.to_owned());
        }
    }
    kept
}

pub fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

#[test]
fn comments_and_test_items_are_left_out_and_line_numbers_kept() {
    let text = "\
//! About.
use a::b;
#[cfg(test)]
#[path = \"tests.rs\"]
mod tests;
#[cfg(test)]
mod more {
    fn test() {}
}
fn real() {}
";
    let lines = without_tests(text);
    assert_eq!(lines.len(), 10);
    let kept: Vec<&str> = lines.iter().map(String::as_str).filter(|line| !line.is_empty()).collect();
    assert_eq!(kept, ["use a::b;", "fn real() {}"]);
}
