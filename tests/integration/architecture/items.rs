//! Functions and types, read from rustfmt'd code: an item ends with a brace at the indentation it began at.

use super::source::{Source, indentation};

/// Names and lengths, in lines, of the functions of a file.
pub fn functions(source: &Source) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (number, line) in source.lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let end = format!("{}}}", " ".repeat(indentation(line)));
        let rest = &source.lines[number..];
        let signature = rest.iter().position(|line| line.ends_with('{') || line.ends_with('}') || line.ends_with(';'));
        let has_body = signature.is_some_and(|at| rest[at].ends_with('{'));
        if has_body && let Some(length) = rest.iter().position(|line| *line == end) {
            found.push((name.to_owned(), length + 1));
        }
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let qualifiers = ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe", "default"];
    let is_item = before.split_whitespace().all(|word| qualifiers.contains(&word) || word.starts_with("pub(in"));
    is_item.then(|| after.split(['(', '<']).next()).flatten()
}

/// Names of the public structs and enums that a file defines at its own level.
pub fn public_types(source: &Source) -> Vec<&str> {
    let name = |line: &'_ String| -> Option<(usize, usize)> {
        let rest = ["pub struct ", "pub enum "].iter().find_map(|start| line.strip_prefix(start))?;
        let length = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').count();
        Some((line.len() - rest.len(), length))
    };
    let all = source.lines.iter().filter_map(|line| name(line).map(|(start, length)| &line[start..start + length]));
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::super::source::without_tests;
    use super::*;

    #[test]
    fn functions_and_types_are_found_with_their_lengths() {
        let text = "\
pub struct One;
pub enum Two<T> {
    A(T),
}
struct Private;
impl One {
    pub(crate) async fn method(
        &self,
    ) -> u8 {
        loop {
        }
    }
}
trait Three {
    fn declared(&self);
}
fn short() {}
";
        let source = Source { path: String::new(), lines: without_tests(text), length: 0 };
        assert_eq!(functions(&source), [("method".to_owned(), 6)]);
        assert_eq!(public_types(&source), ["One", "Two"]);
    }
}
