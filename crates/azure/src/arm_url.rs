//! What the URL of a request to ARM says: what it is about, which provider answers it, and its API version.

use url::Url;

use ensign_core::scheduling::rate_limiter::Provider;

const VERSION: &str = "api-version";

/// The meaning of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ArmUrl {
    /// The ARM ID that it is about, in lower case, without a trailing slash. That of a role or of a role assignment is the
    /// scope that it is in.
    pub(super) scope: String,
    pub(super) provider: Provider,
}

impl ArmUrl {
    /// Reads a URL; `None` if its path can be read in more than one way.
    pub(super) fn read(url: &Url) -> Option<Self> {
        let segments: Vec<String> = url.path_segments()?.map(decoded).collect::<Option<_>>()?;
        let is = |at: usize, text: &str| segments.get(at).is_some_and(|segment| segment == text);
        let mut providers = (0..segments.len()).rev().filter(|at| is(*at, "providers"));
        let (end, provider) = match providers.next() {
            Some(at) if is(at + 1, "microsoft.authorization") => (at, Provider::Authorization),
            _ => (segments.len(), Provider::ManagedIdentity),
        };
        let scope: String = segments.iter().take(end).flat_map(|segment| ["/", segment.as_str()]).collect();
        Some(Self { scope: scope.trim_end_matches('/').to_owned(), provider })
    }
}

/// A path segment in lower case, without percent-encoding.
fn decoded(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = match (first, after) {
            (b'%', [high, low, after @ ..]) => (hex(*high)? * 16 + hex(*low)?, after),
            (b'%', _) => return None,
            _ => (*first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    let text = String::from_utf8(bytes).ok()?.to_lowercase();
    (!text.contains(['/', '\\']) && !matches!(text.as_str(), "." | "..")).then_some(text)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// The API version of a URL that has one, such as the link to the next page of a list.
pub(super) fn version_of(url: &Url) -> Option<String> {
    url.query_pairs().find(|(name, _)| name.eq_ignore_ascii_case(VERSION)).map(|(_, version)| version.into_owned())
}

/// The URL with this API version, and otherwise the same to the byte: links to pages are opaque.
pub(super) fn with_version(url: &Url, version: &str) -> Url {
    let mut changed = url.clone();
    let is_version = |pair: &&str| pair.split_once('=').is_some_and(|(name, _)| name.eq_ignore_ascii_case(VERSION));
    let others = url.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty() && !is_version(pair));
    let query: Vec<String> = std::iter::once(format!("{VERSION}={version}")).chain(others.map(str::to_owned)).collect();
    changed.set_query(Some(&query.join("&")));
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = "/subscriptions/s/resourcegroups/rg";

    fn read(path: &str) -> Option<(String, Provider)> {
        let url = Url::parse(&format!("https://arm.example{path}")).unwrap();
        ArmUrl::read(&url).map(|read| (read.scope, read.provider))
    }

    #[test]
    fn a_url_is_about_the_resource_that_it_names() {
        let identity = "/providers/microsoft.managedidentity/userassignedidentities/orders";
        for (path, scope, provider) in [
            (
                format!(
                    "{}/PROVIDERS/Microsoft.ManagedIdentity/userAssignedIdentities/orders?x=y",
                    GROUP.to_uppercase()
                ),
                format!("{GROUP}{identity}"),
                Provider::ManagedIdentity,
            ),
            (
                format!("{GROUP}{identity}/federatedidentitycredentials/"),
                format!("{GROUP}{identity}/federatedidentitycredentials"),
                Provider::ManagedIdentity,
            ),
            (
                "/subscriptions/s/providers/Microsoft.ManagedIdentity/userAssignedIdentities".to_owned(),
                "/subscriptions/s/providers/microsoft.managedidentity/userassignedidentities".to_owned(),
                Provider::ManagedIdentity,
            ),
            (
                format!("{GROUP}{identity}/providers/Microsoft.Authorization/roleAssignments/x"),
                format!("{GROUP}{identity}"),
                Provider::Authorization,
            ),
            ("/providers/Microsoft.Authorization/roleDefinitions".to_owned(), String::new(), Provider::Authorization),
            (
                "/subscriptions/s/resourceGroups/caf%C3%89".to_owned(),
                "/subscriptions/s/resourcegroups/café".to_owned(),
                Provider::ManagedIdentity,
            ),
        ] {
            assert_eq!(read(&path), Some((scope, provider)), "{path}");
        }
    }

    #[test]
    fn a_path_that_hides_what_it_is_about_is_not_read() {
        for segment in ["rg%2f..%2fother", "rg%5C..", "%zz", "%", "%2", "%ff"] {
            assert_eq!(read(&format!("/subscriptions/s/resourceGroups/{segment}")), None, "{segment}");
        }
        let up = read("/subscriptions/s/resourceGroups/rg/%2e%2e/other").unwrap();
        assert_eq!(up.0, "/subscriptions/s/resourcegroups/other", "as it is sent");
    }

    #[test]
    fn the_version_is_set_and_the_rest_of_a_link_stays_as_it_is() {
        let with = |link: &str| with_version(&Url::parse(link).unwrap(), "2023-01-31").to_string();
        assert_eq!(with("https://arm.example/x"), "https://arm.example/x?api-version=2023-01-31");
        let link = "https://arm.example/x?$filter=a%20eq%20b&API-version=2024-11-30&$skipToken=X%2712%2B%27";
        let expected = "https://arm.example/x?api-version=2023-01-31&$filter=a%20eq%20b&$skipToken=X%2712%2B%27";
        assert_eq!(with(link), expected);
        assert_eq!(version_of(&Url::parse(link).unwrap()).as_deref(), Some("2024-11-30"));
        assert_eq!(version_of(&Url::parse("https://arm.example/x?y=z").unwrap()), None);
    }
}
