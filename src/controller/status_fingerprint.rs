//! Whether two statuses are the same, without keeping them.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

/// Equal for equal statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StatusFingerprint(u64);

impl StatusFingerprint {
    pub(crate) fn of(status: &Value) -> Self {
        let mut hasher = DefaultHasher::new();
        status.to_string().hash(&mut hasher);
        Self(hasher.finish())
    }
}
