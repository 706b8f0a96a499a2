//! Whether an API server supports injection by policies.

/// The first minor version of Kubernetes 1 whose mutating admission policies have no known panics (kubernetes#139032,
/// kubernetes#142181). They are stable from 1.36 on, but there a mutation of a pod can make the request fail.
const FIRST_MINOR: u32 = 37;

/// What the API server reports about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Its version, such as `v1.37.2`, possibly with a vendor's suffix.
    pub git_version: String,
    /// Whether it serves `MutatingAdmissionPolicy` in version v1.
    pub mutating_policies: bool,
}

/// Why the API server does not support injection by policies; `None` if it does.
pub fn shortfall(served: &Served) -> Option<String> {
    let version = &served.git_version;
    let Some((major, minor)) = release(version) else {
        return Some(format!("the API server's version {version:?} can't be parsed"));
    };
    if (major, minor) < (1, FIRST_MINOR) {
        return Some(format!(
            "the API server is {version}; mutating admission policies are used from 1.{FIRST_MINOR} on, because they have \
             known bugs in earlier versions"
        ));
    }
    let missing = "the API server does not serve MutatingAdmissionPolicy of admissionregistration.k8s.io/v1";
    (!served.mutating_policies).then(|| missing.to_owned())
}

fn release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.strip_prefix('v').unwrap_or(version).split('.');
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?;
    let digits = minor.find(|c: char| !c.is_ascii_digit()).unwrap_or(minor.len());
    // A pre-release of the first version lacks some of its fixes.
    let patch = numbers.next()?;
    if minor[..digits].parse() == Ok(FIRST_MINOR) && patch.starts_with("0-") {
        return Some((major, FIRST_MINOR - 1));
    }
    Some((major, minor[..digits].parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(version: &str) -> Served {
        Served { git_version: version.to_owned(), mutating_policies: true }
    }

    #[test]
    fn policies_are_used_from_the_first_version_without_known_bugs() {
        for good in ["v1.37.0", "v1.37.2", "v1.38.0-alpha.1", "v1.40.1+k3s1", "v1.37.4-gke.100", "v2.0.0"] {
            assert_eq!(shortfall(&served(good)), None, "{good}");
        }
        for bad in ["v1.36.9", "v1.33.0", "v1.37.0-rc.1", "v0.0.0-master", "", "v1", "vX.Y.Z"] {
            assert!(shortfall(&served(bad)).is_some(), "{bad}");
        }
    }

    #[test]
    fn an_api_server_that_does_not_serve_policies_is_not_supported() {
        let served = Served { mutating_policies: false, ..served("v1.38.0") };
        assert!(shortfall(&served).unwrap().contains("does not serve MutatingAdmissionPolicy"));
    }
}
