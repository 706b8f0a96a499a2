//! Every admission policy with its match constraints, and the policy bindings.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::mutation;
use super::policy::{Policy, PolicyKind, object};
use super::predicates::{self, Variable};
use super::probe::{self, PROBE_POLICY, mark};
use super::validation::{self, Pods, Validation};
use crate::admission::Config;
use crate::webhook_configuration::{GRANTED_ENTRY, LABELLED_ENTRY, NAMESPACE_NAME_LABEL};
use ensign_api::keys::INJECT_LABEL;
use ensign_api::{GROUP, VERSION};

/// The policy that denies labelled pods that were not injected.
pub const OUTCOME_POLICY: &str = "injected-pods.ensign.dev";

const PARAM_KIND: &str = "ManagedIdentityBinding";

/// What the policies do.
#[derive(Clone, Copy, Debug)]
pub enum Form<'a> {
    /// Nothing: they match no pod.
    Inert,
    /// They inject and validate pods.
    Live {
        /// What pods get, and the namespaces whose pods are never changed.
        config: &'a Config,
        /// Ensign's own namespace.
        own: &'a str,
        /// The namespaces that some grant names or selects.
        covered: &'a BTreeSet<String>,
    },
}

/// The policies, in the order in which they have to be written: validating ones before mutating ones, so that no pod is
/// injected that should be denied.
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
        Policy {
            kind: PolicyKind::Validating,
            name: LABELLED_ENTRY,
            spec: validating(labelled.as_ref(), Pods::Labelled),
        },
        Policy {
            kind: PolicyKind::Validating,
            name: GRANTED_ENTRY,
            spec: validating(unlabelled.as_ref(), Pods::Unlabelled),
        },
        Policy { kind: PolicyKind::Mutating, name: LABELLED_ENTRY, spec: mutating(labelled.as_ref()) },
        Policy { kind: PolicyKind::Mutating, name: GRANTED_ENTRY, spec: mutating(unlabelled.as_ref()) },
    ];
    let probe = match form {
        Form::Inert => without_params(mutating(None)),
        Form::Live { own, .. } => probe::spec(own, &mark(&policies)),
    };
    policies.push(Policy { kind: PolicyKind::Mutating, name: PROBE_POLICY, spec: probe });
    policies
}

/// The policies whose spec differs from the current one, or that do not exist, in the order of `wanted`.
pub fn differs(wanted: &[Policy], current: impl Fn(PolicyKind, &str) -> Option<Value>) -> Vec<&Policy> {
    wanted.iter().filter(|policy| current(policy.kind, policy.name).as_ref() != Some(&policy.spec)).collect()
}

/// Inert policies, which the installer creates where the controller may not create policies.
pub fn inert() -> Vec<Value> {
    policies(Form::Inert).iter().map(Policy::object).collect()
}

/// The policy bindings, which the installer creates and which never change.
pub fn bindings() -> Vec<Value> {
    policies(Form::Inert).iter().map(binding).collect()
}

fn without_params(mut spec: Value) -> Value {
    if let Some(fields) = spec.as_object_mut() {
        fields.remove("paramKind");
    }
    spec
}

/// The policy binding of a policy. With parameters, the API server evaluates the policy for every
/// `ManagedIdentityBinding` of the pod's namespace, one at a time.
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

/// The configuration and the match constraints of a policy; `None` if it is inert.
type Target<'a> = Option<&'a (&'a Config, Value)>;

fn mutating(target: Target<'_>) -> Value {
    let mut spec = spec(target, true);
    spec["reinvocationPolicy"] = json!("IfNeeded");
    let mutation = match target {
        // At least one mutation is required; this one has no effect.
        None => json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"}}),
        Some((config, _)) => {
            set_expressions(&mut spec, mutation::conditions(config), mutation::variables(config));
            json!({"patchType": "JSONPatch", "jsonPatch": {"expression": mutation::mutation(config)}})
        }
    };
    spec["mutations"] = json!([mutation]);
    spec
}

fn validating(target: Target<'_>, pods: Pods) -> Value {
    let mut spec = spec(target, true);
    match target {
        None => spec["validations"] = json!([{"expression": "true"}]),
        Some((config, _)) => {
            set_expressions(&mut spec, validation::conditions(config), validation::variables(config));
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
            let conditions = vec![("not-exempt", predicates::is_not_exempt())];
            set_expressions(
                &mut spec,
                conditions,
                vec![predicates::token_volumes(config), predicates::volume(), predicates::injected()],
            );
            spec["validations"] = json!([validation(&validation::outcome())]);
        }
    }
    spec
}

/// What every policy has. A policy that can't be evaluated denies the pod: no pod is better than one without its identity.
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

fn set_expressions(spec: &mut Value, conditions: Vec<(&'static str, String)>, variables: Vec<Variable>) {
    let named = |(name, expression): (&'static str, String)| json!({"name": name, "expression": expression});
    spec["matchConditions"] = conditions.into_iter().map(named).collect();
    spec["variables"] = variables.into_iter().map(named).collect();
}

fn validation(validation: &Validation) -> Value {
    json!({
        "expression": validation.holds,
        "messageExpression": validation.message,
        // 403, like the webhook.
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
