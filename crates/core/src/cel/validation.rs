//! Which pods are denied, with the webhook's messages.

use super::already_injected;
use super::literals::{placeholder, template};
use super::predicates::{self, Variable};
use crate::admission::{Binding, BindingReadiness, Config, denial};
use ensign_api::conditions::ConditionType;
use ensign_api::keys::TOKEN_VOLUME;
use ensign_api::{
    IdentityKind, IdentityRef, Injection, InjectionMode, ManagedIdentityBinding, ManagedIdentityBindingSpec,
};

/// A validation. Both fields are expressions.
pub(super) struct Validation {
    /// Whether the pod is valid.
    pub(super) holds: String,
    /// The message of the denial.
    pub(super) message: String,
}

/// The pods that a policy validates: unlabelled ones, or those with the opt-in label.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pods {
    Unlabelled,
    Labelled,
}

/// Match conditions, as names and expressions: the binding is for the pod's service account, and has not injected the pod.
pub(super) fn conditions(config: &Config) -> Vec<(&'static str, String)> {
    let injected = format!(
        "{} && {} && ({}) == 'Resolved'",
        already_injected::is_injected(config),
        predicates::covers(),
        predicates::readiness()
    );
    vec![
        ("not-exempt", predicates::is_not_exempt()),
        ("for-service-account", predicates::for_service_account()),
        ("not-injected-yet", format!("!({injected})")),
    ]
}

/// Variables of the validations and their messages.
pub(super) fn variables(config: &Config) -> Vec<Variable> {
    let conflicting_mounts = format!(
        "({}).filter(c, string(c.name) in variables.selected).map(c, c.?volumeMounts.orValue([])\
         .filter(m, {} && !({})).map(m, [string(c.name), string(m.name), string(m.mountPath)])).flatten()",
        predicates::containers(),
        predicates::is_within_token_path("m.mountPath"),
        predicates::is_token_mount("m"),
    );
    vec![
        predicates::token_volumes(config),
        predicates::volume(),
        predicates::injected(),
        predicates::selected(),
        ("covers", predicates::covers()),
        ("readiness", predicates::readiness()),
        ("conflicting_mounts", conflicting_mounts),
        ("not_accepted_reason", predicates::quoted(ConditionType::Accepted, "reason")),
        ("not_accepted_message", predicates::quoted(ConditionType::Accepted, "message")),
        ("unresolved_reason", predicates::quoted(ConditionType::IdentityResolved, "reason")),
        ("unresolved_message", predicates::quoted(ConditionType::IdentityResolved, "message")),
    ]
}

/// The validations for each binding of the pod's service account.
pub(super) fn validations(pods: Pods) -> Vec<Validation> {
    let mut validations = vec![unresolved(), mount_clash(), volume_clash()];
    if pods == Pods::Labelled {
        validations.extend([pending(), not_accepted(), deleting(), no_container()]);
        validations.extend([InjectionMode::None, InjectionMode::Pods].map(near_miss));
    }
    validations
}

/// Denies a pod that no binding injected. Only its contents count, because anyone can write an annotation.
pub(super) fn outcome() -> Validation {
    let denial = denial::not_injected(&placeholder("namespace"), &placeholder("account"));
    Validation { holds: "variables.injected".to_owned(), message: message(&denial.message) }
}

/// False if a covering binding of this readiness leaves the pod without injection, and no other binding injected it.
fn unless_injected(readiness: &str) -> String {
    format!("!(variables.covers && variables.readiness == '{readiness}') || variables.injected")
}

fn unresolved() -> Validation {
    let why = placeholder("why");
    let [unknown, known] =
        [None, Some(why)].map(|why| message(&not_ready(&BindingReadiness::Unresolved { why: why.map(Into::into) })));
    Validation {
        holds: "!(variables.covers && variables.readiness == 'Unresolved')".to_owned(),
        message: format!("variables.unresolved_reason == '' ? {unknown} : {known}"),
    }
}

