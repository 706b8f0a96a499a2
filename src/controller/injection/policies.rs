//! Creates the admission policies, fills them in, and keeps them in sync; asks the API server which of them it evaluates.

use std::collections::BTreeSet;

use kube::Client;
use kube::api::{Api, DynamicObject};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::error::ReconcileError;
use crate::kube_names::{admission_resource, policy_resource};
use crate::kube_request::{KubeError, within_deadline};
use crate::writers::injection::may_create_policy;
use crate::writers::kubernetes::KubeWriter;
use ensign_core::admission;
use ensign_core::cel::{Form, Mode, Policy, PolicyKind, differs, mark, policies};

/// How many times in a row the new mode has to be observed before the former one is disabled. Several API servers may
/// respond, and each picks up changes by itself.
const OBSERVATIONS: u32 = 3;

/// The injection mode, and what the API server injects if it is the one to do so.
#[derive(Clone, Debug)]
pub struct InjectionTarget {
    /// The injection mode.
    pub mode: Mode,
    /// Ensign's own namespace.
    pub namespace: String,
    /// What is injected, and the namespaces that are excluded.
    pub config: admission::Config,
}

/// The state of the policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// They are in sync.
    Current,
    /// They were written just now.
    Written,
    /// The chart's bindings of them are missing.
    Unbound,
}

/// Keeps the policies of one install.
pub(crate) struct PolicyWriter {
    target: InjectionTarget,
    /// How many times in a row the mode was observed to work.
    observations: Mutex<u32>,
}

impl PolicyWriter {
    pub(crate) fn new(target: InjectionTarget) -> Self {
        Self { target, observations: Mutex::default() }
    }

    pub(crate) fn mode(&self) -> Mode {
        self.target.mode
    }

    fn desired(&self, covered: &BTreeSet<String>) -> Vec<Policy> {
        let InjectionTarget { config, namespace, .. } = &self.target;
        policies(Form::Live { config, own: namespace, covered })
    }

    /// Has the API server inject in these namespaces.
    pub(crate) async fn fill(&self, writer: &KubeWriter, covered: &BTreeSet<String>) -> Result<Filled, ReconcileError> {
        let filled = write(writer, &self.desired(covered), IfMissing::Create).await?;
        if filled == Filled::Written {
            self.observed(false);
            tracing::info!(
                namespaces = covered.len(),
                "admission policies filled in: the API server injects pods itself"
            );
        }
        Ok(filled)
    }

    /// Stops the API server from injecting; without policies it does not inject anyway.
    pub(crate) async fn empty(&self, writer: &KubeWriter) -> Result<(), ReconcileError> {
        if empty(writer).await? == Filled::Written {
            tracing::info!("admission policies emptied: the webhook injects pods");
        }
        Ok(())
    }

    /// Whether any policy is filled in.
    pub(crate) async fn is_filled(&self, client: &Client) -> Result<bool, KubeError> {
        any_filled(client).await
    }

    /// Whether the API server has been observed often enough to evaluate the policies as they were filled in.
    pub(crate) async fn is_live(
        &self,
        writer: &KubeWriter,
        covered: &BTreeSet<String>,
    ) -> Result<bool, ReconcileError> {
        let desired = mark(&self.desired(covered));
        let answer = writer.ask_probe(&self.target.namespace).await?;
        Ok(self.observed(answer.as_deref() == Some(&desired)))
    }

    /// Counts an observation of the new mode; whether it has worked often enough.
    pub(crate) fn observed(&self, live: bool) -> bool {
        let mut observations = self.observations.lock();
        *observations = if live { observations.saturating_add(1) } else { 0 };
        *observations >= OBSERVATIONS
    }
}

/// Whether any policy is filled in.
pub(crate) async fn any_filled(client: &Client) -> Result<bool, KubeError> {
    let desired = policies(Form::Inert);
    let current = read(client, &desired).await?;
    let exists = |policy: &&Policy| current.iter().any(|found| found.is(policy));
    Ok(differs(&desired, |kind, name| spec_of(&current, kind, name)).iter().any(exists))
}

