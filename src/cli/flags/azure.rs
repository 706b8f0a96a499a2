//! Flags for Azure: the cloud and the tenant, how to connect, the controller's identity, and where it may act.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::cli::usage_errors::Problems;
use ensign_api::arm_id::is_guid;
use ensign_azure::cloud::{Cloud, CloudArgs};
use ensign_azure::credential::{OwnIdentity, other_authority};
use ensign_azure::{Connection, ProxySettings, read_certificates};
use ensign_core::acceptance::scopes::{AllowedScopes, AzureScope};
use ensign_core::api_versions;
use ensign_runtime::error_chain;

/// The variables that other programs read a proxy from; the first one that is set applies.
const PROXY_VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
const NO_PROXY_VARIABLES: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// Azure. Each flag is also an environment variable.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct AzureArgs {
    #[command(flatten)]
    cloud: CloudArgs,
    /// Entra tenant of this install, a GUID [default: `AZURE_TENANT_ID`, the tenant of the controller's own identity]
    #[arg(long, env = "ENSIGN_AZURE_TENANT_ID", value_name = "GUID")]
    azure_tenant_id: Option<String>,
    /// ARM IDs of subscriptions, resource groups or user-assigned identities that the controller may act in, regardless of
    /// the objects; comma-separated or repeated [default: everywhere its role allows]
    #[arg(long, env = "ENSIGN_AZURE_ALLOWED_SCOPES", value_delimiter = ',', value_name = "ARM-ID,…")]
    azure_allowed_scopes: Vec<String>,
    /// API version of a resource provider, Microsoft.ManagedIdentity or Microsoft.Authorization; comma-separated or repeated
    /// [default: one that the cloud supports]
    #[arg(long, env = "ENSIGN_AZURE_API_VERSION", value_delimiter = ',', value_name = "PROVIDER=VERSION,…")]
    azure_api_version: Vec<String>,
    /// PEM file with certificates to trust for Azure in addition to the system's, for example those of a TLS-inspecting proxy
    #[arg(long, env = "ENSIGN_AZURE_CA_FILE", value_name = "FILE")]
    azure_ca_file: Option<PathBuf>,
    /// Proxy for Entra and ARM, never for the API server: http://host:port or https://host:port, with user:password@ if it
    /// requires authentication [default: `HTTPS_PROXY`, then `ALL_PROXY`]
    #[arg(long, env = "ENSIGN_HTTPS_PROXY", hide_env_values = true, value_name = "URL")]
    https_proxy: Option<Masked>,
    /// Azure hosts to reach without the proxy: domains including their subdomains, IP addresses or CIDR ranges,
    /// comma-separated; * for all hosts [default: `NO_PROXY`]
    #[arg(long, env = "ENSIGN_NO_PROXY", value_name = "HOST,…")]
    no_proxy: Option<String>,
}

/// The settings that result from the flags and the environment.
#[derive(Debug)]
pub(in crate::cli) struct AzureSetup {
    pub(in crate::cli) cloud: Cloud,
    pub(in crate::cli) connection: Connection,
    pub(in crate::cli) own: OwnIdentity,
    pub(in crate::cli) tenant_id: Option<String>,
    pub(in crate::cli) scopes: AllowedScopes,
}

/// A string that may contain a password.
#[derive(Clone)]
struct Masked(String);

impl FromStr for Masked {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Masked")
    }
}

impl AzureArgs {
    /// Validates the flags and returns the settings; the environment is read through `variable`.
    pub(in crate::cli) fn resolve(
        &self,
        variable: impl Fn(&str) -> Option<OsString>,
        problems: &mut Problems,
    ) -> Option<AzureSetup> {
        let cloud = problems.take(self.cloud.resolve());
        let own = problems.take(OwnIdentity::read(&variable));
        let flag = self.azure_tenant_id.as_deref();
        problems.require(flag.is_none_or(is_guid), || {
            format!("--azure-tenant-id {:?} is not a GUID", flag.unwrap_or_default())
        });
        if let (Some(flag), Some(OwnIdentity::Workload { tenant_id, .. })) = (flag, &own) {
            problems.require(flag.eq_ignore_ascii_case(tenant_id), || {
                format!("--azure-tenant-id {flag:?} is not the tenant of the controller's own identity, which is {tenant_id:?} (AZURE_TENANT_ID): one install serves one tenant")
            });
        }
        let scopes = self.scopes(problems);
        let proxy = self.proxy(&variable, problems);
        if let Some(path) = &self.azure_ca_file {
            let read = read_certificates(path);
            problems.take(read.map_err(|error| [format!("--azure-ca-file: {}", error_chain::line(&error))]));
        }
        let flagged =
            |problems: Vec<String>| problems.into_iter().map(|problem| format!("--azure-api-version: {problem}"));
        let api_versions = problems.take(api_versions::parse_all(&self.azure_api_version).map_err(flagged));
        let (cloud, own) = cloud.zip(own)?;
        let cloud = Cloud { api_versions: api_versions?, ..cloud };
        if let Some(authority) = other_authority(&cloud, &variable) {
            tracing::warn!(
                authority,
                used = %cloud.authority_host,
                "AZURE_AUTHORITY_HOST differs from the authority of --azure-cloud; using the latter"
            );
        }
        let tenant_id = flag.or(own.tenant_id()).map(str::to_owned);
        let connection = Connection { extra_ca: self.azure_ca_file.clone(), proxy };
        Some(AzureSetup { cloud, connection, own, tenant_id, scopes })
    }

