//! The resources that tokens can be requested for.

use crate::state::model::State;
use crate::state::names_arm;

/// Hosts of Azure's services in its clouds.
const HOSTS: [&str; 29] = [
    "graph.microsoft.com",
    "graph.microsoft.us",
    "microsoftgraph.chinacloudapi.cn",
    "graph.windows.net",
    "vault.azure.net",
    "vault.usgovcloudapi.net",
    "vault.azure.cn",
    "managedhsm.azure.net",
    "storage.azure.com",
    "database.windows.net",
    "database.usgovcloudapi.net",
    "database.chinacloudapi.cn",
    "ossrdbms-aad.database.windows.net",
    "ossrdbms-aad.database.usgovcloudapi.net",
    "ossrdbms-aad.database.chinacloudapi.cn",
    "servicebus.azure.net",
    "eventhubs.azure.net",
    "cosmos.azure.com",
    "redis.azure.com",
    "azconfig.io",
    "batch.core.windows.net",
    "cognitiveservices.azure.com",
    "ai.azure.com",
    "search.azure.com",
    "monitor.azure.com",
    "api.loganalytics.io",
    "containerregistry.azure.net",
    "digitaltwins.azure.net",
    "dev.azuresynapse.net",
];

/// Services where each resource has a host name of its own below this one.
const DOMAINS: [&str; 5] = [
    "blob.core.windows.net",
    "queue.core.windows.net",
    "table.core.windows.net",
    "servicebus.windows.net",
    "documents.azure.com",
];

/// Other names of applications: the token exchange, Microsoft Graph, Azure Kubernetes Service, Azure DevOps.
const APPLICATIONS: [&str; 4] = [
    "api://AzureADTokenExchange",
    "00000003-0000-0000-c000-000000000000",
    "6dae42f8-4368-4678-94ff-3960e28e3630",
    "499b84ac-1321-427f-aa17-267ca6975798",
];

/// Whether an application in the tenant has this resource: ARM, one of Azure's services, or what the settings name.
pub(super) fn exists(state: &State, resource: &str, arm_url: &str) -> bool {
    let resource = resource.strip_suffix('/').unwrap_or(resource);
    let host = resource.strip_prefix("https://").unwrap_or_default().to_ascii_lowercase();
    let below = |domain: &&str| host.strip_suffix(*domain).is_some_and(|name| name.len() > 1 && name.ends_with('.'));
    names_arm(resource, arm_url)
        || resource.strip_prefix(arm_url) == Some("/graph")
        || HOSTS.contains(&host.as_str())
        || DOMAINS.iter().any(below)
        || APPLICATIONS.iter().any(|name| resource.eq_ignore_ascii_case(name))
        || state.settings.directory.resources.iter().any(|known| known.trim_end_matches('/') == resource)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::state::arm::fixtures::state;

    #[test]
    fn azures_services_and_those_of_the_settings_exist() {
        let state = state(json!({"resources": ["api://my-app"]}));
        for resource in [
            "https://management.azure.com/",
            "https://emulator",
            "https://emulator/graph",
            "https://vault.azure.net",
            "https://storage.azure.com/",
            "https://account.blob.core.windows.net",
            "https://graph.microsoft.com",
            "api://AzureADTokenExchange",
            "api://my-app",
        ] {
            assert!(exists(&state, resource, "https://emulator"), "{resource}");
        }
        for resource in [
            "https://nobody.example",
            "api://other",
            "https://.blob.core.windows.net",
            "vault.azure.net",
            "https://vault.azure.net//",
            "",
        ] {
            assert!(!exists(&state, resource, "https://emulator"), "{resource}");
        }
    }
}
