//! API versions of the resource providers: which one a request has, and which one it gets if Azure does not support that.
//!
//! Sovereign clouds and regions get new versions late, sometimes years late. Azure then answers with
//! `NoRegisteredProviderFound` (a provider's type), `InvalidApiVersionParameter` (a type of Resource Manager itself) or
//! `InvalidResourceType`, and lists what it supports.

use crate::scheduling::rate_limiter::Provider;

/// A version of one provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiVersion {
    /// The provider.
    pub provider: Provider,
    /// `2024-11-30`, or `2020-04-01-preview`.
    pub version: String,
}

/// The error codes of an unsupported version.
const UNSUPPORTED: [&str; 3] = ["NoRegisteredProviderFound", "InvalidApiVersionParameter", "InvalidResourceType"];

/// The first version with `isolationScope`.
pub const WITH_ISOLATION_SCOPE: &str = "2024-11-30";

/// Both of Ensign's providers.
const PROVIDERS: [Provider; 2] = [Provider::ManagedIdentity, Provider::Authorization];

/// The version of every request unless something else is set or needed.
pub fn default_version(provider: Provider) -> &'static str {
    match provider {
        Provider::ManagedIdentity => "2024-11-30",
        Provider::Authorization => "2022-04-01",
    }
}

/// Stable versions with everything that Ensign relies on, newest first.
///
/// Microsoft.ManagedIdentity has federated identity credentials from 2023-01-31 on; `isolationScope` is refused before
/// 2024-11-30. Older stable versions of Microsoft.Authorization hide the condition of an assignment and have no
/// `principalType`: an assignment with a condition would be taken for one without.
fn known(provider: Provider) -> &'static [&'static str] {
    match provider {
        Provider::ManagedIdentity => &["2026-05-31", "2026-04-30", "2024-11-30", "2023-01-31"],
        Provider::Authorization => &["2022-04-01"],
    }
}

/// The oldest version that may be set by hand, previews included.
fn oldest(provider: Provider) -> &'static str {
    match provider {
        Provider::ManagedIdentity => "2023-01-31",
        Provider::Authorization => "2020-04-01",
    }
}

/// Whether the error is about the version of the request.
pub fn is_unsupported(code: &str) -> bool {
    UNSUPPORTED.iter().any(|known| known.eq_ignore_ascii_case(code))
}

/// The newest known version among those that the error lists; `None` if there is none but `current`.
pub fn fallback(provider: Provider, current: &str, message: &str) -> Option<&'static str> {
    let supported = supported(message)?;
    let is_supported = |version: &&&str| supported.split(',').any(|listed| listed.trim().eq_ignore_ascii_case(version));
    let found = known(provider).iter().find(is_supported)?;
    // The version is supported after all, so that the error is about the region or the registration.
    (!is_supported(&&current) && *found != current).then_some(*found)
}

/// The list in `The supported api-versions are '…'` and `The supported versions are '…'`.
fn supported(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("supported ")?;
    let (_, rest) = rest.split_once("versions are '")?;
    rest.split_once('\'').map(|(list, _)| list)
}

/// Reads `Microsoft.ManagedIdentity=2023-01-31`.
fn parse(text: &str) -> Result<ApiVersion, String> {
    let (name, version) = text.split_once('=').ok_or("must be PROVIDER=VERSION")?;
    let found = PROVIDERS.into_iter().find(|provider| provider.namespace().eq_ignore_ascii_case(name.trim()));
    let provider = found.ok_or("the provider must be Microsoft.ManagedIdentity or Microsoft.Authorization")?;
    let version = version.trim().to_ascii_lowercase();
    if !is_version(&version) {
        return Err("the version must be a date, such as 2024-11-30, which -preview may follow".to_owned());
    }
    let oldest = oldest(provider);
    if version.as_str() < oldest {
        return Err(format!("versions of {} before {oldest} lack something that Ensign needs", provider.namespace()));
    }
    Ok(ApiVersion { provider, version })
}

