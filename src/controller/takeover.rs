//! What a controller that comes to lead has to list again: what its watches have not brought yet.
//!
//! The former leader may have written what is still on its way. So the versions of all objects are read, which is a
//! fraction of a list; where the cache has each of them, or a later one, it goes on as it is.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, ObjectMeta};
use kube::api::ListParams;
use kube::core::Request;
use kube::{Client, Resource};
use serde::Deserialize;

use super::cache::{Cache, Objects};
use super::kube_writes::{KubeError, within_deadline};
use super::watches::Watched;
use crate::api::{ManagedIdentity, ManagedIdentityBinding};
use crate::mutants::{self, Mutant};
use crate::runtime::clock::{SharedClock, deadline};

/// Objects in a page of a list, as the watches ask for them.
const PAGE: u32 = 500;
/// How long what the cache lacks may still be on its way.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the cache is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// Whether the cache has every binding and every identity as they are now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Current {
    identities: bool,
    bindings: bool,
}

impl Current {
    /// What has to be listed again.
    pub(super) fn behind(self) -> Vec<Watched> {
        let all = [(self.identities, Watched::Identities), (self.bindings, Watched::Bindings)];
        all.into_iter().filter(|(current, _)| !current).map(|(_, what)| what).collect()
    }
}

/// Compares the cache with the API server.
pub(super) async fn current(client: &Client, cache: &Cache, clock: &SharedClock) -> Current {
    let identities = has_all::<ManagedIdentity>(client, cache, clock, |objects, is_current| {
        is_current(&mut objects.identities().map(|object| &object.metadata))
    });
    let bindings = has_all::<ManagedIdentityBinding>(client, cache, clock, |objects, is_current| {
        is_current(&mut objects.bindings().map(|object| &object.metadata))
    });
    let (identities, bindings) = tokio::join!(identities, bindings);
    Current { identities, bindings }
}

/// Answers about metadata of the cache.
type IsCurrent<'a> = &'a dyn Fn(&mut dyn Iterator<Item = &ObjectMeta>) -> bool;

async fn has_all<K: Resource<DynamicType = ()>>(
    client: &Client,
    cache: &Cache,
    clock: &SharedClock,
    cached: impl Fn(&Objects, IsCurrent<'_>) -> bool,
) -> bool {
    if mutants::active(Mutant::StandbyTrusted) {
        return true;
    }
    let kind = K::kind(&());
    let live = match Versions::read::<K>(client).await {
        Ok(live) => live,
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(%kind, error, "the cache can't be compared, so everything is listed again");
            return false;
        }
    };
    let end = deadline(clock.as_ref(), PATIENCE);
    loop {
        if cached(&cache.read(), &|metadata| live.are_in(metadata)) {
            tracing::debug!(%kind, "the cache is current");
            return true;
        }
        if clock.monotonic() >= end {
            tracing::info!(%kind, "the cache is behind, so everything is listed again");
            return false;
        }
        clock.sleep_until(deadline(clock.as_ref(), LOOK)).await;
    }
}

/// There is nothing to compare with.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error(transparent)]
    Request(#[from] KubeError),
    #[error("versions are no numbers, so that they have no order")]
    NoOrder,
}

/// The version of each object, at one time.
#[derive(Debug, Default)]
struct Versions {
    /// That time.
    of_list: u64,
    /// By UID.
    of_objects: HashMap<String, u64>,
}

#[derive(Deserialize)]
struct Page {
    metadata: ListMeta,
    items: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    metadata: Identified,
}

/// What is needed of metadata, most of which is managed fields.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identified {
    uid: String,
    resource_version: String,
}

impl Versions {
    /// Reads them from the API server's latest state.
    async fn read<K: Resource<DynamicType = ()>>(client: &Client) -> Result<Self, Unread> {
        let mut versions = Self::default();
        let mut parameters = ListParams::default().limit(PAGE);
        loop {
            let act = || format!("listing versions of {}", K::plural(&()));
            let page = within_deadline(act, page::<K>(client, &parameters)).await?;
            match versions.add(page)? {
                Some(next) => parameters.continue_token = Some(next),
                None => return Ok(versions),
            }
        }
    }

