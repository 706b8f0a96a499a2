//! What is wrong with the flags of a subcommand: all of it at once, so that nobody has to start a pod once for each.

use std::fmt::Display;
use std::ops::RangeInclusive;

use super::{Failure, Usage};

/// Problems, each of which names its flag or variable.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<String>);

impl Problems {
    pub(super) fn require(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.0.push(otherwise());
        }
    }

    pub(super) fn extend(&mut self, problems: impl IntoIterator<Item = String>) {
        self.0.extend(problems);
    }

    /// Notes the problem of a result, or the problems.
    pub(super) fn take<T>(&mut self, result: Result<T, impl IntoIterator<Item = String>>) -> Option<T> {
        result.map_err(|problems| self.0.extend(problems)).ok()
    }

    pub(super) fn within<N: PartialOrd + Display>(&mut self, flag: &str, value: &N, range: &RangeInclusive<N>) {
        self.require(range.contains(value), || {
            format!("{flag} must be {} to {}, and is {value}", range.start(), range.end())
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
            format!("{flag} {value:?} is not a name of a Kubernetes object")
        });
    }

    /// What the flags mean, unless something is wrong with them.
    pub(super) fn finish<T>(self, meaning: Option<T>) -> Result<T, Failure> {
        let Self(problems) = self;
        match meaning {
            Some(meaning) if problems.is_empty() => Ok(meaning),
            _ => {
                let count = problems.len();
                Err(Usage(format!("the configuration has {count} problem(s):\n  {}", problems.join("\n  "))).into())
            }
        }
    }
}
