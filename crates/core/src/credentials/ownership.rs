//! Who owns a federated identity credential. One that is not provably ours is never changed or deleted.

use super::names::{Subject, cluster_tag, cluster_tag_of, credential_name};

/// A federated identity credential as Azure returns it. In one that somebody else made, what Azure did not return in the usual
/// form is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Its name under the identity.
    pub name: String,
    /// The issuer that it trusts.
    pub issuer: String,
    /// The subject that it trusts.
    pub subject: String,
    /// The audiences that it accepts; Azure allows exactly one.
    pub audiences: Vec<String>,
}

/// Who owns a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Ensign in this cluster wrote it.
    ThisCluster,
    /// Ensign in another cluster wrote it, judging by its name.
    OtherCluster,
    /// Its name was computed with this cluster's ID, but its issuer is none of this cluster's: another cluster has a copy of
    /// the ID.
    SharedId,
    /// Everything else.
    Foreign,
}

/// The cluster as Azure sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The cluster's ID: the UID of the namespace `kube-system`, unless it was set.
    pub id: String,
    /// The cluster's previous ID (`--previous-cluster-id`).
    pub previous_id: Option<String>,
    /// The current issuer, exactly as in tokens.
    pub issuer: String,
    /// The audience of tokens for Entra.
    pub audience: String,
}

impl Cluster {
    /// The name of the credential that trusts `subject` of the current issuer.
    pub fn credential_name(&self, subject: &Subject) -> String {
        credential_name(&self.id, &self.issuer, subject)
    }

    /// Who owns the credential. It is this cluster's only if its name equals the one computed from its issuer and subject
    /// with the current or the previous ID, and the issuer is the current one or a recorded one.
    pub fn owner(&self, credential: &Credential, recorded_issuers: &[&str]) -> Owner {
        let known = credential.issuer == self.issuer || recorded_issuers.contains(&credential.issuer.as_str());
        let subject = Subject::parse(&credential.subject);
        let recomputes = |id: &str| {
            subject.as_ref().is_some_and(|subject| credential_name(id, &credential.issuer, subject) == credential.name)
        };
        let ours = recomputes(&self.id) || self.previous_id.as_deref().is_some_and(recomputes);
        if known && ours {
            return Owner::ThisCluster;
        }
        if recomputes(&self.id) {
            return Owner::SharedId;
        }
        match cluster_tag_of(&credential.name) {
            Some(tag) if tag != cluster_tag(&self.id) => Owner::OtherCluster,
            _ => Owner::Foreign,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cluster(id: &str) -> Cluster {
        Cluster {
            id: id.into(),
            previous_id: None,
            issuer: "https://issuer.example/1".into(),
            audience: "api://AzureADTokenExchange".into(),
        }
    }

    fn written_by(cluster: &Cluster, account: &str) -> Credential {
        let subject = Subject::new("shop", account);
        Credential {
            name: cluster.credential_name(&subject),
            issuer: cluster.issuer.clone(),
            subject: subject.to_string(),
            audiences: vec![cluster.audience.clone()],
        }
    }

    #[test]
    fn a_credential_that_this_cluster_wrote_is_ours() {
        let mine = cluster("one");
        assert_eq!(mine.owner(&written_by(&mine, "orders"), &[]), Owner::ThisCluster);
    }

    #[test]
    fn a_credential_that_another_cluster_wrote_is_not_ours_even_if_the_issuer_is_recorded() {
        let (mine, other) = (cluster("one"), cluster("two"));
        let credential = written_by(&other, "orders");
        assert_eq!(mine.owner(&credential, &[&other.issuer]), Owner::OtherCluster);
    }

    #[test]
    fn a_credential_of_an_unrecorded_issuer_is_not_ours_even_if_it_has_our_cluster_id() {
        let mine = cluster("one");
        let copy = Cluster { issuer: "https://issuer.example/2".into(), ..cluster("one") };
        let credential = written_by(&copy, "orders");
        assert_eq!(mine.owner(&credential, &[]), Owner::SharedId);
        assert_eq!(mine.owner(&credential, &["https://issuer.example/2"]), Owner::ThisCluster);
    }

    #[test]
    fn a_credential_with_the_previous_id_is_ours_only_for_known_issuers() {
        let before = cluster("before");
        let moved = Cluster { previous_id: Some("before".into()), ..cluster("after") };
        assert_eq!(moved.owner(&written_by(&before, "orders"), &[]), Owner::ThisCluster);
        assert_eq!(cluster("after").owner(&written_by(&before, "orders"), &[]), Owner::OtherCluster);
        let elsewhere = Cluster { issuer: "https://issuer.example/2".into(), ..before };
        assert_eq!(moved.owner(&written_by(&elsewhere, "orders"), &[]), Owner::OtherCluster);
    }

    #[test]
    fn a_name_alone_does_not_prove_ownership() {
        let mine = cluster("one");
        let mut hijacked = written_by(&mine, "orders");
        hijacked.subject = "system:serviceaccount:shop:payments".into();
        assert_eq!(mine.owner(&hijacked, &[]), Owner::Foreign);
        let by_hand = Credential { name: "by-hand".into(), ..written_by(&mine, "orders") };
        assert_eq!(mine.owner(&by_hand, &[]), Owner::Foreign);
    }

    proptest! {
        #[test]
        fn a_credential_of_ours_is_no_longer_ours_if_any_part_of_it_changes(
            account in "[a-z]{1,10}", other in "[a-z.-]{1,10}", part in 0..4_usize,
        ) {
            let mine = cluster("one");
            let written = written_by(&mine, &account);
            prop_assert_eq!(mine.owner(&written, &[]), Owner::ThisCluster);
            let mut changed = written.clone();
            let mut holder = mine.clone();
            match part {
                0 => changed.name = format!("{}-{other}", changed.name),
                1 => changed.subject = Subject::new("shop", &other).to_string(),
                2 => changed.issuer = format!("https://issuer.example/1{other}"),
                _ => holder.id = format!("one{other}"),
            }
            prop_assume!(changed != written || holder != mine);
            prop_assert_ne!(holder.owner(&changed, &[]), Owner::ThisCluster);
        }

        #[test]
        fn a_credential_that_could_have_been_created_by_hand_is_not_ours(name in "[a-zA-Z0-9][a-zA-Z0-9_-]{2,119}", subject in "system:serviceaccount:[a-z]{1,9}:[a-z]{1,9}") {
            let mine = cluster("one");
            let credential = Credential { name, subject, ..written_by(&mine, "orders") };
            prop_assert_ne!(mine.owner(&credential, &[]), Owner::ThisCluster);
        }
    }
}
