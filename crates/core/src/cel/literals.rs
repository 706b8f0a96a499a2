//! CEL literals and expressions from values and from the webhook's messages.

/// Delimiters of a placeholder. No message contains them, and `{:?}` does not escape them.
const OPEN: char = '⟦';
const CLOSE: char = '⟧';

/// A string literal.
pub(super) fn literal(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for c in text.chars() {
        match c {
            '\'' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            c => quoted.push(c),
        }
    }
    quoted.push('\'');
    quoted
}

/// A list of string literals.
pub(super) fn literals(texts: &[&str]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| literal(text)).collect();
    format!("[{}]", quoted.join(", "))
}

/// A regular expression that matches exactly this text.
pub(super) fn escaped(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if !c.is_ascii_alphanumeric() && !matches!(c, '/' | '-' | '_') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

/// A placeholder to pass to a function that formats a message: see [`template`].
pub(super) fn placeholder(name: &str) -> String {
    format!("{OPEN}{name}{CLOSE}")
}

/// A message with placeholders as a CEL expression that evaluates to it. `values` maps placeholders to expressions. In
/// this way, the webhook and the policies share one definition of each message.
pub(super) fn template(text: &str, values: &[(&str, &str)]) -> String {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, name, after)) = next_placeholder(rest) {
        if !before.is_empty() {
            parts.push(literal(before));
        }
        let expression = values.iter().find(|(known, _)| *known == name).map(|(_, expression)| *expression);
        parts.push(expression.map_or_else(|| literal(name), |expression| format!("string({expression})")));
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(literal(rest));
    }
    parts.join(" + ")
}

fn next_placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let (before, opened) = text.split_once(OPEN)?;
    let (name, after) = opened.split_once(CLOSE)?;
    Some((before, name, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_cannot_escape_from_its_literal() {
        assert_eq!(literal(r"it's a \ and"), r"'it\'s a \\ and'");
        assert_eq!(literal("two\nlines\r"), r"'two\nlines\r'");
        assert_eq!(literals(&["a", "b'"]), r"['a', 'b\'']");
    }

    #[test]
    fn an_escaped_pattern_matches_only_its_text() {
        assert_eq!(escaped("/var/run/a.b"), r"/var/run/a\.b");
    }

    #[test]
    fn placeholders_become_expressions_and_the_rest_literals() {
        let text = format!("binding {:?} isn't {}", placeholder("name"), placeholder("state"));
        let values = [("name", "params.metadata.name"), ("state", "variables.state")];
        assert_eq!(
            template(&text, &values),
            r#"'binding "' + string(params.metadata.name) + '" isn\'t ' + string(variables.state)"#
        );
    }

    #[test]
    fn a_placeholder_without_an_expression_becomes_its_name() {
        assert_eq!(template("a ⟦b⟧ c", &[]), "'a ' + 'b' + ' c'");
    }
}
