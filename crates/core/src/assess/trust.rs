//! Which subjects should be trusted now, and the plan of writes that leads there.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::inputs::{Observed, Settings, Snapshot, bindings};
use super::outcome::{Cause, PlannedCredentialWrite};
use super::resolution::{Resolution, usable_arm_id};
use super::unlisted::{Ending, recorded};
use crate::acceptance::{Acceptance, IdentityFacts, age_key};
use crate::credentials::issuers;
use crate::credentials::names::Subject;
use crate::credentials::ownership::{Cluster, Credential, Owner};
use crate::credentials::plan::{CredentialWrite, Inputs, TrustState, Wanted, plan};
use crate::own_writes::Confirmed;
use ensign_api::conditions::Reason;
use ensign_api::{CredentialCounts, ManagedIdentity, ManagedIdentityBinding};

/// What should be trusted, what is planned, and the state of each subject.
#[derive(Debug, Default)]
pub(super) struct Trust {
    pub(super) writes: Vec<PlannedCredentialWrite>,
    pub(super) states: BTreeMap<Subject, TrustState>,
    pub(super) counts: Option<CredentialCounts>,
    pub(super) wanted: BTreeSet<Subject>,
    /// Our credentials in Azure; `None` if unknown.
    pub(super) ours_left: Option<Vec<Credential>>,
    /// Our credentials that may exist although they are in no LIST, by subject whose trust ends.
    pub(super) unlisted: BTreeMap<Subject, Vec<Credential>>,
    /// Credentials of this cluster's issuer that are not ours; `None` if unknown.
    pub(super) foreign: Option<Vec<Credential>>,
    /// Former issuers whose tokens have expired and for which none of our credentials is left.
    pub(super) expired_issuers: Vec<String>,
    /// Credentials that another cluster wrote under this cluster's ID; `None` if unknown.
    pub(super) shared_id: Option<Vec<Credential>>,
}

