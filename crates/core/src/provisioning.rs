//! Plans for identities that Ensign provisions: create, update, adopt, delete, or leave untouched.
//!
//! Two tags record the owner of an identity: the cluster ID and the UID of the object that it was created for. They are
//! part of the PUT that creates the identity, so it is recognised as ours from the start, even if the response to the PUT
//! was lost.

use std::collections::BTreeMap;

use crate::credentials::ownership::Cluster;
use ensign_api::conditions::{Reason, Verdict};
use ensign_api::{ArmId, ClaimRef, IfExists, IsolationScope, ProvisionedIdentity, ReclaimPolicy};

/// Tag with the ID of the cluster that owns the identity.
pub const CLUSTER_TAG: &str = "ensign.dev-cluster";
/// Tag with the UID of the object that the identity was created for.
pub const OBJECT_TAG: &str = "ensign.dev-object";
/// Tag with the `namespace/name` of the binding that the identity is for; informational only.
pub const BINDING_TAG: &str = "ensign.dev-binding";

/// The identity as Azure describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AzureIdentity {
    /// ARM resource ID as Azure returned it.
    pub arm_id: String,
    /// Client ID.
    pub client_id: String,
    /// Object ID of the service principal.
    pub principal_id: String,
    /// Entra tenant.
    pub tenant_id: String,
    /// Azure region.
    pub location: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Where tokens for the identity can be requested; `None` if Azure did not return it.
    pub isolation_scope: Option<String>,
}

/// An identity as it should be in Azure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Its region.
    pub location: String,
    /// All of its tags, including those of others.
    pub tags: BTreeMap<String, String>,
    /// Where tokens for it can be requested.
    pub isolation_scope: IsolationScope,
}

/// A write of the identity itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityWrite {
    /// Create it.
    Create(Desired),
    /// Correct what differs, or adopt it.
    Update(Desired),
    /// Delete it and its credentials.
    Delete,
}

/// Who owns an identity, according to its tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// This object.
    ThisObject,
    /// Another object of this cluster.
    OtherObject,
    /// Another cluster.
    OtherCluster,
    /// The tags name no owner.
    Untagged,
}

/// The inputs to a decision about the identity.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a> {
    /// The identity in Azure.
    pub id: &'a ArmId,
    /// The object's `spec.provision`.
    pub spec: &'a ProvisionedIdentity,
    /// The binding that it is reserved for, if any.
    pub claim: Option<&'a ClaimRef>,
    /// UID of the object.
    pub uid: &'a str,
    /// Object ID of the principal in the status, which Azure once confirmed to be this object's.
    pub recorded_principal: Option<&'a str>,
    /// The cluster.
    pub cluster: &'a Cluster,
}

/// What to do about an identity that should exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityPlan {
    /// The write, if one is needed.
    pub write: Option<IdentityWrite>,
    /// Why the identity can't be used, now or at all.
    pub blocker: Option<Verdict>,
}