fn pending() -> Validation {
    Validation {
        holds: "!(variables.covers && variables.readiness == 'Pending')".to_owned(),
        message: message(&not_ready(&BindingReadiness::Pending)),
    }
}

fn not_accepted() -> Validation {
    let [reason, text] = ["reason", "message"].map(placeholder);
    let readiness = BindingReadiness::NotAccepted { reason: reason.into(), message: text.into() };
    Validation { holds: unless_injected("NotAccepted"), message: message(&not_ready(&readiness)) }
}

fn deleting() -> Validation {
    Validation { holds: unless_injected("Deleting"), message: message(&not_ready(&BindingReadiness::Deleting)) }
}

fn no_container() -> Validation {
    let denial = denial::no_container(&binding(InjectionMode::Pods), &placeholder("namespace"));
    Validation {
        holds: format!("{} || variables.selected.size() > 0", unless_injected("Resolved")),
        message: message(&denial.message),
    }
}

/// The binding is for the pod's service account, but does not cover the pod: its mode is None, or its selector does not
/// match.
fn near_miss(mode: InjectionMode) -> Validation {
    let near_miss = binding(mode);
    let denial = denial::no_binding(&placeholder("namespace"), &placeholder("account"), std::iter::once(&near_miss));
    let covers = match mode {
        InjectionMode::None => predicates::injects_pods(),
        InjectionMode::Pods => format!("variables.covers || !({})", predicates::injects_pods()),
    };
    Validation { holds: format!("{covers} || variables.injected"), message: message(&denial.message) }
}

fn mount_clash() -> Validation {
    let [container, mount, path, token] = ["container", "mount", "path", "token"].map(placeholder);
    let denial = denial::mount_clash(&container, &mount, &path, &token);
    Validation {
        holds: "!(variables.covers && variables.readiness == 'Resolved') || variables.conflicting_mounts.size() == 0"
            .to_owned(),
        message: message(&denial.message),
    }
}

fn volume_clash() -> Validation {
    Validation {
        holds: format!(
            "!(variables.covers && variables.readiness == 'Resolved') || variables.selected.size() == 0 || !({})",
            predicates::is_name_taken()
        ),
        message: message(&denial::volume_clash(TOKEN_VOLUME).message),
    }
}

/// A binding with placeholders instead of values.
fn binding(mode: InjectionMode) -> Binding {
    let spec = ManagedIdentityBindingSpec {
        identity_ref: IdentityRef { kind: IdentityKind::ManagedIdentity, name: placeholder("identity") },
        service_account_name: placeholder("account"),
        pod_selector: None,
        injection: Injection { mode, ..Injection::default() },
    };
    let mut binding = Binding::from(&ManagedIdentityBinding::new(&placeholder("binding"), spec));
    // The kind of the identity is part of the placeholder.
    binding.identity = placeholder("identity").into();
    binding
}

fn not_ready(readiness: &BindingReadiness) -> String {
    let mut binding = binding(InjectionMode::Pods);
    binding.readiness.clone_from(readiness);
    denial::not_ready(&binding, &placeholder("namespace")).message
}

/// A message of the webhook as an expression, with the policy's variables in place of placeholders.
fn message(text: &str) -> String {
    let account = predicates::service_account();
    let identity = predicates::identity();
    let why = "variables.unresolved_reason + ': ' + variables.unresolved_message";
    template(
        text,
        &[
            ("binding", "params.metadata.name"),
            ("namespace", "request.namespace"),
            ("account", &account),
            ("identity", &identity),
            ("why", why),
            ("reason", "variables.not_accepted_reason"),
            ("message", "variables.not_accepted_message"),
            ("container", "variables.conflicting_mounts[0][0]"),
            ("mount", "variables.conflicting_mounts[0][1]"),
            ("path", "variables.conflicting_mounts[0][2]"),
            ("token", "variables.volume"),
        ],
    )
}
