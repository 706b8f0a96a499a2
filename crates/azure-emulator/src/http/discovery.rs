//! Entra's metadata: OpenID configuration, signing keys, and instance discovery for SDKs that require it.

use axum::http::Method;
use serde_json::json;

use super::exchange::{Incoming, Reply};
use super::shared::Shared;
use crate::state::entra::EntraError;
use crate::state::text::{percent_decode, query_parameter};

pub(super) fn answer(shared: &Shared, incoming: &Incoming) -> Reply {
    let origin = incoming.origin(&shared.base_url);
    let path = incoming.path.trim_matches('/');
    let segments: Vec<String> = path.split('/').map(percent_decode).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let known = matches!(
        segments[..],
        [_, ".well-known", "openid-configuration"]
            | [_, "v2.0", ".well-known", "openid-configuration"]
            | [_, "discovery", "v2.0" | "instance", ..]
    );
    if !known {
        return Reply::text(404, "text/plain", "Not found: not a path of ARM, Entra or /_emulator/.\n")
            .error_code("NotFound");
    }
    if incoming.method != Method::GET {
        return Reply::text(405, "text/plain", "Only GET is served here.\n")
            .with("allow", "GET")
            .error_code("MethodNotAllowed");
    }
    match segments[..] {
        [tenant, ".well-known", "openid-configuration"] => configuration(shared, incoming, &origin, tenant, ""),
        [tenant, "v2.0", ".well-known", "openid-configuration"] => {
            configuration(shared, incoming, &origin, tenant, "/v2.0")
        }
        [_, "discovery", "v2.0", "keys"] => Reply::json(200, &json!({"keys": [shared.signer.public_key()]})),
        [_, "discovery", "instance"] => instance(shared, incoming, &origin),
        _ => Reply::text(404, "text/plain", "Not found.\n").error_code("NotFound"),
    }
}

fn configuration(shared: &Shared, incoming: &Incoming, origin: &str, tenant: &str, version: &str) -> Reply {
    let tenant = {
        let state = shared.state.lock();
        let common = ["common", "organizations"].contains(&tenant);
        if !common && !state.has_tenant(tenant) {
            // The token endpoint says invalid_request here.
            let error = EntraError { error: "invalid_tenant", ..EntraError::tenant_not_found(tenant) };
            let body = error.body(shared.clock.now(), &incoming.id, &incoming.id);
            return Reply::json(error.status, &body).error_code(format!("AADSTS{}", error.code));
        }
        if common { state.tenant_id.clone() } else { tenant.to_lowercase() }
    };
    let host = origin.trim_start_matches("https://");
    let oauth = format!("{origin}/{tenant}/oauth2{version}");
    Reply::json(
        200,
        &json!({
            "token_endpoint": format!("{origin}/{tenant}/oauth2/v2.0/token"),
            "token_endpoint_auth_methods_supported": ["private_key_jwt"],
            "jwks_uri": format!("{origin}/{tenant}/discovery/v2.0/keys"),
            "response_modes_supported": ["query", "fragment", "form_post"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "issuer": format!("{origin}/{tenant}/v2.0"),
            "request_uri_parameter_supported": false,
            "userinfo_endpoint": format!("{origin}/oidc/userinfo"),
            "authorization_endpoint": format!("{oauth}/authorize"),
            "device_authorization_endpoint": format!("{oauth}/devicecode"),
            "end_session_endpoint": format!("{oauth}/logout"),
            "http_logout_supported": true,
            "frontchannel_logout_supported": true,
            "claims_supported": ["sub", "iss", "aud", "exp", "iat", "tid", "ver"],
            "kerberos_endpoint": format!("{origin}/{tenant}/kerberos"),
            "tenant_region_scope": null,
            "cloud_instance_name": host,
            "cloud_graph_host_name": host,
            "msgraph_host": host,
            "rbac_url": origin,
        }),
    )
}

fn instance(shared: &Shared, incoming: &Incoming, origin: &str) -> Reply {
    let host = origin.trim_start_matches("https://");
    // The endpoint in the query names the tenant.
    let endpoint =
        query_parameter(&incoming.query, "authorization_endpoint").and_then(|url| url::Url::parse(&url).ok());
    let tenant = endpoint
        .and_then(|url| url.path_segments().and_then(|mut segments| segments.next().map(str::to_owned)))
        .filter(|tenant| shared.state.lock().has_tenant(tenant))
        .unwrap_or_else(|| "common".to_owned());
    Reply::json(
        200,
        &json!({
            "tenant_discovery_endpoint": format!("{origin}/{tenant}/v2.0/.well-known/openid-configuration"),
            "api-version": "1.1",
            "metadata": [{"preferred_network": host, "preferred_cache": host, "aliases": [host]}],
        }),
    )
}
