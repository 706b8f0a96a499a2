//! What is to be done about an identity that Ensign makes: create it, set it right, take it over, delete it, or leave it
//! alone.
//!
//! Whose an identity is, its tags say: the ID of the cluster and the UID of the object that it was made for. They are
//! part of the PUT that creates it, so that there is no moment at which an identity of ours is not known as ours, and a
//! creation whose answer was lost is recognised.

use std::collections::BTreeMap;

use crate::assess::AzureIdentity;
use crate::credentials::ownership::Cluster;
use ensign_api::conditions::{Reason, Verdict};
use ensign_api::{ArmId, ClaimRef, IfExists, IsolationScope, ProvisionedIdentity, ReclaimPolicy};

/// Tag with the ID of the cluster whose the identity is.
pub const CLUSTER_TAG: &str = "ensign.dev-cluster";
/// Tag with the UID of the object that the identity was made for.
pub const OBJECT_TAG: &str = "ensign.dev-object";
/// Tag with namespace and name of the binding that the identity is for; it is for people.
pub const BINDING_TAG: &str = "ensign.dev-binding";

/// An identity as it should be in Azure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Its region.
    pub location: String,
    /// All of its tags.
    pub tags: BTreeMap<String, String>,
    /// Where tokens of it can be asked for.
    pub isolation_scope: IsolationScope,
}

/// A write of the identity itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityWrite {
    /// Create it.
    Create(Desired),
    /// Set right what differs, or make it the object's own.
    Update(Desired),
    /// Delete it with everything under it.
    Delete,
}

/// Whose an identity is, by its tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The object's own.
    ThisObject,
    /// Another object's of this cluster.
    OtherObject,
    /// Another cluster's.
    OtherCluster,
    /// Nobody's, as far as tags say.
    Nobody,
}

/// What decisions about the identity depend on.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a> {
    /// The identity in Azure.
    pub id: &'a ArmId,
    /// What the object says of it.
    pub spec: &'a ProvisionedIdentity,
    /// The binding that it is for, if it is for one.
    pub claim: Option<&'a ClaimRef>,
    /// UID of the object.
    pub uid: &'a str,
    /// Object ID of the principal that status records: what Azure once confirmed to be the object's own.
    pub recorded_principal: Option<&'a str>,
    /// The cluster.
    pub cluster: &'a Cluster,
}

/// What is to be done about an identity that is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upkeep {
    /// The write, if one is needed.
    pub step: Option<IdentityWrite>,
    /// Why the identity can't be used yet, or not at all.
    pub refusal: Option<Verdict>,
}