    /// Rejects empty entries too: a list that is empty by mistake would not limit anything.
    fn scopes(&self, problems: &mut Problems) -> AllowedScopes {
        let parsed = self.azure_allowed_scopes.iter().filter_map(|text| {
            let scope = text.trim().parse::<AzureScope>();
            problems.take(scope.map_err(|error| [format!("--azure-allowed-scopes: {error}")]))
        });
        AllowedScopes::new(parsed.collect::<Vec<_>>())
    }

    fn proxy(&self, variable: impl Fn(&str) -> Option<OsString>, problems: &mut Problems) -> Option<ProxySettings> {
        let first = |names: &[&'static str]| {
            let found = names.iter().find_map(|name| Some((*name, variable(name)?)));
            found.map(|(name, value)| (name, value.to_string_lossy().into_owned()))
        };
        let flag = self.https_proxy.as_ref().map(|Masked(url)| ("--https-proxy", url.clone()));
        let (source, url) = flag.or_else(|| first(&PROXY_VARIABLES)).filter(|(_, url)| !url.is_empty())?;
        let except = self.no_proxy.clone().or_else(|| first(&NO_PROXY_VARIABLES).map(|(_, list)| list));
        let proxy = ProxySettings::new(&url, &except.unwrap_or_default());
        problems.take(proxy.map_err(|problem| [format!("{source} {problem} (its value is not shown)")]))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::Parser;

    use super::*;

    const GUID: &str = "7e000000-0000-4000-8000-00000000007e";
    const SUBSCRIPTION: &str = "/subscriptions/50b00000-0000-4000-8000-00000000050b";

    #[derive(Parser)]
    struct TestCli {
        #[command(flatten)]
        args: AzureArgs,
    }

    fn resolve(flags: &[&str], variables: &[(&str, &str)]) -> Result<AzureSetup, String> {
        let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
        let args = TestCli::try_parse_from(["ensign"].iter().chain(flags)).unwrap().args;
        let mut problems = Problems::default();
        let setup = args.resolve(|name| variables.get(name).map(OsString::from), &mut problems);
        problems.finish(setup).map_err(|failure| failure.to_string())
    }

    fn proxy(flags: &[&str], variables: &[(&str, &str)]) -> Option<String> {
        resolve(flags, variables).unwrap().connection.proxy.map(|proxy| proxy.address())
    }

    #[test]
    fn defaults_are_the_public_cloud_without_a_proxy_or_allowed_scopes() {
        let setup = resolve(&[], &[]).unwrap();
        assert_eq!(setup.cloud.authority_host.as_str(), "https://login.microsoftonline.com/");
        assert_eq!(setup.connection.proxy, None);
        assert_eq!(setup.scopes, AllowedScopes::default());
        assert_eq!(setup.tenant_id, None);
    }

    #[test]
    fn scopes_may_be_separated_by_commas_or_repeated() {
        let (one, other) = (SUBSCRIPTION, format!("{SUBSCRIPTION}/resourceGroups/rg"));
        let both = AllowedScopes::new([one.parse().unwrap(), other.parse().unwrap()]);
        let listed = format!("--azure-allowed-scopes={one}, {other}");
        assert_eq!(resolve(&[&listed], &[]).unwrap().scopes, both);
        let repeated = [format!("--azure-allowed-scopes={one}"), format!("--azure-allowed-scopes={other}")];
        assert_eq!(resolve(&[&repeated[0], &repeated[1]], &[]).unwrap().scopes, both);
    }

    #[test]
    fn an_empty_entry_in_the_list_of_scopes_is_rejected() {
        for list in ["", " ", &format!("{SUBSCRIPTION},")] {
            let refused = resolve(&[&format!("--azure-allowed-scopes={list}")], &[]);
            assert!(refused.unwrap_err().contains("--azure-allowed-scopes"), "{list:?}");
        }
    }

    #[test]
    fn the_flag_takes_precedence_over_the_proxy_of_the_environment() {
        let variables = [("HTTPS_PROXY", "http://upper:1"), ("https_proxy", "http://lower:2"), ("ALL_PROXY", "all:3")];
        assert_eq!(proxy(&["--https-proxy=http://flag:4"], &variables).as_deref(), Some("flag:4"));
        assert_eq!(proxy(&[], &variables).as_deref(), Some("upper:1"));
        assert_eq!(proxy(&[], &variables[1..]).as_deref(), Some("lower:2"));
        assert_eq!(proxy(&[], &variables[2..]).as_deref(), Some("all:3"));
        assert_eq!(proxy(&[], &[("HTTP_PROXY", "http://not-for-https:5")]), None);
        assert_eq!(proxy(&["--https-proxy="], &variables), None, "disabled");
    }

    #[test]
    fn an_invalid_proxy_is_reported_by_its_source_and_its_value_is_not_shown() {
        let flag = resolve(&["--https-proxy=socks5://user:canary@proxy"], &[]).unwrap_err();
        assert!(flag.contains("--https-proxy must be http://") && !flag.contains("canary"), "{flag}");
        let variable = resolve(&[], &[("ALL_PROXY", "socks5://user:canary@proxy")]).unwrap_err();
        assert!(variable.contains("ALL_PROXY must be") && !variable.contains("canary"), "{variable}");
        let args = TestCli::try_parse_from(["ensign", "--https-proxy=http://user:canary@proxy"]).unwrap().args;
        assert!(!format!("{args:?}").contains("canary"));
    }

    #[test]
    fn the_tenant_defaults_to_that_of_the_controllers_own_identity() {
        assert_eq!(resolve(&[], &[("AZURE_TENANT_ID", GUID)]).unwrap().tenant_id.as_deref(), Some(GUID));
        let flag = format!("--azure-tenant-id={GUID}");
        assert_eq!(resolve(&[&flag], &[]).unwrap().tenant_id.as_deref(), Some(GUID));
    }

    #[test]
    fn a_tenant_other_than_the_controllers_own_is_rejected() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "token").unwrap();
        let path = file.path().to_str().unwrap();
        let variables = [("AZURE_CLIENT_ID", GUID), ("AZURE_TENANT_ID", GUID), ("AZURE_FEDERATED_TOKEN_FILE", path)];
        assert!(resolve(&[&format!("--azure-tenant-id={}", GUID.to_uppercase())], &variables).is_ok());
        let other = "--azure-tenant-id=7e000000-0000-4000-8000-0000000000ff";
        assert!(resolve(&[other], &variables).unwrap_err().contains("one install serves one tenant"));
    }

    #[test]
    fn an_api_version_is_set_for_each_provider() {
        let flag = "--azure-api-version=Microsoft.ManagedIdentity=2023-01-31,Microsoft.Authorization=2022-04-01";
        assert_eq!(resolve(&[flag], &[]).unwrap().cloud.api_versions.len(), 2);
        assert_eq!(resolve(&[], &[]).unwrap().cloud.api_versions, []);
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let flags = [
            "--azure-cloud=custom",
            "--azure-arm-endpoint=http://arm.example/",
            "--azure-token-audience=a b",
            "--azure-tenant-id=contoso",
            "--azure-allowed-scopes=/subscriptions/x,rg",
            "--azure-ca-file=/nowhere/ca.pem",
            "--https-proxy=ftp://proxy",
            "--azure-api-version=2018-11-30",
        ];
        let variables = [("AZURE_CLIENT_ID", "c-1"), ("AZURE_TENANT_ID", GUID)];
        let problems = resolve(&flags, &variables).unwrap_err();
        let named = [
            "--azure-arm-endpoint",
            "needs --azure-authority-host",
            "--azure-token-audience",
            "AZURE_CLIENT_ID \"c-1\"",
            "AZURE_FEDERATED_TOKEN_FILE is not set",
            "--azure-tenant-id \"contoso\"",
            "\"/subscriptions/x\"",
            "\"rg\"",
            "--azure-ca-file: cannot read",
            "--https-proxy must be",
            "--azure-api-version: \"2018-11-30\"",
        ];
        assert_eq!(problems.lines().count(), named.len() + 1, "{problems}");
        for flag in named {
            assert!(problems.contains(flag), "{flag} is not reported: {problems}");
        }
    }
}
