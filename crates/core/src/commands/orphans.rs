//! `ensign orphans`: credentials of a cluster that no longer exists, recognised by their names.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::credentials::ownership::{Cluster, Credential, Owner};
use crate::credentials::plan::az_delete;
use ensign_api::ArmId;

/// A federated identity credential that Ensign wrote in the deleted cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Orphan {
    /// The ARM ID of its identity.
    pub identity: String,
    /// Its name.
    pub name: String,
    /// The issuer that it trusts.
    pub issuer: String,
    /// The subject that it trusts.
    pub subject: String,
    /// The command that deletes it.
    pub command: String,
}

/// The credentials that were written with this cluster ID: those whose name equals the one computed from the ID and from
/// their own issuer and subject. If `issuers` is not empty, only credentials of these issuers.
pub fn of_cluster<'a>(cluster_id: &str, issuers: &[String], existing: &'a [Credential]) -> Vec<&'a Credential> {
    let wrote = |credential: &&Credential| {
        let cluster = Cluster {
            id: cluster_id.to_owned(),
            previous_id: None,
            issuer: credential.issuer.clone(),
            audience: String::new(),
        };
        cluster.owner(credential, &[]) == Owner::ThisCluster
            && (issuers.is_empty() || issuers.contains(&credential.issuer))
    };
    existing.iter().filter(wrote).collect()
}

impl Orphan {
    /// Describes the credential under this identity.
    pub fn new(identity: &ArmId, credential: &Credential) -> Self {
        Self {
            identity: identity.to_string(),
            name: credential.name.clone(),
            issuer: credential.issuer.clone(),
            subject: credential.subject.clone(),
            command: az_delete(identity, &credential.name).trim_matches('`').to_owned(),
        }
    }
}

/// What is known about the cluster that the kubeconfig names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// The UID of its namespace `kube-system`.
    pub uid: String,
    /// Names of the credentials that its bindings use.
    pub in_use: BTreeSet<String>,
}

/// Why the cluster still exists, judging by the one that the kubeconfig names; `None` if nothing indicates it.
pub fn not_gone(cluster_id: &str, present: &Present, orphans: &[Orphan]) -> Option<String> {
    if present.uid == cluster_id {
        return Some(format!(
            "{cluster_id} is the ID of the cluster that your kubeconfig names, so that cluster still exists: use `ensign teardown` there"
        ));
    }
    let used = orphans.iter().find(|orphan| present.in_use.contains(&orphan.name))?;
    Some(format!(
        "the cluster that your kubeconfig names uses credential {} of {cluster_id}, so that cluster still exists ({cluster_id} may be its --cluster-id or --previous-cluster-id): use `ensign teardown` there",
        used.name
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::credentials::names::{Subject, credential_name};

    const ID: &str = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders";

    fn written(cluster: &str, issuer: &str, account: &str) -> Credential {
        let subject = Subject::new("shop", account);
        Credential {
            name: credential_name(cluster, issuer, &subject),
            issuer: issuer.to_owned(),
            subject: subject.to_string(),
            audiences: vec!["a".to_owned()],
        }
    }

    #[test]
    fn credentials_of_other_clusters_and_people_are_not_orphans() {
        let by_hand = Credential { name: "by-hand".to_owned(), ..written("gone", "https://i", "a") };
        let edited =
            Credential { subject: "system:serviceaccount:shop:b".to_owned(), ..written("gone", "https://i", "a") };
        let existing = [written("gone", "https://i", "a"), written("alive", "https://i", "a"), by_hand, edited];
        assert_eq!(of_cluster("gone", &[], &existing), [&existing[0]]);
    }

    #[test]
    fn issuers_select_one_of_two_clusters_with_the_same_id() {
        let existing = [written("gone", "https://i", "a"), written("gone", "https://copy", "a")];
        assert_eq!(of_cluster("gone", &[], &existing).len(), 2);
        assert_eq!(of_cluster("gone", &["https://i".to_owned()], &existing), [&existing[0]]);
    }

    #[test]
    fn the_cluster_that_the_kubeconfig_names_still_exists() {
        let orphan = Orphan::new(&ID.parse().unwrap(), &written("gone", "https://i", "a"));
        let orphans = [orphan.clone()];
        let present = |uid: &str, used: &[&str]| Present {
            uid: uid.to_owned(),
            in_use: used.iter().map(|name| (*name).to_owned()).collect(),
        };
        assert_eq!(not_gone("gone", &present("other", &["x"]), &orphans), None);
        assert!(not_gone("gone", &present("gone", &[]), &[]).unwrap().contains("ensign teardown"));
        assert!(not_gone("gone", &present("other", &[&orphan.name]), &orphans).unwrap().contains(&orphan.name));
    }

    proptest! {
        #[test]
        fn for_any_id_credentials_of_other_clusters_are_not_found(one in "[a-f0-9-]{1,36}", other in "[a-f0-9-]{1,36}", account in "[a-z]{1,9}") {
            prop_assume!(one != other);
            let existing = [written(&one, "https://i", &account), written(&other, "https://i", &account)];
            prop_assert_eq!(of_cluster(&one, &[], &existing), [&existing[0]]);
        }
    }
}
