//! The patch and the warnings of a pod while they are built.

use super::json_patch::{Addition, Content};

/// A patch under construction.
#[derive(Default)]
pub(super) struct Injection {
    pub(super) operations: Vec<Addition>,
    pub(super) warnings: Vec<String>,
}

impl Injection {
    pub(super) fn add(&mut self, path: &[&str], content: Content) {
        self.operations.push(Addition::new(path, content));
    }

    /// Appends to a list, or creates it if it does not exist.
    pub(super) fn append(&mut self, list: &[&str], exists: bool, items: Vec<Content>) {
        if items.is_empty() {
            return;
        }
        if !exists {
            return self.add(list, Content::List(items));
        }
        let end: Vec<&str> = list.iter().copied().chain(["-"]).collect();
        for item in items {
            self.add(&end, item);
        }
    }
}