impl Object<'_> {
    /// Who owns an identity with these tags.
    pub fn holder(&self, tags: &BTreeMap<String, String>) -> Holder {
        let value = |name: &str| tags.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        let clusters = [Some(&self.cluster.id), self.cluster.previous_id.as_ref()];
        match (value(CLUSTER_TAG), value(OBJECT_TAG)) {
            (Some(cluster), _) if !clusters.contains(&Some(cluster)) => Holder::OtherCluster,
            (Some(_), Some(uid)) if uid == self.uid => Holder::ThisObject,
            (Some(_), Some(_)) => Holder::OtherObject,
            (Some(_), None) | (None, _) => Holder::Untagged,
        }
    }

    /// The plan for an identity that does not exist.
    pub fn create(&self) -> IdentityPlan {
        let message = format!("{} is about to be created in Azure", self.id);
        IdentityPlan {
            write: Some(IdentityWrite::Create(self.desired(&BTreeMap::new()))),
            blocker: Some(Verdict::unknown(Reason::Provisioning, message)),
        }
    }

    /// The plan for an identity that exists.
    pub fn update(&self, found: &AzureIdentity) -> IdentityPlan {
        let holder = self.holder(&found.tags);
        // The tags may have been removed by hand; the principal that Azure once confirmed proves ownership too.
        let recorded = self.recorded_principal.is_some_and(|known| known.eq_ignore_ascii_case(&found.principal_id));
        let ours = holder == Holder::ThisObject || (holder == Holder::Untagged && recorded);
        let takes_over = self.spec.if_exists == IfExists::Adopt && holder != Holder::OtherCluster;
        if !ours && !takes_over {
            return IdentityPlan { write: None, blocker: Some(self.exists(holder)) };
        }
        if !same_location(&found.location, &self.spec.location) {
            let message = format!(
                "{} is in region {}, but spec.provision.location is {}: an identity can't be moved. A cluster operator has to set its region in a new ManagedIdentity, or delete it in Azure so that Ensign recreates it",
                self.id, found.location, self.spec.location
            );
            return IdentityPlan { write: None, blocker: Some(Verdict::bad(Reason::LocationMismatch, message)) };
        }
        let desired = self.desired(&found.tags);
        let isolation = desired.isolation_scope.as_str();
        let isolated = found.isolation_scope.as_deref().is_none_or(|scope| scope.eq_ignore_ascii_case(isolation));
        let differs = desired.tags != found.tags || !isolated;
        let pending_adoption = (!ours && differs).then(|| {
            let message = format!("{} is about to be adopted, because spec.provision.ifExists is Adopt", self.id);
            Verdict::unknown(Reason::Provisioning, message)
        });
        IdentityPlan { write: differs.then_some(IdentityWrite::Update(desired)), blocker: pending_adoption }
    }

    /// The write once the object is being deleted and nothing of ours is left under the identity; `None` unless the identity
    /// is provably this object's and `reclaimPolicy` is `Delete`.
    pub fn reclaim(&self, found: &AzureIdentity) -> Option<IdentityWrite> {
        let ours = self.holder(&found.tags) == Holder::ThisObject;
        (ours && self.spec.reclaim_policy == ReclaimPolicy::Delete).then_some(IdentityWrite::Delete)
    }

    /// The desired identity, given its current tags. Tags of others are kept.
    fn desired(&self, tags: &BTreeMap<String, String>) -> Desired {
        let binding = self.claim.map(|claim| (BINDING_TAG, format!("{}/{}", claim.namespace, claim.name)));
        let own = [(CLUSTER_TAG, self.cluster.id.clone()), (OBJECT_TAG, self.uid.to_owned())];
        let wanted = self.spec.tags.iter().map(|(name, value)| (name.as_str(), value.0.clone()));
        let mut all = tags.clone();
        for (name, value) in wanted.chain(own).chain(binding) {
            // Tag names are case-insensitive.
            all.retain(|known, _| known == name || !known.eq_ignore_ascii_case(name));
            all.insert(name.to_owned(), value);
        }
        Desired { location: self.spec.location.clone(), tags: all, isolation_scope: self.spec.isolation_scope }
    }

    fn exists(&self, holder: Holder) -> Verdict {
        let id = self.id;
        let remedy = match holder {
            Holder::OtherCluster => format!(
                "Ensign in another cluster owns it. If that cluster no longer exists, an Azure administrator has to run `az tag update --resource-id {id} --operation delete --tags {CLUSTER_TAG}=`, and a cluster operator has to set spec.provision.ifExists to Adopt; otherwise use another name in a new ManagedIdentity"
            ),
            Holder::OtherObject => format!(
                "it belongs to another ManagedIdentity of this cluster (whose UID is in the tag {OBJECT_TAG}). A cluster operator has to set spec.provision.ifExists to Adopt to transfer it to this object, or use another name in a new ManagedIdentity"
            ),
            Holder::Untagged | Holder::ThisObject => "Ensign did not create it. A cluster operator has to set spec.provision.ifExists to Adopt, or reference it with spec.existing in a new ManagedIdentity".to_owned(),
        };
        Verdict::bad(Reason::IdentityExists, format!("{id} already exists, and Ensign does not touch it: {remedy}"))
    }
}

/// The message of the event for an identity that is left in Azure after its object was deleted.
pub fn left_in_azure(id: &ArmId) -> String {
    format!(
        "{id} is left in Azure although spec.provision.reclaimPolicy is Delete: its tags {CLUSTER_TAG} and {OBJECT_TAG} do not identify it as this object's. If it is no longer needed, delete it with `az identity delete --ids {id}`"
    )
}

/// Azure returns regions as `westeurope` or as `West Europe`.
fn same_location(one: &str, other: &str) -> bool {
    let plain = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_lowercase();
    plain(one) == plain(other)
}

#[cfg(test)]
#[path = "provisioning_tests.rs"]
mod tests;
