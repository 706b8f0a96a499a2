//! `GET /metadata/endpoints`: what a client needs to know of this cloud. `az cloud register` and the SDKs for custom clouds
//! read it, without a token.

use axum::http::Method;
use serde_json::json;

use super::exchange::{Incoming, Reply};
use super::graph;
use super::shared::Shared;

/// Whether a path is that of the metadata.
pub(super) fn is_at(path: &str) -> bool {
    path.trim_matches('/').eq_ignore_ascii_case("metadata/endpoints")
}

pub(super) fn answer(shared: &Shared, incoming: &Incoming) -> Reply {
    if incoming.method != Method::GET {
        return Reply::text(405, "text/plain", "Only GET is served here.\n")
            .with("allow", "GET")
            .error_code("MethodNotAllowed");
    }
    let origin = incoming.origin(&shared.base_url);
    // The names of services that the emulator does not have are those of the public cloud.
    Reply::json(
        200,
        &json!({
            "name": "AzureEmulator",
            "resourceManager": format!("{origin}/"),
            "authentication": {
                "loginEndpoint": origin,
                "audiences": ["https://management.core.windows.net/", "https://management.azure.com/"],
                "tenant": "common",
                "identityProvider": "AAD",
            },
            "microsoftGraphResourceId": format!("{origin}{}", graph::ROOT),
            "graph": format!("{origin}{}", graph::ROOT),
            "graphAudience": format!("{origin}{}", graph::ROOT),
            "suffixes": {
                "storage": "core.windows.net",
                "keyVaultDns": "vault.azure.net",
                "acrLoginServer": "azurecr.io",
                "sqlServerHostname": "database.windows.net",
            },
        }),
    )
}
