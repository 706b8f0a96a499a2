//! Whether a `ManagedIdentity` is accepted, and which one owns an identity in Azure.

use kube::ResourceExt;

use super::scopes::AllowedScopes;
use ensign_api::conditions::{Reason, Verdict};
use ensign_api::{ArmId, ManagedIdentity};

/// The ARM ID of the identity that the object names, or the verdict `InvalidSpec`.
pub fn arm_id(object: &ManagedIdentity) -> Result<ArmId, Verdict> {
    match (&object.spec.existing, &object.spec.provision) {
        (Some(existing), None) => existing
            .resource_id
            .parse()
            .map_err(|error| Verdict::bad(Reason::InvalidSpec, format!("spec.existing.resourceID: {error}"))),
        (None, Some(provision)) => {
            let (subscription, group) = (&provision.subscription_id, &provision.resource_group);
            // Parsing validates each part, so none can add a path segment.
            format!(
                "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{}",
                provision.name
            )
            .parse()
            .map_err(|error| Verdict::bad(Reason::InvalidSpec, format!("spec.provision: {error}")))
        }
        (Some(_), Some(_)) | (None, None) => {
            Err(Verdict::bad(Reason::InvalidSpec, "exactly one of spec.existing and spec.provision is required"))
        }
    }
}

/// The object that owns the identity in Azure, among all that name it: the oldest, or the first by name if equally old.
pub fn owner<'a>(siblings: &[&'a ManagedIdentity]) -> Option<&'a ManagedIdentity> {
    siblings
        .iter()
        .copied()
        .min_by_key(|object| (object.metadata.creation_timestamp.as_ref().map(|time| time.0), object.name_any()))
}

/// The condition `Accepted`, given all objects that name the same identity in Azure (`siblings`).
pub fn accept(
    object: &ManagedIdentity,
    siblings: &[&ManagedIdentity],
    own_client_id: Option<&str>,
    scopes: &AllowedScopes,
) -> Verdict {
    let id = match arm_id(object) {
        Ok(id) => id,
        Err(verdict) => return verdict,
    };
    if let Some(owner) = owner(siblings).filter(|owner| owner.name_any() != object.name_any()) {
        let owner = owner.name_any();
        return Verdict::bad(
            Reason::DuplicateIdentity,
            format!(
                "ManagedIdentity {owner} is older and names {id} too: a cluster operator has to add the allowedSubjects of one of the two to the other, and then delete it"
            ),
        );
    }
    if let Some(verdict) = scopes.refusal(&id) {
        return verdict;
    }
    let client_id = object.status.as_ref().and_then(|status| status.client_id.as_deref());
    if is_own(client_id, own_client_id) {
        return own_identity(&id);
    }
    Verdict::good(Reason::Accepted, format!("owns {id} in this cluster"))
}

/// Whether the client ID is that of the controller's own identity.
pub fn is_own(client_id: Option<&str>, own_client_id: Option<&str>) -> bool {
    client_id.zip(own_client_id).is_some_and(|(one, other)| one.eq_ignore_ascii_case(other))
}

/// The verdict for Ensign's own identity, which must not be shared.
pub fn own_identity(id: &ArmId) -> Verdict {
    Verdict::bad(
        Reason::OwnIdentity,
        format!("{id} is the controller's own identity: a cluster operator has to name another one"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const ID: &str = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders";

    fn identity(name: &str, second: u8, spec: &Value) -> ManagedIdentity {
        serde_json::from_value(json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentity",
            "metadata": {"name": name, "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")},
            "spec": spec,
        }))
        .unwrap()
    }

    fn existing(id: &str) -> Value {
        json!({"existing": {"resourceID": id}})
    }

    #[test]
    fn the_oldest_owns_the_identity_and_the_duplicate_names_it() {
        let older = identity("z", 1, &existing(ID));
        let younger = identity(
            "a",
            2,
            &existing(&ID.to_uppercase().replace("MICROSOFT.MANAGEDIDENTITY", "Microsoft.ManagedIdentity")),
        );
        let siblings = [&younger, &older];
        assert!(accept(&older, &siblings, None, &AllowedScopes::default()).holds());
        let rejected = accept(&younger, &siblings, None, &AllowedScopes::default());
        assert_eq!(rejected.reason, Reason::DuplicateIdentity);
        assert!(rejected.message.contains("ManagedIdentity z is older"), "{rejected:?}");
    }

    fn provision(subscription: &str, group: &str, name: &str) -> Value {
        json!({"provision": {
            "subscriptionID": subscription, "resourceGroup": group, "location": "eastus", "name": name,
        }})
    }

    #[test]
    fn a_provisioned_identity_has_the_id_of_its_parts_and_is_limited_by_the_scopes() {
        let subscription = "00000000-0000-0000-0000-000000000001";
        let object = identity("a", 1, &provision(subscription, "RG", "Orders"));
        assert_eq!(arm_id(&object).unwrap().key(), ID.to_lowercase());
        let scopes =
            AllowedScopes::new([format!("/subscriptions/{subscription}/resourceGroups/other").parse().unwrap()]);
        assert_eq!(accept(&object, &[&object], None, &scopes).reason, Reason::ScopeNotAllowed);
        let older = identity("b", 0, &existing(ID));
        assert_eq!(
            accept(&object, &[&object, &older], None, &AllowedScopes::default()).reason,
            Reason::DuplicateIdentity
        );
    }

    #[test]
    fn no_part_of_a_provisioned_identity_can_change_its_path() {
        let guid = "00000000-0000-0000-0000-000000000001";
        let group = "rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/other/x";
        for spec in [
            provision("x", "rg", "orders"),
            provision(&format!("{guid}/resourceGroups/other"), "rg", "orders"),
            provision(guid, "..", "orders"),
            provision(guid, group, "orders"),
            provision(guid, "rg", "../orders"),
            provision(guid, "rg", "orders/federatedIdentityCredentials/x"),
            provision(guid, "rg", "orders?x=y"),
        ] {
            let object = identity("a", 1, &spec);
            assert_eq!(
                accept(&object, &[&object], None, &AllowedScopes::default()).reason,
                Reason::InvalidSpec,
                "{spec}"
            );
        }
    }

    #[test]
    fn a_resource_id_that_the_schema_should_have_rejected_is_rejected() {
        let object = identity("a", 1, &existing("/subscriptions/../x"));
        assert_eq!(accept(&object, &[&object], None, &AllowedScopes::default()).reason, Reason::InvalidSpec);
    }

    #[test]
    fn an_identity_outside_the_allowed_scopes_is_rejected() {
        let object = identity("a", 1, &existing(ID));
        let group = |name: &str| {
            let text = format!("/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/{name}");
            AllowedScopes::new([text.parse().unwrap()])
        };
        assert!(accept(&object, &[&object], None, &group("RG")).holds());
        assert_eq!(accept(&object, &[&object], None, &group("r")).reason, Reason::ScopeNotAllowed);
    }

    #[test]
    fn the_controllers_own_identity_is_never_accepted() {
        let mut object = identity("a", 1, &existing(ID));
        object.status = serde_json::from_value(json!({"clientID": "c0ffee"})).unwrap();
        assert!(accept(&object, &[&object], Some("other"), &AllowedScopes::default()).holds());
        for own in ["c0ffee", "C0FFEE"] {
            assert_eq!(accept(&object, &[&object], Some(own), &AllowedScopes::default()).reason, Reason::OwnIdentity);
        }
    }
}