impl Object<'_> {
    /// Whose an identity with these tags is.
    pub fn holder(&self, tags: &BTreeMap<String, String>) -> Holder {
        let value = |name: &str| tags.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        let clusters = [Some(&self.cluster.id), self.cluster.previous_id.as_ref()];
        match (value(CLUSTER_TAG), value(OBJECT_TAG)) {
            (Some(cluster), _) if !clusters.contains(&Some(cluster)) => Holder::OtherCluster,
            (Some(_), Some(uid)) if uid == self.uid => Holder::ThisObject,
            (Some(_), Some(_)) => Holder::OtherObject,
            (Some(_), None) | (None, _) => Holder::Nobody,
        }
    }

    /// What to do about an identity that is not there.
    pub fn create(&self) -> Upkeep {
        let message = format!("{} is about to be made in Azure", self.id);
        Upkeep {
            step: Some(IdentityWrite::Create(self.desired(&BTreeMap::new()))),
            refusal: Some(Verdict::unknown(Reason::Provisioning, message)),
        }
    }

    /// What to do about an identity that is there.
    pub fn keep(&self, found: &AzureIdentity) -> Upkeep {
        let holder = self.holder(&found.tags);
        // Somebody took the tags away: what Azure once confirmed as the object's own, by its principal, still is.
        let recorded = self.recorded_principal.is_some_and(|known| known.eq_ignore_ascii_case(&found.principal_id));
        let ours = holder == Holder::ThisObject || (holder == Holder::Nobody && recorded);
        let takes_over = self.spec.if_exists == IfExists::Adopt && holder != Holder::OtherCluster;
        if !ours && !takes_over {
            return Upkeep { step: None, refusal: Some(self.exists(holder)) };
        }
        if !same_location(&found.location, &self.spec.location) {
            let message = format!(
                "{} is in region {}, but spec.provision.location is {}: an identity can't be moved. A cluster operator has to name its region in a new ManagedIdentity, or delete it in Azure to have it made anew",
                self.id, found.location, self.spec.location
            );
            return Upkeep { step: None, refusal: Some(Verdict::bad(Reason::LocationMismatch, message)) };
        }
        let desired = self.desired(&found.tags);
        let isolation = desired.isolation_scope.as_str();
        let isolated = found.isolation_scope.as_deref().is_none_or(|scope| scope.eq_ignore_ascii_case(isolation));
        let differs = desired.tags != found.tags || !isolated;
        let refusal = (!ours).then(|| {
            let message = format!("{} is about to be taken over, as spec.provision.ifExists says", self.id);
            Verdict::unknown(Reason::Provisioning, message)
        });
        Upkeep { step: differs.then_some(IdentityWrite::Update(desired)), refusal: refusal.filter(|_| differs) }
    }

    /// What to do about the identity when its object goes and nothing of ours is left under it.
    pub fn reclaim(&self, found: &AzureIdentity) -> Option<IdentityWrite> {
        let ours = self.holder(&found.tags) == Holder::ThisObject;
        (ours && self.spec.reclaim_policy == ReclaimPolicy::Delete).then_some(IdentityWrite::Delete)
    }

    /// The identity as it should be where these tags are. Tags of others stay.
    fn desired(&self, tags: &BTreeMap<String, String>) -> Desired {
        let binding = self.claim.map(|claim| (BINDING_TAG, format!("{}/{}", claim.namespace, claim.name)));
        let own = [(CLUSTER_TAG, self.cluster.id.clone()), (OBJECT_TAG, self.uid.to_owned())];
        let wanted = self.spec.tags.iter().map(|(name, value)| (name.as_str(), value.0.clone()));
        let mut all = tags.clone();
        for (name, value) in wanted.chain(own).chain(binding) {
            // Names of tags differ in more than case.
            all.retain(|known, _| known == name || !known.eq_ignore_ascii_case(name));
            all.insert(name.to_owned(), value);
        }
        Desired { location: self.spec.location.clone(), tags: all, isolation_scope: self.spec.isolation_scope }
    }

    fn exists(&self, holder: Holder) -> Verdict {
        let id = self.id;
        let cure = match holder {
            Holder::OtherCluster => format!(
                "Ensign in another cluster owns it. If that is no more, an Azure administrator has to run `az tag update --resource-id {id} --operation delete --tags {CLUSTER_TAG}=`, and a cluster operator has to set spec.provision.ifExists to Adopt; otherwise name another identity in a new ManagedIdentity"
            ),
            Holder::OtherObject => format!(
                "another ManagedIdentity of this cluster made it (its UID is in the tag {OBJECT_TAG}). A cluster operator has to set spec.provision.ifExists to Adopt to make it this object's own, or name another identity in a new ManagedIdentity"
            ),
            Holder::Nobody | Holder::ThisObject => "Ensign did not make it. A cluster operator has to set spec.provision.ifExists to Adopt to make it this object's own, or use it with spec.existing in a new ManagedIdentity".to_owned(),
        };
        Verdict::bad(Reason::IdentityExists, format!("{id} exists already and is left alone: {cure}"))
    }
}

/// What happened to an identity that was left where its object went, for an event.
pub fn left_alone(id: &ArmId) -> String {
    format!(
        "{id} is left in Azure though spec.provision.reclaimPolicy is Delete: its tags {CLUSTER_TAG} and {OBJECT_TAG} do not say that it is this object's own. Delete it with `az identity delete --ids {id}` if nobody needs it"
    )
}

/// Azure shows regions as `westeurope` and as `West Europe`.
fn same_location(one: &str, other: &str) -> bool {
    let plain = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_lowercase();
    plain(one) == plain(other)
}

#[cfg(test)]
#[path = "provisioning_tests.rs"]
mod tests;
