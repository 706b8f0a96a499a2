//! How objects are named, in the API server's URLs and in this process.

use std::sync::Arc;

use ensign_api::NamespacedName;
use ensign_core::cel::PolicyKind;
use kube::api::ApiResource;

/// The name of a binding. Shared, because there are thousands and each is in several indexes.
pub(crate) type BindingName = Arc<NamespacedName>;

/// The name of a pod.
pub(crate) type PodName = NamespacedName;

/// The API of an admission policy; k8s-openapi has no such type for the oldest version of Kubernetes that is supported.
pub(crate) fn policy_resource(kind: PolicyKind) -> ApiResource {
    admission_resource(kind.as_str(), kind.plural())
}

/// The API of a kind of `admissionregistration.k8s.io/v1`.
pub(crate) fn admission_resource(kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: "admissionregistration.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "admissionregistration.k8s.io/v1".to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}
