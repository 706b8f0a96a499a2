//! Whether two bindings of one service account can request conflicting injection into the same pod.

use std::collections::{BTreeMap, BTreeSet};

use ensign_api::selector::{LabelOperator, LabelSelector};
use ensign_api::{ContainerFilter, InjectionMode, ManagedIdentityBinding};

/// What two bindings conflict about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clash {
    /// Both write the same environment variable, with different client IDs, into the same container.
    ClientIdEnv,
    /// They request different lifetimes of the pod's single projected token.
    TokenExpiration,
}

/// What the two bindings conflict about in a pod that both can match. Both must have the same service account.
///
/// Two bindings to the same identity do not conflict over the client ID: they write the same value.
pub fn clash(one: &ManagedIdentityBinding, other: &ManagedIdentityBinding) -> Option<Clash> {
    let different_identity = one.identity_name() != other.identity_name();
    let (one, other) = (&one.spec, &other.spec);
    let injects = one.injection.mode == InjectionMode::Pods && other.injection.mode == InjectionMode::Pods;
    if !injects || !selectors_overlap(one.pod_selector.as_ref(), other.pod_selector.as_ref()) {
        return None;
    }
    if one.injection.token_expiration_seconds != other.injection.token_expiration_seconds {
        return Some(Clash::TokenExpiration);
    }
    let same_env = one.injection.client_id_env == other.injection.client_id_env;
    (same_env && different_identity && containers_overlap(&one.injection.containers, &other.injection.containers))
        .then_some(Clash::ClientIdEnv)
}

/// Whether a pod can match both selectors. An absent or empty selector matches every pod.
pub fn selectors_overlap(one: Option<&LabelSelector>, other: Option<&LabelSelector>) -> bool {
    let mut keys: BTreeMap<&str, Values<'_>> = BTreeMap::new();
    for selector in [one, other].into_iter().flatten() {
        for (key, value) in &selector.match_labels {
            keys.entry(key).or_default().restrict(std::iter::once(value.0.as_str()));
        }
        for requirement in &selector.match_expressions {
            let values = keys.entry(&requirement.key).or_default();
            let listed = requirement.values.iter().map(|value| value.0.as_str());
            match requirement.operator {
                LabelOperator::In => values.restrict(listed),
                LabelOperator::NotIn => values.denied.extend(listed),
                LabelOperator::Exists => values.must_exist = true,
                LabelOperator::DoesNotExist => values.must_be_absent = true,
            }
        }
    }
    keys.values().all(Values::possible)
}

/// The values of one label that satisfy all requirements.
#[derive(Default)]
struct Values<'a> {
    allowed: Option<BTreeSet<&'a str>>,
    denied: BTreeSet<&'a str>,
    must_exist: bool,
    must_be_absent: bool,
}

impl<'a> Values<'a> {
    fn restrict(&mut self, to: impl Iterator<Item = &'a str>) {
        let to: BTreeSet<_> = to.collect();
        self.allowed = Some(match self.allowed.take() {
            Some(allowed) => allowed.intersection(&to).copied().collect(),
            None => to,
        });
        self.must_exist = true;
    }

    fn possible(&self) -> bool {
        let some_value = self.allowed.as_ref().is_none_or(|allowed| !allowed.is_subset(&self.denied));
        some_value && !(self.must_exist && self.must_be_absent)
    }
}

fn containers_overlap(one: &ContainerFilter, other: &ContainerFilter) -> bool {
    let excluded = |name: &String| one.exclude.contains(name) || other.exclude.contains(name);
    let chosen = |filter: &ContainerFilter, name: &String| filter.include.is_empty() || filter.include.contains(name);
    if one.include.is_empty() && other.include.is_empty() {
        return true;
    }
    one.include.iter().chain(&other.include).any(|name| chosen(one, name) && chosen(other, name) && !excluded(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn binding(identity: &str, extra: &Value) -> ManagedIdentityBinding {
        let mut spec = json!({"identityRef": {"name": identity}, "serviceAccountName": "app"});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityBinding",
            "metadata": {"name": identity, "namespace": "shop"}, "spec": spec,
        }))
        .unwrap()
    }

    fn clash_of(one: &Value, other: &Value) -> Option<Clash> {
        clash(&binding("a", one), &binding("b", other))
    }

    #[test]
    fn two_identities_for_every_pod_conflict_over_the_client_id() {
        assert_eq!(clash_of(&json!({}), &json!({})), Some(Clash::ClientIdEnv));
    }

    #[test]
    fn two_bindings_to_one_identity_do_not_conflict() {
        assert_eq!(clash(&binding("a", &json!({})), &binding("a", &json!({}))), None);
    }

    #[test]
    fn another_variable_resolves_the_conflict() {
        assert_eq!(clash_of(&json!({}), &json!({"injection": {"clientIDEnv": "AUDIT_CLIENT_ID"}})), None);
    }

    #[test]
    fn bindings_that_do_not_inject_do_not_conflict() {
        assert_eq!(clash_of(&json!({}), &json!({"injection": {"mode": "None"}})), None);
    }

    #[test]
    fn disjoint_selectors_do_not_conflict() {
        let select = |selector: &Value| json!({"podSelector": selector});
        let cases = [
            (json!({"matchLabels": {"app": "a"}}), json!({"matchLabels": {"app": "b"}})),
            (
                json!({"matchLabels": {"app": "a"}}),
                json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["a"]}]}),
            ),
            (
                json!({"matchLabels": {"app": "a"}}),
                json!({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}),
            ),
            (
                json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]}),
                json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["c"]}]}),
            ),
        ];
        for (one, other) in cases {
            assert_eq!(clash_of(&select(&one), &select(&other)), None, "{one} and {other}");
        }
    }

    #[test]
    fn selectors_on_different_labels_can_match_one_pod() {
        let one = json!({"podSelector": {"matchLabels": {"app": "a"}}});
        let other = json!({"podSelector": {"matchLabels": {"tier": "web"}}});
        assert_eq!(clash_of(&one, &other), Some(Clash::ClientIdEnv));
    }

    #[test]
    fn different_containers_do_not_conflict_but_share_the_token() {
        let one = json!({"injection": {"containers": {"include": ["app"]}}});
        let other = json!({"injection": {"containers": {"include": ["sidecar"]}}});
        assert_eq!(clash_of(&one, &other), None);
        let longer = json!({"injection": {"containers": {"include": ["sidecar"]}, "tokenExpirationSeconds": 7200}});
        assert_eq!(clash_of(&one, &longer), Some(Clash::TokenExpiration));
    }
}