/// Reads several, at most one for each provider; an error lists everything wrong with them.
pub fn parse_all(texts: &[String]) -> Result<Vec<ApiVersion>, Vec<String>> {
    let mut problems = Vec::new();
    let mut versions: Vec<ApiVersion> = Vec::new();
    for text in texts {
        match parse(text) {
            Err(problem) => problems.push(format!("{text:?}: {problem}")),
            Ok(one) if versions.iter().any(|other| other.provider == one.provider) => {
                problems.push(format!("{} is set twice", one.provider.namespace()));
            }
            Ok(one) => versions.push(one),
        }
    }
    if problems.is_empty() { Ok(versions) } else { Err(problems) }
}

fn is_version(text: &str) -> bool {
    let date = text.strip_suffix("-preview").unwrap_or(text);
    date.len() == 10
        && date
            .bytes()
            .enumerate()
            .all(|(at, byte)| if matches!(at, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITIES: Provider = Provider::ManagedIdentity;

    fn no_provider(supported: &str) -> String {
        format!(
            "No registered resource provider found for location 'chinanorth' and API version '2024-11-30' for type 'userAssignedIdentities'. The supported api-versions are '{supported}'. The supported locations are 'chinanorth'."
        )
    }

    #[test]
    fn the_newest_known_version_that_azure_supports_is_taken() {
        let taken = |supported: &str| fallback(IDENTITIES, "2024-11-30", &no_provider(supported));
        assert_eq!(taken("2015-08-31-preview, 2018-11-30, 2023-01-31, 2023-07-31-preview"), Some("2023-01-31"));
        assert_eq!(taken("2023-01-31,2026-04-30"), Some("2026-04-30"));
        assert_eq!(taken("2015-08-31-preview, 2018-11-30"), None, "without federated identity credentials");
        assert_eq!(taken("2023-01-31, 2024-11-30"), None, "the version is not the problem");
        assert_eq!(taken(""), None);
        let of_arm = "The api-version '2022-04-01' is invalid. The supported versions are '2015-07-01,2018-07-01'.";
        assert_eq!(fallback(Provider::Authorization, "2022-04-01", of_arm), None, "conditions would not be seen");
        assert_eq!(fallback(IDENTITIES, "2024-11-30", "The resource type could not be found."), None);
    }

    #[test]
    fn default_versions_are_known_and_have_what_is_needed() {
        for provider in PROVIDERS {
            let version = default_version(provider);
            assert!(known(provider).contains(&version) && version >= oldest(provider));
            assert!(known(provider).is_sorted_by(|one, other| one > other), "the newest comes first");
        }
        assert!(default_version(IDENTITIES) >= WITH_ISOLATION_SCOPE);
    }

    #[test]
    fn a_version_that_is_set_has_to_be_new_enough() {
        let of = |text: &str| parse(text).map(|parsed| (parsed.provider, parsed.version));
        assert_eq!(of("Microsoft.ManagedIdentity=2023-01-31"), Ok((IDENTITIES, "2023-01-31".to_owned())));
        assert_eq!(
            of("microsoft.authorization=2020-04-01-Preview"),
            Ok((Provider::Authorization, "2020-04-01-preview".to_owned()))
        );
        for bad in [
            "2023-01-31",
            "Microsoft.Storage=2023-01-31",
            "Microsoft.ManagedIdentity=latest",
            "Microsoft.ManagedIdentity=2024-11-30&x",
            "Microsoft.ManagedIdentity=2018-11-30",
            "Microsoft.Authorization=2015-07-01",
            "Microsoft.ManagedIdentity=",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_version_is_set_once_for_each_provider() {
        let all = |texts: &[&str]| parse_all(&texts.iter().map(ToString::to_string).collect::<Vec<_>>());
        let both = ["Microsoft.ManagedIdentity=2023-01-31", "Microsoft.Authorization=2022-05-01-preview"];
        assert_eq!(all(&both).map(|versions| versions.len()), Ok(2));
        assert!(all(&[both[0], both[0]]).unwrap_err()[0].contains("twice"));
        assert_eq!(all(&["x", "y"]).unwrap_err().len(), 2);
    }

    #[test]
    fn errors_about_a_version_are_told_from_others() {
        assert!(is_unsupported("NoRegisteredProviderFound") && is_unsupported("invalidresourcetype"));
        assert!(!is_unsupported("MissingSubscriptionRegistration") && !is_unsupported(""));
    }
}
