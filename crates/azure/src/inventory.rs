//! Lists the user-assigned identities in a scope.

use azure_core::http::{Method, Request};
use serde::Deserialize;

use super::client::ArmClient;
use super::error::ArmErrorCause;
use super::paging::Pages;
use super::response::unreadable;
use ensign_api::ArmId;
use ensign_core::acceptance::scopes::AzureScope;

/// More than a subscription's identities can fill.
const MAX_PAGES: u32 = 500;
const PROVIDER: [&str; 3] = ["providers", "Microsoft.ManagedIdentity", "userAssignedIdentities"];

/// The identities of a scope can't be listed.
#[derive(Debug, thiserror::Error)]
#[error("cannot list the identities in {scope}: {}", cure(cause))]
pub struct InventoryError {
    /// The scope.
    scope: AzureScope,
    /// Why.
    #[source]
    cause: ArmErrorCause,
}

/// Who has to do what.
fn cure(cause: &ArmErrorCause) -> &'static str {
    match cause {
        ArmErrorCause::OutOfScope(_) => "add the scope to --azure-allowed-scopes, or name one that is within them",
        ArmErrorCause::Refused { status: 401 | 403, .. } => {
            "the caller needs Microsoft.ManagedIdentity/userAssignedIdentities/read there, for example through the role Reader"
        }
        _ => "try again, or follow what Azure says",
    }
}

#[derive(Deserialize)]
struct ListedIdentity {
    id: String,
}

impl ArmClient {
    /// Every user-assigned identity in the scope, or an error. A scope that is an identity is returned itself.
    pub async fn list_identities(&self, scope: &AzureScope) -> Result<Vec<ArmId>, InventoryError> {
        let failed = |cause| InventoryError { scope: scope.clone(), cause };
        if let Some(id) = scope.identity() {
            return Ok(vec![id.clone()]);
        }
        let mut pages = Pages::new(self.url_of(scope.container().into_iter().chain(PROVIDER)), MAX_PAGES);
        let mut identities = Vec::new();
        while let Some((_, url)) = pages.next().map_err(failed)? {
            let response = self.send_about_scope(Request::new(url, Method::Get)).await.map_err(failed)?;
            let page: Vec<ListedIdentity> = pages.read(&response).map_err(failed)?;
            for listed in page {
                let id = listed.id.parse().map_err(|_| failed(unreadable("an identity has an invalid ID")))?;
                identities.push(id);
            }
        }
        Ok(identities)
    }
}
