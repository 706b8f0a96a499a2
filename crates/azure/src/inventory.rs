//! Which user-assigned identities there are in a scope.

use azure_core::http::{Method, Request};
use serde::Deserialize;
use uuid::Uuid;

use super::client::{ArmClient, decode, unreadable};
use super::error::ArmErrorCause;
use ensign_api::ArmId;
use ensign_core::acceptance::scopes::AzureScope;

/// More than a subscription can have identities for.
const MAX_PAGES: usize = 500;
const PROVIDER: [&str; 3] = ["providers", "Microsoft.ManagedIdentity", "userAssignedIdentities"];

/// The identities of a scope can't be listed.
#[derive(Debug, thiserror::Error)]
#[error(
    "listing the identities in {scope} failed: whoever runs this needs Microsoft.ManagedIdentity/userAssignedIdentities/read there, for example by the role Reader"
)]
pub struct InventoryError {
    /// The scope.
    scope: AzureScope,
    /// How it failed.
    #[source]
    cause: ArmErrorCause,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    value: Vec<Listed>,
    #[serde(default)]
    next_link: Option<String>,
}

#[derive(Deserialize)]
struct Listed {
    id: String,
}

impl ArmClient {
    /// Every user-assigned identity in the scope, or an error; the scope itself, if it is one.
    pub async fn list_identities(&self, scope: &AzureScope) -> Result<Vec<ArmId>, InventoryError> {
        let failed = |cause| InventoryError { scope: scope.clone(), cause };
        if let Some(id) = scope.identity() {
            return Ok(vec![id.clone()]);
        }
        let mut url = self.url_of(scope.container().into_iter().chain(PROVIDER));
        let mut found = Vec::new();
        for _ in 0..MAX_PAGES {
            let response = self.ask(Uuid::new_v4(), Request::new(url, Method::Get)).await.map_err(failed)?;
            let page: Page = decode(&response).map_err(failed)?;
            for listed in page.value {
                let id = listed.id.parse().map_err(|_| failed(unreadable("an identity has an ID that is none")))?;
                found.push(id);
            }
            match page.next_link.filter(|link| !link.is_empty()) {
                None => return Ok(found),
                Some(link) => url = self.next_url(&link).map_err(failed)?,
            }
        }
        Err(failed(unreadable(&format!("more than {MAX_PAGES} pages"))))
    }
}