    /// Takes a page in; answers where the next one begins, if there is one.
    fn add(&mut self, page: Page) -> Result<Option<String>, Unread> {
        let of_list = page.metadata.resource_version.as_deref().and_then(version);
        self.of_list = of_list.ok_or(Unread::NoOrder)?;
        for Listed { metadata } in page.items {
            self.of_objects.insert(metadata.uid, version(&metadata.resource_version).ok_or(Unread::NoOrder)?);
        }
        Ok(page.metadata.continue_.filter(|next| !next.is_empty()))
    }

    /// Whether these objects are all that there are, each in its version or a later one.
    fn are_in(&self, cached: &mut dyn Iterator<Item = &ObjectMeta>) -> bool {
        let mut found = 0;
        for object in cached {
            let Some(cached) = object.resource_version.as_deref().and_then(version) else { return false };
            match object.uid.as_ref().and_then(|uid| self.of_objects.get(uid)) {
                Some(live) if cached >= *live => found += 1,
                // Made since.
                None if cached > self.of_list => {}
                _ => return false,
            }
        }
        found == self.of_objects.len()
    }
}

/// Versions of objects and of lists are numbers, and later ones are larger (Kubernetes API concepts, resource versions).
fn version(text: &str) -> Option<u64> {
    text.parse().ok()
}

async fn page<K: Resource<DynamicType = ()>>(client: &Client, parameters: &ListParams) -> kube::Result<Page> {
    let request = Request::new(K::url_path(&(), None)).list_metadata(parameters).map_err(kube::Error::BuildRequest)?;
    client.request(request).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(uid: &str, version: &str) -> ObjectMeta {
        ObjectMeta { uid: Some(uid.to_owned()), resource_version: Some(version.to_owned()), ..ObjectMeta::default() }
    }

    fn page_of(version: &str, next: &str, objects: &[(&str, &str)]) -> Page {
        let items: Vec<_> = objects
            .iter()
            .map(|(uid, version)| json!({"metadata": {"uid": uid, "resourceVersion": version, "managedFields": [{}]}}))
            .collect();
        serde_json::from_value(json!({"metadata": {"resourceVersion": version, "continue": next}, "items": items}))
            .unwrap()
    }

    fn live() -> Versions {
        let mut versions = Versions::default();
        assert_eq!(versions.add(page_of("90", "next", &[("a", "7")])).unwrap(), Some("next".to_owned()));
        assert_eq!(versions.add(page_of("90", "", &[("b", "8")])).unwrap(), None);
        versions
    }

    fn is_current(cached: &[(&str, &str)]) -> bool {
        let cached: Vec<_> = cached.iter().map(|(uid, version)| object(uid, version)).collect();
        live().are_in(&mut cached.iter())
    }

    #[test]
    fn a_cache_is_current_with_the_same_versions_or_later_ones() {
        assert!(is_current(&[("a", "7"), ("b", "8")]));
        assert!(is_current(&[("a", "7"), ("b", "91")]), "it has heard of a change since");
        assert!(is_current(&[("a", "7"), ("b", "8"), ("c", "100")]), "and of an object made since");
        assert!(is_current(&[("b", "10"), ("a", "7")]), "ten comes after eight");
    }

    #[test]
    fn a_cache_that_lacks_a_change_is_behind() {
        assert!(!is_current(&[("a", "6"), ("b", "8")]), "a change");
        assert!(!is_current(&[("a", "7")]), "a new object");
        assert!(!is_current(&[("a", "7"), ("b", "8"), ("c", "9")]), "a deletion");
        assert!(!is_current(&[("a", "7"), ("anew", "8")]), "a deletion and a new object of the same name");
        assert!(!is_current(&[]));
    }

    #[test]
    fn versions_without_order_say_nothing() {
        assert!(!is_current(&[("a", "7"), ("b", "later")]));
        let unread = |page| matches!(Versions::default().add(page), Err(Unread::NoOrder));
        assert!(unread(page_of("x1", "", &[])) && unread(page_of("90", "", &[("a", "x1")])));
        assert_eq!(version("-1"), None);
    }

    #[test]
    fn nothing_is_current_where_there_is_nothing() {
        assert!(Versions::default().are_in(&mut std::iter::empty()));
    }
}
