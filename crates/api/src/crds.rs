//! The CRDs, generated from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use super::{ManagedIdentity, ManagedIdentityBinding, ManagedIdentityClass};

/// All CRDs, with the names of their files under `crds/`.
pub fn all() -> Vec<(&'static str, CustomResourceDefinition)> {
    [
        ("managedidentities.yaml", ManagedIdentity::crd()),
        ("managedidentitybindings.yaml", ManagedIdentityBinding::crd()),
        ("managedidentityclasses.yaml", ManagedIdentityClass::crd()),
    ]
    .map(|(name, crd)| (name, conventional(crd)))
    .into()
}

/// Adapts the schema to Kubernetes' conventions where Rust's types differ.
fn conventional(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let schemas = crd.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut());
    schemas.filter_map(|schema| schema.open_api_v3_schema.as_mut()).for_each(conventional_schema);
    crd
}

fn conventional_schema(schema: &mut JSONSchemaProps) {
    // Optional means absent: a null that is stored counts as present for CEL's has().
    schema.nullable = None;
    // The API server has no unsigned formats; the bounds are equivalent.
    if schema.format.as_deref() == Some("uint32") {
        schema.format = Some("int32".to_owned());
    }
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(conventional_schema);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        conventional_schema(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        conventional_schema(values);
    }
}

/// The CRDs as YAML, each with the name of its file.
pub fn all_as_yaml() -> Result<Vec<(&'static str, String)>, serde_saphyr::ser::Error> {
    all().into_iter().map(|(name, crd)| Ok((name, serde_saphyr::to_string(&crd)?))).collect()
}
