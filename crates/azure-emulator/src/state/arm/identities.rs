//! User-assigned managed identities.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::paging::Page;
use super::versions::ApiVersion;
use super::{ArmAnswer, ArmError, governance, names};
use crate::state::directory::IdentityInEntra;
use crate::state::model::{ArmRights, Identity, IdentityId, State, is_within};
use crate::state::reads::View;
use crate::state::text::{normalize_location, read_object};

const TYPE: &str = "Microsoft.ManagedIdentity/userAssignedIdentities";

/// The body of a PUT.
#[derive(Clone, Debug)]
pub(super) struct IdentityBody {
    location: String,
    tags: BTreeMap<String, String>,
    isolation_scope: Option<String>,
    assignment_restrictions: Option<Vec<String>>,
}

/// The body of a PATCH.
#[derive(Clone, Debug)]
pub(super) struct IdentityPatch {
    tags: Option<BTreeMap<String, String>>,
    isolation_scope: Option<String>,
    assignment_restrictions: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Wire {
    location: Option<String>,
    tags: Option<BTreeMap<String, String>>,
    properties: Option<WireProperties>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireProperties {
    isolation_scope: Option<String>,
    assignment_restrictions: Option<WireRestrictions>,
}

#[derive(Deserialize)]
struct WireRestrictions {
    #[serde(default)]
    providers: Vec<String>,
}

impl Wire {
    fn read(body: &[u8]) -> Result<Self, ArmError> {
        read_object(body).map_err(|error| ArmError::content(&error))
    }

    fn isolation_scope(&self) -> Result<Option<String>, ArmError> {
        let scope = self.properties.as_ref().and_then(|properties| properties.isolation_scope.as_deref());
        let known = |scope: &str| ["None", "Regional"].into_iter().find(|known| known.eq_ignore_ascii_case(scope));
        scope
            .map(|scope| {
                known(scope).map(str::to_owned).ok_or_else(|| {
                    ArmError::bad_request(format!(
                        "The value '{scope}' of 'isolationScope' is invalid: None, Regional."
                    ))
                })
            })
            .transpose()
    }

    fn assignment_restrictions(&mut self) -> Option<Vec<String>> {
        let restrictions = self.properties.as_mut().and_then(|properties| properties.assignment_restrictions.take());
        restrictions.map(|restrictions| restrictions.providers)
    }
}

pub(super) fn read_body(id: &IdentityId, body: &[u8]) -> Result<IdentityBody, ArmError> {
    if !names::is_identity_name(&id.name) {
        let message = format!(
            "The resource name '{}' is invalid: 3 to 128 letters, digits, '-' and '_', starting with a letter or digit.",
            id.name
        );
        return Err(ArmError::bad_request(message));
    }
    let mut wire = Wire::read(body)?;
    let isolation_scope = wire.isolation_scope()?;
    let assignment_restrictions = wire.assignment_restrictions();
    let location = wire.location.map(|location| normalize_location(&location)).filter(|location| !location.is_empty());
    let location = location.ok_or_else(|| {
        ArmError::front(400, "LocationRequired", "The location property is required for this definition.")
    })?;
    if !names::is_location(&location) {
        let message = format!(
            "The provided location '{location}' is not available for resource type '{TYPE}'. List of available regions for the resource type is '{}'.",
            names::locations(",")
        );
        return Err(ArmError::front(400, "LocationNotAvailableForResourceType", message));
    }
    Ok(IdentityBody { location, tags: wire.tags.unwrap_or_default(), isolation_scope, assignment_restrictions })
}

pub(super) fn read_patch(body: &[u8]) -> Result<IdentityPatch, ArmError> {
    let mut wire = Wire::read(body)?;
    let isolation_scope = wire.isolation_scope()?;
    let assignment_restrictions = wire.assignment_restrictions();
    Ok(IdentityPatch { tags: wire.tags, isolation_scope, assignment_restrictions })
}

pub(super) fn check_put(state: &State, id: &IdentityId, body: &IdentityBody, now: Timestamp) -> Result<(), ArmError> {
    governance::allow_write(state, &id.in_answers(), TYPE)?;
    match state.identities.get(&id.key()) {
        None => state.check_directory_quota(now),
        Some(there) if there.location != body.location => Err(ArmError::front(
            409,
            "InvalidResourceLocation",
            format!(
                "The resource '{}' already exists in location '{}' in resource group '{}'. A resource with the same name cannot be created in location '{}'. Please select a new resource name.",
                id.name, there.location, id.resource_group, body.location
            ),
        )),
        Some(_) => Ok(()),
    }
}

pub(super) fn check_patch(state: &State, id: &IdentityId) -> Result<(), ArmError> {
    governance::allow_write(state, &id.in_answers(), TYPE)
}

pub(super) fn check_delete(state: &State, id: &IdentityId) -> Result<(), ArmError> {
    governance::allow_delete(state, &id.in_answers())
}

pub(super) fn put(
    state: &mut State,
    id: &IdentityId,
    body: IdentityBody,
    version: ApiVersion,
    now: Timestamp,
) -> ArmAnswer {
    let key = id.key();
    if let Some(identity) = state.identities.get_mut(&key) {
        identity.tags = body.tags;
        if let Some(scope) = body.isolation_scope {
            identity.isolation_scope = scope;
        }
        if let Some(providers) = body.assignment_restrictions {
            identity.assignment_restrictions = providers;
        }
        let identity = identity.clone();
        return ArmAnswer::ok(show(state, &identity, version));
    }
    let client_id = state.next_guid(&format!("{key}/client"));
    let principal_id = state.next_guid(&format!("{key}/principal"));
    let identity = Identity {
        id: id.clone(),
        location: body.location,
        tags: body.tags,
        isolation_scope: body.isolation_scope.unwrap_or_else(|| "None".to_owned()),
        assignment_restrictions: body.assignment_restrictions.unwrap_or_default(),
        client_id,
        principal_id,
        arm_rights: ArmRights::None,
        created_at: now,
        credentials: BTreeMap::new(),
        raw_credentials: BTreeMap::new(),
        entra: IdentityInEntra::default(),
    };
    let answer = ArmAnswer::created_at(id.in_answers(), show(state, &identity, version));
    state.identities.insert(key, identity);
    answer
}

pub(super) fn patch(
    state: &mut State,
    id: &IdentityId,
    patch: IdentityPatch,
    version: ApiVersion,
) -> Result<Value, ArmError> {
    let identity = state.identities.get_mut(&id.key()).ok_or_else(|| ArmError::identity_not_found(id))?;
    if let Some(tags) = patch.tags {
        identity.tags = tags;
    }
    if let Some(scope) = patch.isolation_scope {
        identity.isolation_scope = scope;
    }
    if let Some(providers) = patch.assignment_restrictions {
        identity.assignment_restrictions = providers;
    }
    let identity = identity.clone();
    Ok(show(state, &identity, version))
}

pub(super) fn get(view: View<'_>, id: &IdentityId, version: ApiVersion) -> Result<Value, ArmError> {
    let identity = view.identity(&id.key()).ok_or_else(|| ArmError::identity_not_found(id))?;
    Ok(show(view.state, identity, version))
}

/// The resources that use an identity. The emulator has none.
pub(super) fn associated_resources(view: View<'_>, id: &IdentityId) -> Result<Value, ArmError> {
    view.identity(&id.key()).ok_or_else(|| ArmError::identity_not_found(id))?;
    Ok(json!({"totalCount": 0, "value": []}))
}

pub(super) fn delete(state: &mut State, id: &IdentityId, now: Timestamp) -> ArmAnswer {
    // Assignments to its principal remain; those at its own scope are deleted with it.
    state.role_assignments.retain(|_, assignment| !is_within(&assignment.scope, &id.key()));
    let was_there = state.identities.remove(&id.key()).is_some();
    if was_there {
        state.identity_was_deleted(now);
    }
    ArmAnswer::deleted(was_there)
}

pub(super) fn list(
    view: View<'_>,
    subscription: &str,
    group: Option<&str>,
    page: &Page,
    version: ApiVersion,
) -> (Vec<Value>, Option<String>) {
    let listed = view.identities().filter(|(_, identity)| {
        identity.id.subscription.eq_ignore_ascii_case(subscription)
            && group.is_none_or(|group| identity.id.resource_group.eq_ignore_ascii_case(group))
    });
    page.cut(listed, view.state.settings.identity_page_size, |identity| show(view.state, identity, version))
}

fn show(state: &State, identity: &Identity, version: ApiVersion) -> Value {
    let mut properties = json!({
        "tenantId": state.tenant_of(&identity.id),
        "principalId": identity.principal_id,
        "clientId": identity.client_id,
    });
    if let (true, Some(properties)) = (version.has_isolation_scope(), properties.as_object_mut()) {
        properties.insert("isolationScope".to_owned(), Value::from(identity.isolation_scope.clone()));
    }
    if let (true, Some(properties)) = (version.has_assignment_restrictions(), properties.as_object_mut()) {
        let restrictions = json!({"providers": identity.assignment_restrictions});
        properties.insert("assignmentRestrictions".to_owned(), restrictions);
    }
    json!({
        "id": identity.id.in_answers(),
        "name": identity.id.name,
        "type": TYPE,
        "location": identity.location,
        "tags": identity.tags,
        "properties": properties,
    })
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;
    use crate::state::arm::fixtures::{ask, identities, orders, state};

    fn put(body: Value) -> Result<ArmAnswer, ArmError> {
        ask(&mut orders(), Method::PUT, &identities("/billing"), body)
    }

    #[allow(clippy::needless_pass_by_value, reason = "tests pass literals")]
    fn refused(body: Value, status: u16, code: &str) {
        let error = put(body.clone()).unwrap_err();
        assert_eq!((error.status, error.code.as_str()), (status, code), "{body}: {}", error.message);
    }

    #[test]
    fn an_identity_is_created_then_updated_then_deleted_then_absent() {
        let mut state = orders();
        let path = identities("/billing");
        let mut put = |tag: &str| {
            let body = json!({"location": "East US", "tags": {"a": tag}});
            ask(&mut state, Method::PUT, &path, body).unwrap()
        };
        let (created, updated) = (put("1"), put("2"));
        assert_eq!((created.status, updated.status), (201, 200));
        let (created, updated) = (created.body.unwrap(), updated.body.unwrap());
        assert_eq!(created["properties"], updated["properties"]);
        assert_eq!(updated["tags"]["a"], "2");
        assert_eq!(created["location"], "eastus");
        let mut delete = || ask(&mut state, Method::DELETE, &path, Value::Null).unwrap();
        assert_eq!(delete(), ArmAnswer::deleted(true));
        assert_eq!(delete(), ArmAnswer::deleted(false));
    }

    fn ask_in(version: &str, method: &Method, below: &str, body: &Value) -> Result<ArmAnswer, ArmError> {
        let caller = crate::state::arm::fixtures::caller(ArmRights::All);
        let query = format!("api-version={version}");
        let body = body.to_string().into_bytes();
        crate::state::arm::fixtures::ask_as(&mut orders(), &caller, method, &identities(below), &query, &body)
    }

    #[test]
    fn a_created_identity_says_where_it_is_and_an_updated_one_does_not() {
        let mut state = orders();
        let mut put = || ask(&mut state, Method::PUT, &identities("/New"), json!({"location": "eastus"})).unwrap();
        let created = put();
        assert_eq!(created.location.unwrap(), created.body.unwrap()["id"]);
        assert_eq!(put().location, None);
    }

    #[test]
    fn properties_depend_on_the_version() {
        let body = json!({
            "location": "eastus",
            "properties": {"isolationScope": "Regional", "assignmentRestrictions": {"providers": ["Microsoft.Compute"]}},
        });
        let properties = |version: &str| {
            let created = ask_in(version, &Method::PUT, "/new", &body).unwrap().body.unwrap();
            let names: Vec<_> = created["properties"].as_object().unwrap().keys().cloned().collect();
            (names.len(), created["properties"]["assignmentRestrictions"].clone())
        };
        assert_eq!(properties("2018-11-30"), (3, Value::Null));
        assert_eq!(properties("2024-11-30"), (4, Value::Null));
        for version in ["2026-04-30", "2026-05-31"] {
            assert_eq!(properties(version), (5, json!({"providers": ["Microsoft.Compute"]})));
        }
        let bare = ask_in("2026-05-31", &Method::PUT, "/new", &json!({"location": "eastus"})).unwrap().body.unwrap();
        assert_eq!(bare["properties"]["assignmentRestrictions"], json!({"providers": []}));
    }

    #[test]
    fn an_identity_has_no_associated_resources() {
        let list = |version: &str, method: &Method, name: &str| {
            let below = format!("/{name}/listAssociatedResources");
            ask_in(version, method, &below, &Value::Null)
                .map_or_else(|error| json!(error.status), |ok| ok.body.unwrap())
        };
        let preview = "2022-01-31-preview";
        assert_eq!(list(preview, &Method::POST, "orders"), json!({"totalCount": 0, "value": []}));
        assert_eq!(list(preview, &Method::POST, "absent"), 404);
        assert_eq!(list(preview, &Method::GET, "orders"), 405);
        assert_eq!(list("2024-11-30", &Method::POST, "orders"), 404);
    }

    #[test]
    fn ids_in_responses_have_resourcegroups_in_lower_case() {
        let body = put(json!({"location": "eastus"})).unwrap().body.unwrap();
        assert!(body["id"].as_str().unwrap().contains("/resourcegroups/Shop-RG/providers/Microsoft.ManagedIdentity/"));
    }

    #[test]
    fn an_identity_without_a_location_is_rejected() {
        refused(json!({}), 400, "LocationRequired");
        refused(json!({"location": " "}), 400, "LocationRequired");
    }

    #[test]
    fn an_identity_in_an_unknown_region_is_rejected() {
        refused(json!({"location": "atlantis"}), 400, "LocationNotAvailableForResourceType");
    }

    #[test]
    fn an_identity_with_an_unknown_isolation_scope_is_rejected() {
        refused(json!({"location": "eastus", "properties": {"isolationScope": "Solar"}}), 400, "BadRequest");
    }

    #[test]
    fn a_body_of_the_wrong_shape_is_rejected() {
        for body in [json!([]), json!("x"), json!({"tags": 1}), json!({"tags": {"a": 1}})] {
            refused(body, 400, "InvalidRequestContent");
        }
    }

    #[test]
    fn an_invalid_name_is_rejected() {
        for name in ["ab", "_ab", "a.b", "%20abc"] {
            let path = identities(&format!("/{name}"));
            let error = ask(&mut orders(), Method::PUT, &path, json!({"location": "eastus"})).unwrap_err();
            assert_eq!((error.status, error.code.as_str()), (400, "BadRequest"), "{name}");
        }
    }

    #[test]
    fn an_identity_can_not_move_to_another_region() {
        let body = json!({"location": "westeurope"});
        let error = ask(&mut orders(), Method::PUT, &identities("/orders"), body).unwrap_err();
        assert_eq!((error.status, error.code.as_str()), (409, "InvalidResourceLocation"));
        assert!(error.message.contains("already exists in location 'eastus' in resource group 'Shop-RG'"));
    }

    #[test]
    fn a_patch_changes_only_the_given_properties() {
        let mut state = orders();
        let mut patch = |body| ask(&mut state, Method::PATCH, &identities("/orders"), body).unwrap().body.unwrap();
        assert_eq!(patch(json!({"tags": {"a": "1"}}))["tags"], json!({"a": "1"}));
        let patched = patch(json!({"properties": {"isolationScope": "regional"}}));
        assert_eq!(
            (&patched["tags"], &patched["properties"]["isolationScope"]),
            (&json!({"a": "1"}), &json!("Regional"))
        );
    }

    #[test]
    fn a_missing_identity_can_be_neither_read_nor_patched() {
        for method in [Method::GET, Method::PATCH] {
            let error = ask(&mut orders(), method, &identities("/absent"), json!({})).unwrap_err();
            assert_eq!(error.status, 404);
            assert_eq!(
                error.message,
                "The Resource 'Microsoft.ManagedIdentity/userAssignedIdentities/absent' under resource group 'Shop-RG' was not found. For more details please go to https://aka.ms/ARMResourceNotFoundFix"
            );
        }
    }

    #[test]
    fn a_lock_prevents_deletion_and_a_read_only_lock_every_write() {
        let scope = identities("/orders");
        for (level, method, allowed) in [
            ("CanNotDelete", Method::DELETE, false),
            ("CanNotDelete", Method::PATCH, true),
            ("ReadOnly", Method::DELETE, false),
            ("ReadOnly", Method::PATCH, false),
            ("ReadOnly", Method::GET, true),
        ] {
            let lock = json!({"scope": scope, "level": level});
            let mut state = state(json!({"identities": [{"name": "orders"}], "locks": [lock]}));
            let result = ask(&mut state, method.clone(), &scope, json!({"location": "eastus"}));
            assert_eq!(result.is_ok(), allowed, "{level} {method}: {result:?}");
            if let Err(error) = result {
                assert_eq!((error.status, error.code.as_str()), (409, "ScopeLocked"));
            }
        }
    }

    #[test]
    fn a_lock_on_a_credential_prevents_deletion_of_its_identity() {
        let lock = json!({"scope": identities("/orders/federatedIdentityCredentials/trust")});
        let mut state = state(json!({"identities": [{"name": "orders"}], "locks": [lock]}));
        let error = ask(&mut state, Method::DELETE, &identities("/orders"), Value::Null).unwrap_err();
        assert_eq!(error.code, "ScopeLocked");
    }

    #[test]
    fn a_policy_denies_only_writes_of_its_type() {
        let policy = json!({"name": "no", "scope": identities("").split("/providers").next(), "resourceType": TYPE});
        let mut state = state(json!({"identities": [{"name": "orders"}], "denyPolicies": [policy]}));
        let error = ask(&mut state, Method::PUT, &identities("/new"), json!({"location": "eastus"})).unwrap_err();
        assert_eq!((error.status, error.code.as_str()), (403, "RequestDisallowedByPolicy"));
        let trust = crate::state::arm::fixtures::trust("https://i", "s");
        assert!(ask(&mut state, Method::PUT, &crate::state::arm::fixtures::credential("new"), trust).is_ok());
    }

    #[test]
    fn a_list_of_identities_is_cut_into_pages() {
        let names = json!([{"name": "one"}, {"name": "two"}, {"name": "three"}]);
        let mut state = state(json!({"identities": names, "identityPageSize": 2}));
        let first = ask(&mut state, Method::GET, &identities("?$top=1"), Value::Null).unwrap().body.unwrap();
        assert_eq!(first["value"].as_array().unwrap().len(), 2, "there is no $top for identities");
        let next = first["nextLink"].as_str().unwrap().strip_prefix("https://arm.test").unwrap();
        let second = ask(&mut state, Method::GET, next, Value::Null).unwrap().body.unwrap();
        assert_eq!(second["value"][0]["name"], "two");
        assert!(second.get("nextLink").is_none());
    }
}
