//! Entra's error codes for a token exchange: what each means, and who has to do what.
//!
//! The codes are those of public logs (docs/troubleshooting.md lists the same ones, which a test compares).

/// What a code says about the trust between a service account and an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Entra knows no credential for the token. Resource Manager may know one.
    NoTrust,
    /// Entra can't read the cluster's issuer.
    IssuerUnreachable,
    /// Anything else.
    Other,
}

/// An error code.
#[derive(Clone, Copy, Debug)]
pub struct EntraCode {
    /// Its number, after `AADSTS`.
    pub number: u32,
    /// Its meaning.
    pub meaning: Meaning,
    /// What it says.
    pub says: &'static str,
    /// Who has to do what.
    pub cure: &'static str,
}

const fn code(number: u32, meaning: Meaning, says: &'static str, cure: &'static str) -> EntraCode {
    EntraCode { number, meaning, says, cure }
}

const UNREACHABLE: &str = "Entra can't read the issuer's documents";
const PUBLISH: &str =
    "publish the issuer's discovery document and keys at a public https address with a publicly trusted certificate";
const NO_MATCH: &str = "compare the credentials of the identity with the token";

/// Every known code.
pub const CODES: &[EntraCode] = &[
    code(70021, Meaning::NoTrust, "no credential matches the token", NO_MATCH),
    code(70025, Meaning::NoTrust, "the identity has no credentials", NO_MATCH),
    code(700_211, Meaning::NoTrust, "no credential matches the token's issuer", NO_MATCH),
    code(700_212, Meaning::NoTrust, "no credential matches the token's audience", NO_MATCH),
    code(700_213, Meaning::NoTrust, "no credential matches the token's subject", NO_MATCH),
    code(50166, Meaning::IssuerUnreachable, UNREACHABLE, PUBLISH),
    code(90061, Meaning::IssuerUnreachable, UNREACHABLE, PUBLISH),
    code(501_661, Meaning::IssuerUnreachable, UNREACHABLE, PUBLISH),
    code(
        900_612,
        Meaning::IssuerUnreachable,
        "Entra can't parse the issuer's keys",
        "publish what the API server serves at /openid/v1/jwks; RSA keys only",
    ),
    code(
        7_000_272,
        Meaning::Other,
        "the key that signed the token is not among the issuer's keys that Entra knows",
        "publish the keys; Entra reads them again within half an hour",
    ),
    code(
        7_002_138,
        Meaning::Other,
        "a credential's subject differs from the token's in upper and lower case only",
        "correct the credential that was written by hand",
    ),
    code(
        700_024,
        Meaning::Other,
        "the token is not valid at this time",
        "check the clocks of the API server and of this machine",
    ),
    code(
        700_016,
        Meaning::Other,
        "the identity is not known in the tenant",
        "if the identity was created a moment ago, wait; otherwise it is in another tenant, or was deleted and recreated",
    ),
    code(90002, Meaning::Other, "the tenant is not known", "correct --azure-tenant-id or --azure-cloud"),
    code(
        7_000_112,
        Meaning::Other,
        "the identity's service principal is disabled",
        "an Entra administrator has to enable it (Enterprise applications, Managed identities)",
    ),
    code(
        53003,
        Meaning::Other,
        "a Conditional Access policy for workload identities blocks the identity",
        "an Entra administrator has to exempt it, or to allow the cluster's egress addresses",
    ),
    code(
        50196,
        Meaning::Other,
        "Entra detected a loop of requests for the same token",
        "wait some minutes; a program asks for a new token each time instead of caching it",
    ),
    code(
        500_011,
        Meaning::Other,
        "the resource that the token is for is not known in the tenant",
        "correct the scope, or --azure-cloud: each cloud has its own resources",
    ),
    code(1_002_012, Meaning::Other, "the scope is not valid", "request a scope that ends in /.default"),
    code(
        700_222,
        Meaning::Other,
        "the token was issued by Entra",
        "only tokens of the cluster's own issuer can be exchanged",
    ),
    code(700_235, Meaning::Other, "a flexible credential is not supported here", "replace it by one with a subject"),
    code(50027, Meaning::Other, "the token is not a valid JWT", "check that the API server signs with RS256"),
];

/// The known code with this number.
pub fn find(number: u32) -> Option<&'static EntraCode> {
    CODES.iter().find(|code| code.number == number)
}

/// The number of the first code in an error's text.
pub fn number_in(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("AADSTS")?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    rest[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_is_listed_once() {
        for code in CODES {
            assert_eq!(CODES.iter().filter(|other| other.number == code.number).count(), 1, "{}", code.number);
        }
    }

    #[test]
    fn a_code_is_read_from_a_message() {
        assert_eq!(number_in("AADSTS700213: No matching …"), Some(700_213));
        assert_eq!(number_in("AADSTS: x"), None);
        assert_eq!(number_in("AADSTS99999999999: x"), None);
        assert_eq!(number_in("no response"), None);
        assert_eq!(find(70025).map(|code| code.meaning), Some(Meaning::NoTrust));
        assert!(find(1).is_none());
    }
}
