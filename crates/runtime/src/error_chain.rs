//! Formats an error together with its sources.

use std::error::Error;
use std::iter::successors;

/// The error and its sources on one line, joined by `: `, for logs and messages.
pub fn line(error: &dyn Error) -> String {
    join(error, ": ")
}

/// The error and its sources, one on each line, for a terminal.
pub fn lines(error: &dyn Error) -> String {
    join(error, "\n  caused by: ")
}

/// Leaves out a cause that the text already contains: some libraries repeat their sources in their own message.
fn join(error: &dyn Error, separator: &str) -> String {
    successors(error.source(), |cause| (*cause).source()).fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) { text } else { text + separator + &cause }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the token")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("no such file")]
    struct Inner;

    #[derive(Debug, thiserror::Error)]
    #[error("the client failed: {0}")]
    struct Repeating(#[source] Inner);

    #[test]
    fn every_source_appears_once() {
        assert_eq!(line(&Outer(Inner)), "cannot read the token: no such file");
        assert_eq!(lines(&Outer(Inner)), "cannot read the token\n  caused by: no such file");
        assert_eq!(line(&Repeating(Inner)), "the client failed: no such file");
    }
}
