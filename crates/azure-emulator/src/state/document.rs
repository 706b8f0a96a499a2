//! The state as JSON, which `GET /_emulator/state` returns and `PUT` and `--seed` accept.
//!
//! Everything is optional. `{"identities":[{"name":"orders"}]}` is a complete document.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::arm::names;
use super::directory::{DeletedIdentities, IdentityInEntra};
use super::history::Tracked;
use super::model::{
    ArmRights, Credential, DenyAssignment, DenyPolicy, Identity, IdentityId, Lock, ResourceGroup, Settings, State,
    Subscription, SubscriptionConditions,
};
use super::reads::ReadCounter;
use super::roles::{self, RoleAssignmentDocument, RoleDefinitionDocument};
use super::text::normalize_location;

/// The state as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the fields are those of State and its parts")]
pub struct StateDocument {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propagation_seconds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_lifetime_seconds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_latency_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_page_size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_page_size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regions_without_credentials: Option<BTreeSet<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal_replication_seconds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_propagation_seconds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_assignment_limit: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_assignment_page_size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graph_replication_seconds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graph_replication_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spurious_mismatch_percent: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<BTreeSet<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_quota: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_lag_seconds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_replicas: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_seed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscriptions: Option<Vec<SubscriptionDocument>>,
    pub identities: Vec<IdentityDocument>,
    pub locks: Vec<Lock>,
    pub deny_policies: Vec<DenyPolicy>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny_assignments: Vec<DenyAssignment>,
    pub role_definitions: Vec<RoleDefinitionDocument>,
    pub role_assignments: Vec<RoleAssignmentDocument>,
    /// How many GUIDs have been generated, so that a restored state does not generate one twice.
    pub guids_given: u64,
    /// Identities with a write of a credential in progress. Output only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub credential_writes_under_way: Vec<String>,
}

/// A subscription as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are those of Subscription")]
pub struct SubscriptionDocument {
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    #[serde(default)]
    pub resource_groups: Vec<ResourceGroupDocument>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unregistered_providers: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
}

/// A resource group as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are those of ResourceGroup")]
pub struct ResourceGroupDocument {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// An identity as JSON, either with an `id` or with a `name` in the default resource group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the fields are those of Identity")]
pub struct IdentityDocument {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    pub tags: BTreeMap<String, String>,
    /// Output only; it is that of the subscription.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation_scope: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub assignment_restrictions: Vec<String>,
    pub arm_rights: ArmRights,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    pub federated_identity_credentials: Vec<CredentialDocument>,
    /// Entries in the list of credentials with any shape, each by the name that GET and DELETE use:
    ///
    /// ```json
    /// {"identities": [{"name": "orders", "rawCredentials": {
    ///     "name-only": {"name": "name-only"},
    ///     "nulls": {"name": "nulls", "properties": null},
    ///     "odd": {"properties": {"issuer": 1, "subject": null, "audiences": "api://AzureADTokenExchange"}}
    /// }}]}
    /// ```
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw_credentials: BTreeMap<String, Value>,
    /// The service principal is disabled: no tokens.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
    /// Names of credentials that Entra never learns of until they are deleted and created again.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub unlearned_credentials: BTreeSet<String>,
}

/// A federated identity credential as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are those of Credential")]
pub struct CredentialDocument {
    pub name: String,
    pub issuer: String,
    pub subject: String,
    #[serde(default = "default_audiences")]
    pub audiences: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_at: Option<Timestamp>,
}

fn default_audiences() -> Vec<String> {
    vec!["api://AzureADTokenExchange".to_owned()]
}

/// Defaults for everything that a document omits.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// Tenant.
    pub tenant_id: String,
    /// Subscription of an identity without an ID.
    pub subscription_id: String,
    /// Resource group of an identity without an ID.
    pub resource_group: String,
    /// Region.
    pub location: String,
    /// How Azure behaves.
    pub settings: Settings,
}

/// An invalid document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the state document cannot be used: {0}")]
pub struct InvalidDocument(pub(crate) String);

