//! Text of CEL from values and from the words of the webhook.

/// Begins and ends a slot in a text; neither is in any word of Ensign's, and `{:?}` leaves both as they are.
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

/// What an expression stands for in a text that is written for values: see [`words`].
pub(super) fn slot(name: &str) -> String {
    format!("{OPEN}{name}{CLOSE}")
}

/// A text with slots as an expression. So a refusal is worded once, for the webhook, and said by both.
pub(super) fn words(text: &str, slots: &[(&str, &str)]) -> String {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, name, after)) = next_slot(rest) {
        if !before.is_empty() {
            parts.push(literal(before));
        }
        let expression = slots.iter().find(|(slot, _)| *slot == name).map(|(_, expression)| *expression);
        parts.push(expression.map_or_else(|| literal(name), |expression| format!("string({expression})")));
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(literal(rest));
    }
    parts.join(" + ")
}

fn next_slot(text: &str) -> Option<(&str, &str, &str)> {
    let (before, opened) = text.split_once(OPEN)?;
    let (name, after) = opened.split_once(CLOSE)?;
    Some((before, name, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_can_not_be_left() {
        assert_eq!(literal(r"it's a \ and"), r"'it\'s a \\ and'");
        assert_eq!(literal("two\nlines\r"), r"'two\nlines\r'");
        assert_eq!(literals(&["a", "b'"]), r"['a', 'b\'']");
    }

    #[test]
    fn a_pattern_matches_its_text_alone() {
        assert_eq!(escaped("/var/run/a.b"), r"/var/run/a\.b");
    }

    #[test]
    fn slots_become_expressions_and_the_rest_stays_text() {
        let text = format!("binding {:?} isn't {}", slot("name"), slot("state"));
        let slots = [("name", "params.metadata.name"), ("state", "variables.state")];
        assert_eq!(
            words(&text, &slots),
            r#"'binding "' + string(params.metadata.name) + '" isn\'t ' + string(variables.state)"#
        );
    }

    #[test]
    fn a_slot_that_nobody_fills_is_plain_text() {
        assert_eq!(words("a ⟦b⟧ c", &[]), "'a ' + 'b' + ' c'");
    }
}
