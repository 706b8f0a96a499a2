//! Injection without a webhook: admission policies that the API server evaluates by itself, with bindings as parameters.
//!
//! ```text
//!                          unlabelled pods of                pods with the opt-in label,
//!                          namespaces that grants cover      everywhere
//!   mutating               pods.ensign.dev                   labelled-pods.ensign.dev
//!   validating             pods.ensign.dev                   labelled-pods.ensign.dev
//!   validating, no params                                    injected-pods.ensign.dev
//!   mutating, no params      probe.ensign.dev, for dry runs of Ensign's own
//! ```
//!
//! The first row injects ([`injection`]), once for each binding that serves. The second one refuses in the words of the
//! webhook what that would refuse ([`judgement`]). The third one holds the guarantee where there is no binding at all,
//! which a policy with parameters is not even asked about. The last one says which version of all this is evaluated
//! ([`probe`]).
//!
//! Whoever installs makes the policy bindings, which never change and without which a policy does nothing. The controller
//! makes the policies, fills them in and empties them again; one that it may not make, whoever installs makes
//! [`inert`](Form::Inert). The selectors are in the policies, not in their bindings: a policy whose parameter kind is
//! missing refuses every pod that *it* matches.

mod already_injected;
mod api_server;
mod literals;
mod mode;
mod mutation;
mod predicates;
mod probe;
mod validation;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

pub use self::api_server::{Served, shortfall};
pub use self::mode::{Choice, Mode, mode};
use self::predicates::Variable;
pub use self::probe::{PROBE_LABEL, PROBE_POLICY, PROBE_QUESTION, mark};
use self::validation::{Pods, Validation};
use crate::admission::Config;
use crate::webhook_configuration::{GRANTED_ENTRY, LABELLED_ENTRY, NAMESPACE_NAME_LABEL};
use ensign_api::keys::INJECT_LABEL;
use ensign_api::{GROUP, VERSION};

/// The policy that holds the guarantee of labelled pods.
pub const OUTCOME_POLICY: &str = "injected-pods.ensign.dev";

const PARAM_KIND: &str = "ManagedIdentityBinding";

/// A kind of admission policy, of `admissionregistration.k8s.io/v1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyKind {
    /// `MutatingAdmissionPolicy`.
    Mutating,
    /// `ValidatingAdmissionPolicy`.
    Validating,
}

impl PolicyKind {
    /// The kind's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mutating => "MutatingAdmissionPolicy",
            Self::Validating => "ValidatingAdmissionPolicy",
        }
    }

    /// The kind's name in URLs.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Mutating => "mutatingadmissionpolicies",
            Self::Validating => "validatingadmissionpolicies",
        }
    }

    /// The name of the kind that binds policies of this one.
    pub fn binding(self) -> &'static str {
        match self {
            Self::Mutating => "MutatingAdmissionPolicyBinding",
            Self::Validating => "ValidatingAdmissionPolicyBinding",
        }
    }

    /// That kind's name in URLs.
    pub fn binding_plural(self) -> &'static str {
        match self {
            Self::Mutating => "mutatingadmissionpolicybindings",
            Self::Validating => "validatingadmissionpolicybindings",
        }
    }
}

/// An admission policy as it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Its kind.
    pub kind: PolicyKind,
    /// Its name.
    pub name: &'static str,
    /// Its spec, with every default said: what is read back compares as written.
    pub spec: Value,
}

/// What the policies are to do.
#[derive(Clone, Copy, Debug)]
pub enum Form<'a> {
    /// Nothing: they match no pod.
    Inert,
    /// To inject and to judge.
    Live {
        /// What pods get, and the namespaces that are never touched.
        config: &'a Config,
        /// Ensign's own namespace.
        own: &'a str,
        /// The namespaces that some grant names or selects.
        covered: &'a BTreeSet<String>,
    },
}

/// The policies, in the order in which they are written: what refuses comes before what injects, so that no pod is
/// injected that should have been refused.
pub fn policies(form: Form<'_>) -> Vec<Policy> {
    let (unlabelled, labelled) = match form {
        Form::Inert => (None, None),
        Form::Live { config, covered, .. } => {
            let covered: BTreeSet<String> = covered.difference(&config.excluded).cloned().collect();
            let namespaces = [by_name("NotIn", &config.excluded), by_name("In", &covered)];
            let [not_excluded, only_covered] = namespaces;
            let unlabelled = json!({"matchExpressions": [
                {"key": INJECT_LABEL, "operator": "NotIn", "values": ["false", "true"]}]});
            let labelled = json!({"matchLabels": {INJECT_LABEL: "true"}});
            let granted = (!covered.is_empty()).then(|| json!({"matchExpressions": [only_covered]}));
            (
                granted.map(|granted| (config, constraints(&granted, &unlabelled))),
                Some((config, constraints(&selecting(&not_excluded, &config.excluded), &labelled))),
            )
        }
    };
    let mut policies = vec![
        Policy { kind: PolicyKind::Validating, name: OUTCOME_POLICY, spec: outcome(labelled.as_ref()) },
        Policy { kind: PolicyKind::Validating, name: LABELLED_ENTRY, spec: judging(labelled.as_ref(), Pods::Labelled) },
        Policy {
            kind: PolicyKind::Validating,
            name: GRANTED_ENTRY,
            spec: judging(unlabelled.as_ref(), Pods::Unlabelled),
        },
        Policy { kind: PolicyKind::Mutating, name: LABELLED_ENTRY, spec: injecting(labelled.as_ref()) },
        Policy { kind: PolicyKind::Mutating, name: GRANTED_ENTRY, spec: injecting(unlabelled.as_ref()) },
    ];
    let probe = match form {
        Form::Inert => without_params(injecting(None)),
        Form::Live { own, .. } => probe::spec(own, &mark(&policies)),
    };
    policies.push(Policy { kind: PolicyKind::Mutating, name: PROBE_POLICY, spec: probe });
    policies
}