impl StateDocument {
    /// The state that a document describes, with `defaults` for everything that it omits.
    ///
    /// # Errors
    /// When an ID is malformed, or two things share a name, client ID or principal ID.
    pub fn into_state(self, defaults: &Defaults, now: Timestamp) -> Result<State, InvalidDocument> {
        let settings = self.settings(&defaults.settings)?;
        let tenant_id = self.tenant_id.unwrap_or_else(|| defaults.tenant_id.clone());
        let mut state = State {
            subscriptions: subscriptions(self.subscriptions, &tenant_id, defaults)?,
            tenant_id,
            settings,
            identities: Tracked::default(),
            locks: self.locks,
            deny_policies: self.deny_policies,
            deny_assignments: self.deny_assignments,
            role_definitions: roles::read_definitions(self.role_definitions)?.into(),
            role_assignments: Tracked::default(),
            guids_given: self.guids_given,
            reads: ReadCounter::default(),
            deleted_identities: DeletedIdentities::default(),
            exchanges: 0,
            credential_writes_under_way: BTreeSet::new(),
        };
        for identity in self.identities {
            let identity = identity.into_identity(&mut state, defaults, now)?;
            let key = identity.id.key();
            if state.identity_by_client_id(&identity.client_id).is_some()
                || state.identity_by_principal_id(&identity.principal_id).is_some()
            {
                return Err(InvalidDocument(format!("two identities share a client or principal ID: {key}")));
            }
            if state.identities.insert(key.clone(), identity).is_some() {
                return Err(InvalidDocument(format!("two identities have the ID {key}")));
            }
        }
        roles::read_assignments(&mut state, self.role_assignments, defaults, now)?;
        state.forget_the_past();
        Ok(state)
    }
}

fn subscriptions(
    documents: Option<Vec<SubscriptionDocument>>,
    tenant_id: &str,
    defaults: &Defaults,
) -> Result<BTreeMap<String, Subscription>, InvalidDocument> {
    let documents = documents.unwrap_or_else(|| {
        let group =
            ResourceGroupDocument { name: defaults.resource_group.clone(), location: None, tags: BTreeMap::new() };
        vec![SubscriptionDocument {
            id: defaults.subscription_id.clone(),
            tenant_id: None,
            resource_groups: vec![group],
            unregistered_providers: BTreeSet::new(),
            disabled: false,
        }]
    });
    let mut subscriptions = BTreeMap::new();
    for document in documents {
        if !names::is_guid(&document.id) {
            return Err(InvalidDocument(format!("subscription ID {:?} is not a GUID", document.id)));
        }
        let resource_groups = document.resource_groups.into_iter().map(|group| {
            let location = normalize_location(&group.location.unwrap_or_else(|| defaults.location.clone()));
            (group.name.to_lowercase(), ResourceGroup { name: group.name, location, tags: group.tags })
        });
        let subscription = Subscription {
            tenant_id: document.tenant_id.unwrap_or_else(|| tenant_id.to_owned()),
            resource_groups: resource_groups.collect(),
            conditions: SubscriptionConditions {
                unregistered_providers: document.unregistered_providers,
                disabled: document.disabled,
            },
            id: document.id,
        };
        subscriptions.insert(subscription.id.to_lowercase(), subscription);
    }
    Ok(subscriptions)
}