/// Empties the policies that exist.
pub(crate) async fn empty(writer: &KubeWriter) -> Result<Filled, ReconcileError> {
    // In reverse order: those that inject are emptied before those that deny, as they were filled in after them.
    let desired: Vec<Policy> = policies(Form::Inert).into_iter().rev().collect();
    write(writer, &desired, IfMissing::Ignore).await
}

/// A policy as the API server has it.
struct Found {
    kind: PolicyKind,
    object: DynamicObject,
}

impl Found {
    fn is(&self, policy: &Policy) -> bool {
        self.kind == policy.kind && self.object.metadata.name.as_deref() == Some(policy.name)
    }
}

fn spec_of(found: &[Found], kind: PolicyKind, name: &str) -> Option<Value> {
    let found = found.iter().find(|found| found.kind == kind && found.object.metadata.name.as_deref() == Some(name))?;
    found.object.data.get("spec").cloned()
}

/// The binding that makes a policy take effect, if it was installed.
async fn binding_of(client: &Client, policy: &Policy) -> Result<Option<DynamicObject>, KubeError> {
    let kind = policy.kind.binding();
    let resource = admission_resource(kind, policy.kind.binding_plural());
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    within_deadline(|| format!("reading {kind} {}", policy.name), api.get_opt(policy.name)).await
}

/// What keeps policies from taking effect in this cluster, if anything, and who can change that.
pub(crate) async fn obstacle(client: &Client) -> Result<Option<String>, KubeError> {
    let desired = policies(Form::Inert);
    let current = read(client, &desired).await?;
    for policy in &desired {
        let (kind, name) = (policy.kind.as_str(), policy.name);
        if binding_of(client, policy).await?.is_none() {
            let binding = policy.kind.binding();
            return Ok(Some(format!("{binding} {name} does not exist: apply the chart again, which creates it")));
        }
        let exists = current.iter().any(|found| found.is(policy));
        if !exists && !may_create_policy(client, &policy_resource(policy.kind), &new_object(policy)).await? {
            return Ok(Some(format!(
                "{kind} {name} does not exist and the controller may not create it: grant it the permission (injection.createPolicies \
                 of the chart), or run `ensign policies | kubectl create -f -`"
            )));
        }
    }
    Ok(None)
}

fn new_object(policy: &Policy) -> DynamicObject {
    DynamicObject::new(policy.name, &policy_resource(policy.kind)).data(json!({"spec": policy.spec}))
}

async fn read(client: &Client, desired: &[Policy]) -> Result<Vec<Found>, KubeError> {
    let mut found = Vec::with_capacity(desired.len());
    for policy in desired {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &policy_resource(policy.kind));
        let act = || format!("reading {} {}", policy.kind.as_str(), policy.name);
        let object = within_deadline(act, api.get_opt(policy.name)).await?;
        found.extend(object.map(|object| Found { kind: policy.kind, object }));
    }
    Ok(found)
}

/// What to do about a policy that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IfMissing {
    Create,
    Ignore,
}

/// Writes what differs, in order.
async fn write(writer: &KubeWriter, desired: &[Policy], if_missing: IfMissing) -> Result<Filled, ReconcileError> {
    let current = read(writer.client(), desired).await?;
    let mut filled = Filled::Current;
    for policy in differs(desired, |kind, name| spec_of(&current, kind, name)) {
        let resource = policy_resource(policy.kind);
        if let Some(found) = current.iter().find(|found| found.is(policy)) {
            writer.fill_policy(&resource, &found.object, &policy.spec).await?;
        } else if if_missing == IfMissing::Ignore {
            continue;
        } else if let Some(binding) = binding_of(writer.client(), policy).await? {
            writer.create_policy(&resource, &new_object(policy), &binding).await?;
        } else {
            filled = Filled::Unbound;
            continue;
        }
        filled = filled.max_with(Filled::Written);
    }
    Ok(filled)
}

impl Filled {
    /// A missing binding outweighs a written policy.
    fn max_with(self, other: Self) -> Self {
        if self == Self::Unbound { self } else { other }
    }
}