impl Trust {
    pub(super) fn wants_any(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Sorts the existing credentials by owner. `retiring` are the former issuers, each with whether its tokens have expired.
    fn sort_by_owner(
        &mut self,
        credentials: &[Credential],
        retiring: &[(&str, bool)],
        confirmed: &Confirmed,
        cluster: &Cluster,
    ) {
        let known: Vec<&str> = retiring.iter().map(|(issuer, _)| *issuer).collect();
        let ours: Vec<_> =
            credentials.iter().filter(|credential| cluster.owner(credential, &known) == Owner::ThisCluster).collect();
        self.ours_left = Some(ours.iter().map(|credential| (*credential).clone()).collect());
        let foreign = credentials.iter().filter(|credential| credential.issuer == cluster.issuer);
        self.foreign = Some(foreign.filter(|credential| !ours.contains(credential)).cloned().collect());
        let shared = credentials.iter().filter(|found| cluster.owner(found, &known) == Owner::SharedId);
        self.shared_id = Some(shared.cloned().collect());
        self.expired_issuers = retiring
            .iter()
            .filter(|(issuer, expired)| *expired && confirmed.absent_issuers.contains(*issuer))
            .filter(|(issuer, _)| ours.iter().all(|credential| credential.issuer != *issuer))
            .map(|(issuer, _)| (*issuer).to_owned())
            .collect();
    }
}

#[expect(clippy::too_many_arguments, reason = "it combines all intermediate results")]
pub(super) fn decide(
    snapshot: &Snapshot<'_>,
    owner: Option<&ManagedIdentity>,
    resolution: &Resolution,
    accepted: &BTreeMap<&str, IdentityFacts<'_>>,
    acceptances: &BTreeMap<&str, BTreeMap<String, Acceptance>>,
    observed: &Observed,
    settings: &Settings,
    now: Timestamp,
) -> Trust {
    let Some((owner, id)) = owner.zip(usable_arm_id(owner)) else { return Trust::default() };
    let owner_accepted = accepted.get(owner.name_any().as_str()).is_some_and(|facts| facts.accepted.holds());
    let deleting = owner.metadata.deletion_timestamp.is_some();

    let mut claims: Vec<(&str, &ManagedIdentityBinding, &str)> = bindings(snapshot)
        .filter(|_| owner_accepted && !deleting && resolution.facts.is_some())
        .filter(|(_, _, binding)| binding.identity_name() == owner.name_any())
        .filter_map(|(namespace, _, binding)| {
            let acceptance = acceptances.get(namespace)?.get(&binding.name_any())?;
            Some((namespace, binding, acceptance.grant.as_deref().filter(|_| acceptance.verdict.holds())?))
        })
        .collect();
    claims.sort_by_key(|(namespace, binding, _)| (recorded(binding).is_none(), age_key(binding), *namespace));
    let wanted = unique(&claims);
    let mut trust = Trust { wanted: wanted.iter().map(|wanted| wanted.subject.clone()).collect(), ..Trust::default() };

    let blocked = settings.issuer_refusal.as_ref().map(|refusal| {
        let state = TrustState::Blocked { reason: Reason::IssuerNotPublic, message: refusal.clone() };
        trust.wanted.iter().map(|subject| (subject.clone(), state.clone())).collect()
    });
    let decides = owner_accepted && resolution.facts.is_some();
    let resolution = resolution.verdict.reason;
    trust.unlisted =
        Ending { snapshot, owner, acceptances, observed, settings, wanted: &trust.wanted, decides, resolution }
            .unlisted();
    // What ends trust precedes what gives it.
    trust.writes = trust.unlisted.values().flatten().map(deletion).collect();
    let Some(Ok(credentials)) = &observed.credentials else {
        trust.states = blocked.unwrap_or_default();
        return trust;
    };

    let records = owner.status.as_ref().map(|status| status.issuers.clone()).unwrap_or_default();
    let longest = owner.spec.max_token_expiration_seconds;
    let retiring = issuers::retiring(&records, &settings.cluster.issuer, longest, now);
    trust.sort_by_owner(credentials, &retiring, &observed.confirmed, &settings.cluster);
    let plan = plan(&Inputs {
        cluster: &settings.cluster,
        identity: &id,
        retiring_issuers: &retiring,
        wanted: &wanted,
        existing: credentials,
        policy: owner.credential_policy(),
        max_credentials: owner.max_credentials(),
    });
    trust.counts = Some(plan.counts);
    trust.states = plan.trust_states;
    // An owner that is not accepted, or whose identity is not resolved, does not determine what is wanted.
    if deleting || decides {
        let planned = plan.writes.into_iter();
        trust.writes.extend(planned.map(|write| PlannedCredentialWrite { cause: cause(&write, &claims), write }));
    }
    if let Some(trust_states) = blocked {
        trust.states = trust_states;
        // No new trust is possible, but trust under a former issuer can be revoked.
        let wanted: BTreeSet<String> = trust.wanted.iter().map(ToString::to_string).collect();
        trust.writes.retain(|planned| match &planned.write {
            CredentialWrite::Put { .. } => false,
            CredentialWrite::Delete { credential, .. } => !wanted.contains(&credential.subject),
        });
    }
    trust
}

fn deletion(credential: &Credential) -> PlannedCredentialWrite {
    let write = CredentialWrite::Delete { credential: credential.clone(), after: None };
    PlannedCredentialWrite { write, cause: None }
}

fn unique(claims: &[(&str, &ManagedIdentityBinding, &str)]) -> Vec<Wanted> {
    let mut seen = BTreeSet::new();
    claims
        .iter()
        .map(|(namespace, binding, _)| Wanted {
            subject: Subject::new(*namespace, &binding.spec.service_account_name),
            recorded_name: recorded(binding).map(|credential| credential.name.clone()),
        })
        .filter(|wanted| seen.insert(wanted.subject.clone()))
        .collect()
}

fn cause(write: &CredentialWrite, claims: &[(&str, &ManagedIdentityBinding, &str)]) -> Option<Cause> {
    let CredentialWrite::Put { credential, .. } = write else { return None };
    let (namespace, binding, grant) = claims.iter().find(|(namespace, binding, _)| {
        Subject::new(*namespace, &binding.spec.service_account_name).to_string() == credential.subject
    })?;
    Some(Cause {
        namespace: (*namespace).to_owned(),
        binding: binding.name_any(),
        uid: binding.uid().unwrap_or_default(),
        grant: (*grant).to_owned(),
    })
}
