//! Makes the admission policies, fills them in, and keeps them so; asks the API server which of them it evaluates.

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

/// How often in a row the new mode has to be seen before the former one ends. Several API servers may answer, and each
/// takes changes in by itself.
const LOOKS: u32 = 3;

/// Who injects, and what pods get if that is the API server.
#[derive(Clone, Debug)]
pub struct InjectionTarget {
    /// Who injects.
    pub mode: Mode,
    /// Ensign's own namespace.
    pub namespace: String,
    /// What pods get, and the namespaces that are never touched.
    pub config: admission::Config,
}

/// What became of the policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// They are as they should be.
    Current,
    /// They were written just now.
    Written,
    /// The chart's bindings of them are missing.
    Unbound,
}

/// Keeps the policies of one install.
pub(crate) struct PolicyWriter {
    target: InjectionTarget,
    /// How often in a row the mode was seen to be live.
    looks: Mutex<u32>,
}

impl PolicyWriter {
    pub(crate) fn new(target: InjectionTarget) -> Self {
        Self { target, looks: Mutex::default() }
    }

    pub(crate) fn mode(&self) -> Mode {
        self.target.mode
    }

    fn wanted(&self, covered: &BTreeSet<String>) -> Vec<Policy> {
        let InjectionTarget { config, namespace, .. } = &self.target;
        policies(Form::Live { config, own: namespace, covered })
    }

    /// Has the API server inject in these namespaces.
    pub(crate) async fn fill(&self, writer: &KubeWriter, covered: &BTreeSet<String>) -> Result<Filled, ReconcileError> {
        let filled = write(writer, &self.wanted(covered), WhereMissing::Make).await?;
        if filled == Filled::Written {
            self.seen(false);
            tracing::info!(
                namespaces = covered.len(),
                "admission policies filled in: the API server injects by itself"
            );
        }
        Ok(filled)
    }

    /// Has the API server inject no more; one that has no policies does not anyway.
    pub(crate) async fn empty(&self, writer: &KubeWriter) -> Result<(), ReconcileError> {
        if empty(writer).await? == Filled::Written {
            tracing::info!("admission policies emptied: the webhook injects");
        }
        Ok(())
    }

    /// Whether some policy still does something.
    pub(crate) async fn is_filled(&self, client: &Client) -> Result<bool, KubeError> {
        any_filled(client).await
    }

    /// Whether the API server has been seen often enough to evaluate the policies as they were filled in.
    pub(crate) async fn is_live(
        &self,
        writer: &KubeWriter,
        covered: &BTreeSet<String>,
    ) -> Result<bool, ReconcileError> {
        let wanted = mark(&self.wanted(covered));
        let answer = writer.ask_probe(&self.target.namespace).await?;
        Ok(self.seen(answer.as_deref() == Some(&wanted)))
    }

    /// Counts a look at the new mode; whether it was seen often enough.
    pub(crate) fn seen(&self, live: bool) -> bool {
        let mut looks = self.looks.lock();
        *looks = if live { looks.saturating_add(1) } else { 0 };
        *looks >= LOOKS
    }
}

/// Whether some policy does something.
pub(crate) async fn any_filled(client: &Client) -> Result<bool, KubeError> {
    let wanted = policies(Form::Inert);
    let current = read(client, &wanted).await?;
    let there = |policy: &&Policy| current.iter().any(|found| found.is(policy));
    Ok(differs(&wanted, |kind, name| spec_of(&current, kind, name)).iter().any(there))
}

/// Empties the policies, those that there are.
pub(crate) async fn empty(writer: &KubeWriter) -> Result<Filled, ReconcileError> {
    // What injects goes before what refuses, as it came after it.
    let wanted: Vec<Policy> = policies(Form::Inert).into_iter().rev().collect();
    write(writer, &wanted, WhereMissing::Leave).await
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

/// The binding that lets a policy take effect, if whoever installs made it.
async fn binding_of(client: &Client, policy: &Policy) -> Result<Option<DynamicObject>, KubeError> {
    let kind = policy.kind.binding();
    let resource = admission_resource(kind, policy.kind.binding_plural());
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    within_deadline(|| format!("reading {kind} {}", policy.name), api.get_opt(policy.name)).await
}

/// What keeps policies from taking effect in this cluster, if something does, and who can change that.
pub(crate) async fn obstacle(client: &Client) -> Result<Option<String>, KubeError> {
    let wanted = policies(Form::Inert);
    let current = read(client, &wanted).await?;
    for policy in &wanted {
        let (kind, name) = (policy.kind.as_str(), policy.name);
        if binding_of(client, policy).await?.is_none() {
            let binding = policy.kind.binding();
            return Ok(Some(format!("{binding} {name} is missing: apply the chart again, which makes it")));
        }
        let there = current.iter().any(|found| found.is(policy));
        if !there && !may_create_policy(client, &policy_resource(policy.kind), &new_object(policy)).await? {
            return Ok(Some(format!(
                "{kind} {name} is missing and the controller may not make it: give it the right to (injection.createPolicies \
                 of the chart), or run `ensign policies | kubectl create -f -`"
            )));
        }
    }
    Ok(None)
}

fn new_object(policy: &Policy) -> DynamicObject {
    DynamicObject::new(policy.name, &policy_resource(policy.kind)).data(json!({"spec": policy.spec}))
}

async fn read(client: &Client, wanted: &[Policy]) -> Result<Vec<Found>, KubeError> {
    let mut found = Vec::with_capacity(wanted.len());
    for policy in wanted {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &policy_resource(policy.kind));
        let act = || format!("reading {} {}", policy.kind.as_str(), policy.name);
        let object = within_deadline(act, api.get_opt(policy.name)).await?;
        found.extend(object.map(|object| Found { kind: policy.kind, object }));
    }
    Ok(found)
}

/// What is done about a policy that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WhereMissing {
    Make,
    Leave,
}

/// Writes what differs, in order.
async fn write(writer: &KubeWriter, wanted: &[Policy], missing: WhereMissing) -> Result<Filled, ReconcileError> {
    let current = read(writer.client(), wanted).await?;
    let mut filled = Filled::Current;
    for policy in differs(wanted, |kind, name| spec_of(&current, kind, name)) {
        let resource = policy_resource(policy.kind);
        if let Some(found) = current.iter().find(|found| found.is(policy)) {
            writer.fill_policy(&resource, &found.object, &policy.spec).await?;
        } else if missing == WhereMissing::Leave {
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
