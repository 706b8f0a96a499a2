//! Credentials of a cluster that is gone: found by what they are called, since nothing else of it is left.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::credentials::ownership::{Cluster, Credential, Owner};
use crate::credentials::plan::az_delete;
use ensign_api::ArmId;

/// A federated identity credential that the cluster's Ensign wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Orphan {
    /// The identity under which it stands.
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

/// Those of the credentials under an identity that were written with this cluster's ID: whose names recompute from it and
/// from their own issuer and subject. Where issuers are given, only theirs.
pub fn of_cluster<'a>(cluster_id: &str, issuers: &[String], standing: &'a [Credential]) -> Vec<&'a Credential> {
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
    standing.iter().filter(wrote).collect()
}

impl Orphan {
    /// The credential under this identity.
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

/// What is known of the cluster that the kubeconfig names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// The UID of its namespace `kube-system`.
    pub uid: String,
    /// Names of the credentials that its bindings use.
    pub in_use: BTreeSet<String>,
}

/// Why the cluster is not gone, if what the kubeconfig names is that cluster.
pub fn not_gone(cluster_id: &str, present: &Present, orphans: &[Orphan]) -> Option<String> {
    if present.uid == cluster_id {
        return Some(format!(
            "{cluster_id} is the ID of the cluster that your kubeconfig names, which is not gone: use `ensign teardown` there"
        ));
    }
    let used = orphans.iter().find(|orphan| present.in_use.contains(&orphan.name))?;
    Some(format!(
        "the cluster that your kubeconfig names uses credential {} of {cluster_id}, so that it is not gone (it may have that as its --cluster-id or --previous-cluster-id): use `ensign teardown` there",
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
    fn what_other_clusters_and_people_wrote_is_no_orphan() {
        let by_hand = Credential { name: "by-hand".to_owned(), ..written("gone", "https://i", "a") };
        let edited =
            Credential { subject: "system:serviceaccount:shop:b".to_owned(), ..written("gone", "https://i", "a") };
        let standing = [written("gone", "https://i", "a"), written("alive", "https://i", "a"), by_hand, edited];
        assert_eq!(of_cluster("gone", &[], &standing), [&standing[0]]);
    }

    #[test]
    fn issuers_narrow_it_to_one_of_two_clusters_with_one_id() {
        let standing = [written("gone", "https://i", "a"), written("gone", "https://copy", "a")];
        assert_eq!(of_cluster("gone", &[], &standing).len(), 2);
        assert_eq!(of_cluster("gone", &["https://i".to_owned()], &standing), [&standing[0]]);
    }

    #[test]
    fn a_cluster_that_the_kubeconfig_names_is_not_gone() {
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
        fn whatever_its_id_no_other_clusters_credential_is_found(one in "[a-f0-9-]{1,36}", other in "[a-f0-9-]{1,36}", account in "[a-z]{1,9}") {
            prop_assume!(one != other);
            let standing = [written(&one, "https://i", &account), written(&other, "https://i", &account)];
            prop_assert_eq!(of_cluster(&one, &[], &standing), [&standing[0]]);
        }
    }
}