impl IdentityDocument {
    fn into_identity(
        self,
        state: &mut State,
        defaults: &Defaults,
        now: Timestamp,
    ) -> Result<Identity, InvalidDocument> {
        let id = match (&self.id, &self.name) {
            (Some(id), _) => names::identity_id(id)
                .ok_or_else(|| InvalidDocument(format!("{id:?} is not the ARM ID of a user-assigned identity")))?,
            (None, Some(name)) if names::is_identity_name(name) => IdentityId {
                subscription: defaults.subscription_id.clone(),
                resource_group: defaults.resource_group.clone(),
                name: name.clone(),
            },
            (None, name) => {
                return Err(InvalidDocument(format!("an identity needs an id or a valid name, not {name:?}")));
            }
        };
        let group = state
            .subscription(&id.subscription)
            .and_then(|subscription| subscription.resource_groups.get(&id.resource_group.to_lowercase()))
            .ok_or_else(|| InvalidDocument(format!("the resource group of {} is not in it", id.in_answers())))?;
        let location = normalize_location(&self.location.unwrap_or_else(|| group.location.clone()));
        let mut guid = |given: Option<String>, what: &str| match given {
            Some(guid) if names::is_guid(&guid) => Ok(guid),
            Some(guid) => Err(InvalidDocument(format!("{guid:?} of {} is not a GUID", id.in_answers()))),
            None => Ok(state.next_guid(&format!("{}/{what}", id.key()))),
        };
        let client_id = guid(self.client_id, "client")?;
        let principal_id = guid(self.principal_id, "principal")?;
        let mut credentials = BTreeMap::new();
        for credential in self.federated_identity_credentials {
            let credential = Credential {
                name: credential.name,
                issuer: credential.issuer,
                subject: credential.subject,
                audiences: credential.audiences,
                written_at: credential.written_at.unwrap_or(now),
            };
            if let Some(twin) = credentials.insert(credential.name.to_lowercase(), credential) {
                return Err(InvalidDocument(format!("two credentials of {} are named {}", id.in_answers(), twin.name)));
            }
        }
        let raw: BTreeMap<String, Value> =
            self.raw_credentials.into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect();
        if let Some(name) = raw.keys().find(|name| credentials.contains_key(*name)) {
            return Err(InvalidDocument(format!("two credentials of {} are named {name}", id.in_answers())));
        }
        Ok(Identity {
            id,
            location,
            tags: self.tags,
            isolation_scope: self.isolation_scope.unwrap_or_else(|| "None".to_owned()),
            assignment_restrictions: self.assignment_restrictions,
            client_id,
            principal_id,
            arm_rights: self.arm_rights,
            created_at: self.created_at.unwrap_or(now),
            credentials,
            raw_credentials: raw,
            entra: IdentityInEntra {
                disabled: self.disabled,
                unlearned: self.unlearned_credentials.iter().map(|name| name.to_lowercase()).collect(),
            },
        })
    }
}

impl From<&State> for StateDocument {
    fn from(state: &State) -> Self {
        Self {
            tenant_id: Some(state.tenant_id.clone()),
            subscriptions: Some(state.subscriptions.values().map(SubscriptionDocument::from).collect()),
            identities: state.identities.values().map(|identity| identity_document(state, identity)).collect(),
            locks: state.locks.clone(),
            deny_policies: state.deny_policies.clone(),
            deny_assignments: state.deny_assignments.clone(),
            role_definitions: roles::definition_documents(state),
            role_assignments: roles::assignment_documents(state),
            guids_given: state.guids_given,
            credential_writes_under_way: state.credential_writes_under_way.iter().cloned().collect(),
            ..Self::of_settings(&state.settings)
        }
    }
}

impl From<&Subscription> for SubscriptionDocument {
    fn from(subscription: &Subscription) -> Self {
        let resource_groups = subscription.resource_groups.values().map(|group| ResourceGroupDocument {
            name: group.name.clone(),
            location: Some(group.location.clone()),
            tags: group.tags.clone(),
        });
        Self {
            id: subscription.id.clone(),
            tenant_id: Some(subscription.tenant_id.clone()),
            resource_groups: resource_groups.collect(),
            unregistered_providers: subscription.conditions.unregistered_providers.clone(),
            disabled: subscription.conditions.disabled,
        }
    }
}

