//! What a new leader has to list again because its cache is behind.
//!
//! The former leader may have written objects that the watches have not delivered yet. So the versions of all objects are
//! read, which is a fraction of a list; if the cache has each of them, or a later one, nothing is listed again.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, ObjectMeta};
use kube::api::ListParams;
use kube::core::Request;
use kube::{Client, Resource};
use serde::Deserialize;

use super::informers::Watched;
use super::{Cache, Objects};
use crate::kube_request::{KubeError, within_deadline};
use ensign_api::{ManagedIdentity, ManagedIdentityBinding};
use ensign_core::scheduling::resource_versions::{NoOrder, Versions};
use ensign_runtime::clock::{SharedClock, deadline};
use ensign_runtime::kube_pages::{Page, Pages};

/// Objects in a page of a list, as the watches request them.
const PAGE_SIZE: u32 = 500;
/// How long to wait until the watches have delivered what the cache lacks.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How often to check the cache meanwhile.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Whether the cache has every binding and every identity in their current versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Current {
    identities: bool,
    bindings: bool,
}

impl Current {
    /// What has to be listed again.
    pub(crate) fn behind(self) -> Vec<Watched> {
        let all = [(self.identities, Watched::Identities), (self.bindings, Watched::Bindings)];
        all.into_iter().filter(|(current, _)| !current).map(|(_, what)| what).collect()
    }
}

/// Compares the cache with the API server.
pub(crate) async fn current(client: &Client, cache: &Cache, clock: &SharedClock) -> Current {
    let identities = has_all::<ManagedIdentity>(client, cache, clock, |objects| {
        Box::new(objects.identities().map(|object| &object.metadata))
    });
    let bindings = has_all::<ManagedIdentityBinding>(client, cache, clock, |objects| {
        Box::new(objects.bindings().map(|object| &object.metadata))
    });
    let (identities, bindings) = tokio::join!(identities, bindings);
    Current { identities, bindings }
}

async fn has_all<K: Resource<DynamicType = ()>>(
    client: &Client,
    cache: &Cache,
    clock: &SharedClock,
    cached: fn(&Objects) -> Box<dyn Iterator<Item = &ObjectMeta> + '_>,
) -> bool {
    let kind = K::kind(&());
    let live = match versions::<K>(client).await {
        Ok(live) => live,
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(%kind, error, "cannot compare the cache with the API server; listing everything again");
            return false;
        }
    };
    let end = deadline(clock.as_ref(), TIMEOUT);
    loop {
        if live.are_in(cached(&cache.read())) {
            tracing::debug!(%kind, "the cache is current");
            return true;
        }
        if clock.monotonic() >= end {
            tracing::info!(%kind, "the cache is behind; listing everything again");
            return false;
        }
        clock.sleep_until(deadline(clock.as_ref(), POLL_INTERVAL)).await;
    }
}

/// The versions can't be compared.
#[derive(Debug, thiserror::Error)]
enum CompareError {
    #[error(transparent)]
    Request(#[from] KubeError),
    #[error(transparent)]
    NoOrder(#[from] NoOrder),
}

/// A page of a list, of which only versions are read.
#[derive(Deserialize)]
struct VersionsPage {
    metadata: ListMeta,
    items: Vec<Listed>,
}

impl Page for VersionsPage {
    fn metadata(&self) -> &ListMeta {
        &self.metadata
    }
}

#[derive(Deserialize)]
struct Listed {
    metadata: Identified,
}

/// The part of metadata that is compared; most of the rest is managed fields.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identified {
    uid: String,
    resource_version: String,
}

/// Reads the versions of all objects from the API server's latest state.
async fn versions<K: Resource<DynamicType = ()>>(client: &Client) -> Result<Versions, CompareError> {
    let mut versions = Versions::default();
    let mut pages = Pages::new(ListParams::default(), PAGE_SIZE);
    let act = || format!("listing versions of {}", K::plural(&()));
    while let Some(page) = within_deadline(act, pages.next_with(|list| versions_page::<K>(client, list))).await? {
        let objects = page.items.into_iter().map(|Listed { metadata }| (metadata.uid, metadata.resource_version));
        versions.add(page.metadata.resource_version.as_deref(), objects)?;
    }
    Ok(versions)
}

async fn versions_page<K: Resource<DynamicType = ()>>(client: &Client, list: ListParams) -> kube::Result<VersionsPage> {
    let request = Request::new(K::url_path(&(), None)).list_metadata(&list).map_err(kube::Error::BuildRequest)?;
    client.request(request).await
}
