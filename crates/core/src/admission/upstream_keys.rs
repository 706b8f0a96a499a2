//! Labels, annotations and names of azure-workload-identity.

/// Pod label that requests injection; only the value `true` does.
pub const USE_LABEL: &str = "azure.workload.identity/use";
/// Annotation of pods and service accounts: lifetime of the token, in seconds.
pub const EXPIRATION_ANNOTATION: &str = "azure.workload.identity/service-account-token-expiration";
/// Annotation of pods: containers that are not injected, separated by semicolons.
pub const SKIP_CONTAINERS_ANNOTATION: &str = "azure.workload.identity/skip-containers";
/// Annotation of pods: they request the proxy sidecar, whatever the value.
pub const PROXY_ANNOTATION: &str = "azure.workload.identity/inject-proxy-sidecar";

/// Prefix of the token volume's name, which policies in the cluster may match.
pub(crate) const VOLUME_PREFIX: &str = "azure-workload-identity-reserved-";