fn identity_document(state: &State, identity: &Identity) -> IdentityDocument {
    let credentials = identity.credentials.values().map(|credential| CredentialDocument {
        name: credential.name.clone(),
        issuer: credential.issuer.clone(),
        subject: credential.subject.clone(),
        audiences: credential.audiences.clone(),
        written_at: Some(credential.written_at),
    });
    IdentityDocument {
        id: Some(identity.id.in_answers()),
        name: Some(identity.id.name.clone()),
        location: Some(identity.location.clone()),
        tags: identity.tags.clone(),
        tenant_id: Some(state.tenant_of(&identity.id).to_owned()),
        client_id: Some(identity.client_id.clone()),
        principal_id: Some(identity.principal_id.clone()),
        isolation_scope: Some(identity.isolation_scope.clone()),
        assignment_restrictions: identity.assignment_restrictions.clone(),
        arm_rights: identity.arm_rights.clone(),
        created_at: Some(identity.created_at),
        federated_identity_credentials: credentials.collect(),
        raw_credentials: identity.raw_credentials.clone(),
        disabled: identity.entra.disabled,
        unlearned_credentials: identity.entra.unlearned.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::state::arm::fixtures::{defaults, now};

    fn state(document: Value) -> Result<State, InvalidDocument> {
        serde_json::from_value::<StateDocument>(document).unwrap().into_state(&defaults(), now())
    }

    #[test]
    fn an_identity_needs_only_a_name() {
        let state = state(json!({"identities": [{"name": "orders", "armRights": "all"}]})).unwrap();
        let identity = state.identities.values().next().unwrap();
        assert_eq!(identity.id.resource_group, defaults().resource_group);
        assert_ne!(identity.client_id, identity.principal_id);
        assert_eq!(identity.arm_rights, ArmRights::All);
    }

    #[test]
    fn a_state_survives_a_round_trip_through_json() {
        let first = state(json!({
            "identities": [{
                "name": "orders",
                "federatedIdentityCredentials": [{"name": "one", "issuer": "https://i", "subject": "s"}],
                "rawCredentials": {"two": {"properties": null}},
                "assignmentRestrictions": ["Microsoft.Compute"],
                "disabled": true,
                "unlearnedCredentials": ["one"]
            }],
            "locks": [{"scope": "/subscriptions/x"}],
            "denyPolicies": [{"name": "no", "scope": "/subscriptions/x", "wrapped": true}],
            "denyAssignments": [{"name": "no", "scope": "/subscriptions/x"}],
            "identityQuota": 7,
            "readLagSeconds": 30,
            "roleDefinitions": [{
                "name": "c0500000-0000-4000-8000-000000000001", "roleName": "Mine", "permissions": [{"actions": ["*"]}]
            }],
            "roleAssignments": [{"identity": "orders", "role": "mine"}, {"identity": "orders", "role": "Reader", "scope": "/"}]
        }))
        .unwrap();
        let document = StateDocument::from(&first);
        let second = document.clone().into_state(&defaults(), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(StateDocument::from(&second), document);
    }

    #[test]
    fn an_invalid_document_is_rejected() {
        let orders = json!({"name": "orders"});
        let invalid = [
            json!({"identities": [orders, orders]}),
            json!({"identities": [{"name": "x"}]}),
            json!({"identities": [{}]}),
            json!({"graphReplicationStatus": 500}),
            json!({"identities": [{"id": "orders"}]}),
            json!({"identities": [{"name": "orders", "clientId": "me"}]}),
            json!({"identities": [{
                "name": "orders",
                "federatedIdentityCredentials": [{"name": "One", "issuer": "https://i", "subject": "s"}],
                "rawCredentials": {"one": {}},
            }]}),
            json!({"identities": [orders], "subscriptions": []}),
            json!({"subscriptions": [{"id": "mine"}]}),
            json!({"roleAssignments": [{"identity": "orders", "role": "Reader"}]}),
            json!({"identities": [orders], "roleAssignments": [{"identity": "orders", "role": "Nobody"}]}),
            json!({"identities": [orders], "roleAssignments": [{"identity": "orders", "role": "Reader", "scope": "x"}]}),
            json!({"identities": [orders], "roleAssignments": [{"identity": "orders", "role": "Reader", "name": "x"}]}),
            json!({"roleAssignments": [{"role": "Reader"}]}),
            json!({"roleDefinitions": [{"name": "x", "roleName": "x", "permissions": []}]}),
            json!({"roleDefinitions": [
                {"name": "8E3AF657-a8ff-443c-a75c-2fe8c4bcb635", "roleName": "x", "permissions": []}
            ]}),
        ];
        for document in invalid {
            assert!(state(document.clone()).is_err(), "{document} must be rejected");
        }
        assert!(serde_json::from_value::<StateDocument>(json!({"identitys": []})).is_err(), "a typo");
    }
}
