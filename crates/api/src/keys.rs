//! Labels, annotations, finalizers, and the names that injected pods share with the Azure SDKs.

/// Pod label: `"true"` guarantees injection (the pod is denied rather than left without), `"false"` opts out.
pub const INJECT_LABEL: &str = "ensign.dev/inject";
/// Pod annotation that lists the bindings and identities that the pod was injected with.
pub const INJECTED_BY_ANNOTATION: &str = "ensign.dev/injected-by";
/// Kubernetes' annotation on mirror pods, which a kubelet creates from a file. The API server rejects volumes and
/// service accounts in such pods.
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// Scheduling gate of a pod that waits for its identity. It is Ensign's own: the controller removes it.
pub const IDENTITY_GATE: &str = "ensign.dev/identity";
/// Pod label, `"true"` while the pod is gated; the controller finds gated pods by it.
pub const GATED_LABEL: &str = "ensign.dev/gated";
/// Annotation on a `ManagedIdentity`: remove the finalizer without touching Azure.
pub const ABANDON_ANNOTATION: &str = "ensign.dev/abandon";
/// Annotation on the webhook's Secret, with any value: rotate the CA of its certificates, step by step.
pub const ROTATE_CA_ANNOTATION: &str = "ensign.dev/rotate-ca";
/// Finalizer on both kinds: a federated identity credential may exist because of this object.
pub const CREDENTIALS_FINALIZER: &str = "ensign.dev/credentials";

/// Environment variable with the client ID of the identity.
pub const ENV_CLIENT_ID: &str = "AZURE_CLIENT_ID";
/// Environment variable with the Entra tenant of the identity.
pub const ENV_TENANT_ID: &str = "AZURE_TENANT_ID";
/// Environment variable with the path of the projected token.
pub const ENV_TOKEN_FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";
/// Environment variable with the Entra authority, with its trailing slash.
pub const ENV_AUTHORITY_HOST: &str = "AZURE_AUTHORITY_HOST";

/// Name of the projected volume that holds the token.
pub const TOKEN_VOLUME: &str = "azure-identity-token";
/// Where that volume is mounted; part of the contract that applications rely on.
pub const TOKEN_MOUNT_PATH: &str = "/var/run/secrets/azure/wi";
/// Path of the token inside the volume.
pub const TOKEN_PATH: &str = "token/azure-identity-token";
/// The absolute path of the token inside a container.
pub const TOKEN_FILE: &str = "/var/run/secrets/azure/wi/token/azure-identity-token";
