//! Problems with the flags of a subcommand, reported all at once: otherwise each would cost another restart of a pod.

use std::fmt::Display;
use std::ops::RangeInclusive;

use super::{Failure, Usage};

/// Problems, each of which names its flag or variable.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<String>);

impl Problems {
    pub(super) fn require(&mut self, valid: bool, problem: impl FnOnce() -> String) {
        if !valid {
            self.0.push(problem());
        }
    }

    /// Records the problem, or the problems, of a result.
    pub(super) fn take<T>(&mut self, result: Result<T, impl IntoIterator<Item = String>>) -> Option<T> {
        result.map_err(|problems| self.0.extend(problems)).ok()
    }

    pub(super) fn within<N: PartialOrd + Display>(&mut self, flag: &str, value: &N, range: &RangeInclusive<N>) {
        self.require(range.contains(value), || {
            format!("{flag} must be {} to {}, not {value}", range.start(), range.end())
        });
    }

    pub(super) fn dns_name(&mut self, flag: &str, value: &str) {
        let is_label = |label: &str| {
            let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            let bytes = label.as_bytes();
            bytes.first().copied().is_some_and(edge)
                && bytes.last().copied().is_some_and(edge)
                && bytes.iter().all(|byte| edge(*byte) || *byte == b'-')
        };
        self.require(value.len() <= 253 && value.split('.').all(is_label), || {
            format!("{flag} {value:?} is not a valid name of a Kubernetes object")
        });
    }

    /// Returns the parsed flags, unless there are problems.
    pub(super) fn finish<T>(self, parsed: Option<T>) -> Result<T, Failure> {
        let Self(problems) = self;
        match parsed {
            Some(parsed) if problems.is_empty() => Ok(parsed),
            _ => {
                let count = problems.len();
                Err(Usage(format!("invalid configuration, {count} problem(s):\n  {}", problems.join("\n  "))).into())
            }
        }
    }
}
