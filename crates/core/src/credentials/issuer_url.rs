//! Whether Entra can fetch the signing keys of a service account issuer, judging by its URL.

use std::net::IpAddr;

use url::{Host, Url};

/// Longest issuer that Azure accepts, in characters.
const MAX_ISSUER_LENGTH: usize = 600;

/// Why Entra can't trust the issuer, as a message; `None` if its URL is acceptable.
///
/// The issuer is not normalized: Azure gets it exactly as it is in tokens.
pub fn refusal(issuer: &str) -> Option<String> {
    problem(issuer).map(|problem| {
        format!(
            "Entra can't reach the cluster's service account issuer {issuer:?}: {problem}. A cluster operator has to publish the issuer's discovery document on a public https address and set --service-account-issuer on the API server"
        )
    })
}

fn problem(issuer: &str) -> Option<String> {
    if issuer.chars().count() > MAX_ISSUER_LENGTH {
        return Some(format!("it is longer than {MAX_ISSUER_LENGTH} characters"));
    }
    if issuer.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Some("it contains white space or control characters".to_owned());
    }
    let url = match Url::parse(issuer) {
        Ok(url) => url,
        Err(error) => return Some(format!("it is not a URL ({error})")),
    };
    if url.scheme() != "https" {
        return Some("it is not https".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Some("it has a query, a fragment or user information".to_owned());
    }
    match url.host() {
        None => Some("it has no host".to_owned()),
        Some(Host::Ipv4(address)) => private_address(address.into()),
        Some(Host::Ipv6(address)) => private_address(address.into()),
        Some(Host::Domain(name)) => private_name(name),
    }
}

fn private_address(address: IpAddr) -> Option<String> {
    let private = match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_unspecified(),
    };
    private.then(|| format!("{address} is not a public address"))
}

fn private_name(name: &str) -> Option<String> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let internal = ["localhost", "svc", "local", "internal", "cluster"];
    let last = name.rsplit('.').next().unwrap_or_default();
    let bare = !name.contains('.');
    (bare || internal.contains(&last)).then(|| format!("{name} is not a public name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_issuers_are_accepted() {
        for issuer in
            ["https://oidc.prod-aks.azure.com/0a1b/", "https://issuer.example/cluster", "https://8.8.8.8:8443/x"]
        {
            assert_eq!(refusal(issuer), None, "{issuer}");
        }
    }

    #[test]
    fn issuers_that_entra_cannot_reach_are_rejected() {
        for issuer in [
            "http://issuer.example",
            "https://kubernetes.default.svc",
            "https://kubernetes.default.svc.cluster.local",
            "https://localhost:6443",
            "https://127.0.0.1:6443",
            "https://10.1.2.3",
            "https://[::1]:6443",
            "https://master",
            "https://issuer.example/?a=b",
            "https://issuer.example ",
            "kubernetes/serviceaccount",
            "",
        ] {
            let message = refusal(issuer).unwrap_or_else(|| panic!("{issuer:?} must be rejected"));
            assert!(message.contains("cluster operator has to"), "{message}");
        }
    }
}