/// The policies that differ from what is there, or are missing, in the order of `wanted`.
pub fn differs(wanted: &[Policy], current: impl Fn(PolicyKind, &str) -> Option<Value>) -> Vec<&Policy> {
    wanted.iter().filter(|policy| current(policy.kind, policy.name).as_ref() != Some(&policy.spec)).collect()
}

/// The policies as whoever installs makes them where the controller may not: inert.
pub fn inert() -> Vec<Value> {
    policies(Form::Inert).iter().map(Policy::object).collect()
}

/// The policy bindings, which whoever installs makes and which never change.
pub fn bindings() -> Vec<Value> {
    policies(Form::Inert).iter().map(binding).collect()
}

impl Policy {
    /// The object to make.
    pub fn object(&self) -> Value {
        object(self.kind.as_str(), self.name, &self.spec)
    }
}

fn without_params(mut spec: Value) -> Value {
    if let Some(fields) = spec.as_object_mut() {
        fields.remove("paramKind");
    }
    spec
}

/// What the API server evaluates a policy with: every `ManagedIdentityBinding` of the pod's namespace, one at a time.
fn binding(policy: &Policy) -> Value {
    let mut spec = Map::new();
    spec.insert("policyName".to_owned(), json!(policy.name));
    if policy.spec.get("paramKind").is_some() {
        spec.insert("paramRef".to_owned(), json!({"selector": {}, "parameterNotFoundAction": "Allow"}));
    }
    if policy.kind == PolicyKind::Validating {
        spec.insert("validationActions".to_owned(), json!(["Deny"]));
    }
    object(policy.kind.binding(), policy.name, &Value::Object(spec))
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    })
}

/// The pods that a policy is for, and what it needs to know; none if it is inert.
type Target<'a> = Option<&'a (&'a Config, Value)>;

fn injecting(target: Target<'_>) -> Value {
    let mut spec = spec(target, true);
    spec["reinvocationPolicy"] = json!("IfNeeded");
    let mutation = match target {
        // Some mutation there has to be. This one does nothing.
        None => json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"}}),
        Some((config, _)) => {
            say(&mut spec, mutation::conditions(config), mutation::variables(config));
            json!({"patchType": "JSONPatch", "jsonPatch": {"expression": mutation::mutation(config)}})
        }
    };
    spec["mutations"] = json!([mutation]);
    spec
}

fn judging(target: Target<'_>, pods: Pods) -> Value {
    let mut spec = spec(target, true);
    match target {
        None => spec["validations"] = json!([{"expression": "true"}]),
        Some((config, _)) => {
            say(&mut spec, validation::conditions(config), validation::variables(config));
            spec["validations"] = validation::validations(pods).iter().map(validation).collect();
        }
    }
    spec
}

fn outcome(target: Target<'_>) -> Value {
    let mut spec = spec(target, false);
    match target {
        None => spec["validations"] = json!([{"expression": "true"}]),
        Some((config, _)) => {
            let conditions = vec![("has-a-say", predicates::has_a_say())];
            say(&mut spec, conditions, vec![predicates::brought(config), predicates::volume(), predicates::injected()]);
            spec["validations"] = json!([validation(&validation::outcome())]);
        }
    }
    spec
}

/// What every policy has. A policy that can't be evaluated refuses: a pod without the identity that it was promised is
/// worse than one that is not there.
fn spec(target: Target<'_>, with_params: bool) -> Value {
    let nothing = || {
        let no_namespace = json!({"matchExpressions": [{"key": NAMESPACE_NAME_LABEL, "operator": "DoesNotExist"}]});
        constraints(&no_namespace, &json!({}))
    };
    let mut spec = json!({
        "failurePolicy": "Fail",
        "matchConstraints": target.map_or_else(nothing, |(_, constraints)| constraints.clone()),
    });
    if with_params {
        spec["paramKind"] = json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": PARAM_KIND});
    }
    spec
}

fn say(spec: &mut Value, conditions: Vec<(&'static str, String)>, variables: Vec<Variable>) {
    let named = |(name, expression): (&'static str, String)| json!({"name": name, "expression": expression});
    spec["matchConditions"] = conditions.into_iter().map(named).collect();
    spec["variables"] = variables.into_iter().map(named).collect();
}

fn validation(validation: &Validation) -> Value {
    json!({
        "expression": validation.holds,
        "messageExpression": validation.otherwise,
        // The webhook's code: 403.
        "reason": "Forbidden",
    })
}

fn constraints(namespaces: &Value, objects: &Value) -> Value {
    json!({
        "matchPolicy": "Equivalent",
        "namespaceSelector": namespaces,
        "objectSelector": objects,
        "resourceRules": [{
            "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"], "scope": "*",
        }],
    })
}

fn by_name(operator: &str, names: &BTreeSet<String>) -> Value {
    json!({"key": NAMESPACE_NAME_LABEL, "operator": operator, "values": names})
}

fn selecting(requirement: &Value, names: &BTreeSet<String>) -> Value {
    if names.is_empty() { json!({}) } else { json!({"matchExpressions": [requirement]}) }
}

#[cfg(test)]
mod tests;
