//! Whether a cache is complete and current, by resource versions alone.
//!
//! Resource versions of objects and lists are numbers that increase (Kubernetes API concepts, resource versions).

use std::collections::HashMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The resource versions of all objects of a kind, from a list.
#[derive(Debug, Default)]
pub struct Versions {
    /// Version of the list.
    of_list: u64,
    /// Versions of objects by UID.
    of_objects: HashMap<String, u64>,
}

/// A resource version is not a number and can't be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("resource versions are not numbers and can't be compared")]
pub struct NoOrder;

impl Versions {
    /// Adds a page of the list: the version of the list, and the UIDs and versions of its objects.
    /// Fails if one of the versions is not a number.
    pub fn add(
        &mut self,
        of_list: Option<&str>,
        objects: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), NoOrder> {
        self.of_list = of_list.and_then(version).ok_or(NoOrder)?;
        for (uid, text) in objects {
            self.of_objects.insert(uid, version(&text).ok_or(NoOrder)?);
        }
        Ok(())
    }

    /// Whether the cache has all listed objects, each in its version or a later one, and no deleted ones.
    pub fn are_in<'a>(&self, cached: impl IntoIterator<Item = &'a ObjectMeta>) -> bool {
        let mut found = 0;
        for object in cached {
            let Some(cached) = object.resource_version.as_deref().and_then(version) else { return false };
            match object.uid.as_ref().and_then(|uid| self.of_objects.get(uid)) {
                Some(live) if cached >= *live => found += 1,
                // Created since.
                None if cached > self.of_list => {}
                _ => return false,
            }
        }
        found == self.of_objects.len()
    }
}

fn version(text: &str) -> Option<u64> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|(uid, version)| ((*uid).to_owned(), (*version).to_owned())).collect()
    }

    /// Whether a cache with these objects is current, compared with a list of two objects on two pages.
    fn is_current(cached: &[(&str, &str)]) -> bool {
        let mut live = Versions::default();
        live.add(Some("90"), objects(&[("a", "7")])).unwrap();
        live.add(Some("90"), objects(&[("b", "8")])).unwrap();
        let metadata =
            |(uid, version)| ObjectMeta { uid: Some(uid), resource_version: Some(version), ..ObjectMeta::default() };
        live.are_in(&objects(cached).into_iter().map(metadata).collect::<Vec<_>>())
    }

    #[test]
    fn a_cache_is_current_with_the_same_versions_or_later_ones() {
        assert!(is_current(&[("a", "7"), ("b", "8")]));
        assert!(is_current(&[("a", "7"), ("b", "91")]), "with a later change");
        assert!(is_current(&[("a", "7"), ("b", "8"), ("c", "100")]), "with an object created since");
        assert!(is_current(&[("b", "10"), ("a", "7")]), "versions are compared as numbers");
    }

    #[test]
    fn a_cache_without_the_latest_change_is_behind() {
        assert!(!is_current(&[("a", "6"), ("b", "8")]), "a change");
        assert!(!is_current(&[("a", "7")]), "a new object");
        assert!(!is_current(&[("a", "7"), ("b", "8"), ("c", "9")]), "a deletion");
        assert!(!is_current(&[("a", "7"), ("anew", "8")]), "a deletion and a new object of the same name");
        assert!(!is_current(&[]));
    }

    #[test]
    fn versions_that_are_not_numbers_are_an_error() {
        assert!(!is_current(&[("a", "7"), ("b", "later")]));
        assert_eq!(Versions::default().add(Some("x1"), []), Err(NoOrder));
        assert_eq!(Versions::default().add(None, []), Err(NoOrder));
        assert_eq!(Versions::default().add(Some("90"), objects(&[("a", "-1")])), Err(NoOrder));
    }

    #[test]
    fn an_empty_cache_of_nothing_is_current() {
        assert!(Versions::default().are_in([]));
    }
}
