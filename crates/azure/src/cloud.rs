//! Azure clouds and their endpoints.

use url::Url;

use ensign_core::api_versions::ApiVersion;

/// Which Azure cloud.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum CloudName {
    /// Azure public cloud.
    #[default]
    Public,
    /// Azure for US government.
    #[value(name = "usgov")]
    UsGov,
    /// Azure operated by 21Vianet.
    China,
    /// Endpoints given by hand, for example of a private cloud or the emulator.
    Custom,
}

/// Flags that select the cloud, for every subcommand that needs one.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct CloudArgs {
    /// Azure cloud
    #[arg(long, env = "ENSIGN_AZURE_CLOUD", value_enum, default_value_t)]
    pub azure_cloud: CloudName,
    /// ARM endpoint, for --azure-cloud custom
    #[arg(long, env = "ENSIGN_AZURE_ARM_ENDPOINT", value_name = "URL")]
    pub azure_arm_endpoint: Option<String>,
    /// Entra authority, for --azure-cloud custom
    #[arg(long, env = "ENSIGN_AZURE_AUTHORITY_HOST", value_name = "URL")]
    pub azure_authority_host: Option<String>,
    /// Audience of the tokens that pods exchange [default: the cloud's own]
    #[arg(long, env = "ENSIGN_AZURE_TOKEN_AUDIENCE", value_name = "AUDIENCE")]
    pub azure_token_audience: Option<String>,
}

/// The endpoints of an Azure cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cloud {
    /// ARM, with a trailing slash.
    pub arm_endpoint: Url,
    /// The audience of Ensign's own tokens for ARM; with `/.default` it is a scope.
    pub arm_audience: String,
    /// Entra, with a trailing slash.
    pub authority_host: Url,
    /// The audience of the tokens that pods exchange.
    pub token_audience: String,
    /// The API versions of its resource providers that are set; at most one each.
    pub api_versions: Vec<ApiVersion>,
}

impl CloudName {
    /// ARM endpoint, Entra authority and token audience.
    fn preset(self) -> [&'static str; 3] {
        match self {
            Self::Public | Self::Custom => {
                ["https://management.azure.com/", "https://login.microsoftonline.com/", "api://AzureADTokenExchange"]
            }
            Self::UsGov => [
                "https://management.usgovcloudapi.net/",
                "https://login.microsoftonline.us/",
                "api://AzureADTokenExchangeUSGov",
            ],
            Self::China => [
                "https://management.chinacloudapi.cn/",
                "https://login.chinacloudapi.cn/",
                "api://AzureADTokenExchangeChina",
            ],
        }
    }

    /// Entra, with a trailing slash, and the audience of the tokens that pods exchange: all that pods need to know about a
    /// cloud. The arguments are --azure-authority-host and --azure-token-audience; an error lists everything wrong with them.
    pub fn entra(
        self,
        authority_host: Option<&str>,
        token_audience: Option<&str>,
    ) -> Result<(Url, String), Vec<String>> {
        let [_, authority, audience] = self.preset();
        let mut problems = Vec::new();
        let authority = self
            .endpoint("--azure-authority-host", authority_host, authority)
            .map_err(|problem| problems.push(problem));
        let audience = token_audience.unwrap_or(audience);
        if audience.is_empty() || audience.len() > 600 || audience.contains(char::is_whitespace) {
            problems.push("--azure-token-audience must have 1 to 600 characters and no whitespace".to_owned());
        }
        match authority {
            Ok(authority) if problems.is_empty() => Ok((authority, audience.to_owned())),
            _ => Err(problems),
        }
    }

    /// An endpoint has to be given for a custom cloud, and only for one.
    fn endpoint(self, flag: &str, given: Option<&str>, preset: &str) -> Result<Url, String> {
        match (given, self == Self::Custom) {
            (Some(text), true) => endpoint(flag, text),
            (Some(_), false) => Err(format!("{flag} needs --azure-cloud custom")),
            (None, true) => Err(format!("--azure-cloud custom needs {flag}")),
            (None, false) => endpoint(flag, preset),
        }
    }
}

impl CloudArgs {
    /// The cloud that the flags select, or everything that is wrong with them.
    pub fn resolve(&self) -> Result<Cloud, Vec<String>> {
        let name = self.azure_cloud;
        let [arm, ..] = name.preset();
        let arm_endpoint = name
            .endpoint("--azure-arm-endpoint", self.azure_arm_endpoint.as_deref(), arm)
            .map_err(|problem| vec![problem]);
        let entra = name.entra(self.azure_authority_host.as_deref(), self.azure_token_audience.as_deref());
        match (arm_endpoint, entra) {
            (Ok(arm_endpoint), Ok((authority_host, token_audience))) => Ok(Cloud {
                arm_endpoint,
                arm_audience: arm.trim_end_matches('/').to_owned(),
                authority_host,
                token_audience,
                api_versions: Vec::new(),
            }),
            (arm, entra) => Err([arm.err(), entra.err()].into_iter().flatten().flatten().collect()),
        }
    }
}

fn endpoint(flag: &str, text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{flag} {text:?} is not a URL: {error}"))?;
    let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty() && url.path() == "/";
    if url.scheme() != "https" || url.host().is_none() || !plain {
        return Err(format!("{flag} {text:?} must be https://<host>[:<port>]/"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_public_cloud_has_its_own_endpoints() {
        let cloud = |azure_cloud| CloudArgs { azure_cloud, ..CloudArgs::default() }.resolve().unwrap();
        assert_eq!(cloud(CloudName::Public).token_audience, "api://AzureADTokenExchange");
        assert_eq!(cloud(CloudName::UsGov).authority_host.as_str(), "https://login.microsoftonline.us/");
        assert_eq!(cloud(CloudName::China).arm_endpoint.as_str(), "https://management.chinacloudapi.cn/");
    }

    #[test]
    fn a_custom_cloud_without_endpoints_reports_both_at_once() {
        let problems = CloudArgs { azure_cloud: CloudName::Custom, ..CloudArgs::default() }.resolve().unwrap_err();
        assert_eq!(problems.len(), 2, "{problems:?}");
    }

    #[test]
    fn endpoints_that_are_not_plain_https_are_rejected() {
        for bad in [
            "http://arm.example/",
            "https://arm.example/path",
            "https://u@arm.example/",
            "arm.example",
            "https://arm.example/?x=y",
        ] {
            let args = CloudArgs {
                azure_cloud: CloudName::Custom,
                azure_arm_endpoint: Some(bad.to_owned()),
                azure_authority_host: Some("https://login.example/".to_owned()),
                azure_token_audience: None,
            };
            assert!(args.resolve().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_endpoint_without_the_custom_cloud_is_rejected() {
        let args = CloudArgs { azure_arm_endpoint: Some("https://arm.example/".into()), ..CloudArgs::default() };
        assert_eq!(args.resolve().unwrap_err(), ["--azure-arm-endpoint needs --azure-cloud custom"]);
    }
}
