//! A label selector of limited size, which bounds its cost in admission policies.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Selects objects by their labels. All requirements must be met.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels and their values that are required.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub match_labels: BTreeMap<String, LabelValue>,
    /// Requirements on labels. All of them must be met.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub match_expressions: Vec<LabelRequirement>,
}

/// A label's value, at most 63 characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct LabelValue(#[schemars(length(max = 63))] pub String);

impl From<&str> for LabelValue {
    fn from(value: &str) -> Self {
        Self(value.to_owned())
    }
}

/// A requirement on a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "self.operator in ['In', 'NotIn'] ? size(self.values) > 0 : size(self.values) == 0"
).message("values must be set for In and NotIn, and must not be set for Exists and DoesNotExist").field_path(".values"))]
pub struct LabelRequirement {
    /// Key of the label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// How the label relates to the values.
    pub operator: LabelOperator,
    /// Values for `In` and `NotIn`.
    #[serde(default)]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "set"))]
    pub values: Vec<LabelValue>,
}

/// Operators of a [`LabelRequirement`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum LabelOperator {
    /// The label is present with one of the values.
    In,
    /// The label is absent, or has none of the values.
    NotIn,
    /// The label is present.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

impl LabelSelector {
    /// Whether there are no requirements. The field with the selector defines what an empty selector means.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(&value.0))
            && self.match_expressions.iter().all(|requirement| requirement.matches(labels))
    }
}

impl LabelRequirement {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let present = labels.get(&self.key);
        let listed = present.is_some_and(|value| self.values.iter().any(|wanted| wanted.0 == *value));
        match self.operator {
            LabelOperator::In => listed,
            LabelOperator::NotIn => !listed,
            LabelOperator::Exists => present.is_some(),
            LabelOperator::DoesNotExist => present.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn requirement(operator: LabelOperator, values: &[&str]) -> LabelSelector {
        LabelSelector {
            match_labels: BTreeMap::new(),
            match_expressions: vec![LabelRequirement {
                key: "team".to_owned(),
                operator,
                values: values.iter().map(|value| LabelValue::from(*value)).collect(),
            }],
        }
    }

    #[test]
    fn match_labels_require_all_labels_with_their_values() {
        let selector = LabelSelector {
            match_labels: [("app".to_owned(), "orders".into()), ("tier".to_owned(), "web".into())].into(),
            match_expressions: Vec::new(),
        };
        assert!(selector.matches(&labels(&[("app", "orders"), ("tier", "web"), ("other", "x")])));
        assert!(!selector.matches(&labels(&[("app", "orders")])));
        assert!(!selector.matches(&labels(&[("app", "orders"), ("tier", "db")])));
    }

    #[test]
    fn operators_work_as_in_kubernetes() {
        let orders = labels(&[("team", "orders")]);
        let none = labels(&[]);
        assert!(requirement(LabelOperator::In, &["orders", "pay"]).matches(&orders));
        assert!(!requirement(LabelOperator::In, &["pay"]).matches(&orders));
        assert!(!requirement(LabelOperator::In, &["orders"]).matches(&none));
        assert!(requirement(LabelOperator::NotIn, &["orders"]).matches(&none), "an absent label is not in the list");
        assert!(!requirement(LabelOperator::NotIn, &["orders"]).matches(&orders));
        assert!(requirement(LabelOperator::Exists, &[]).matches(&orders));
        assert!(!requirement(LabelOperator::Exists, &[]).matches(&none));
        assert!(requirement(LabelOperator::DoesNotExist, &[]).matches(&none));
        assert!(!requirement(LabelOperator::DoesNotExist, &[]).matches(&orders));
    }
}
