//! Which pods are refused, and in which words: those of the webhook.

use super::Config;
use super::already_injected;
use super::literals::{slot, words};
use super::predicates::{self, Variable};
use crate::admission::{Binding, BindingReadiness, denial};
use ensign_api::conditions::ConditionType;
use ensign_api::keys::TOKEN_VOLUME;
use ensign_api::{
    IdentityKind, IdentityRef, Injection, InjectionMode, ManagedIdentityBinding, ManagedIdentityBindingSpec,
};

/// A validation: what has to hold, and the message otherwise. Both are expressions.
pub(super) struct Validation {
    pub(super) holds: String,
    pub(super) otherwise: String,
}

/// The pods that a policy judges: unlabelled ones, or those with the opt-in label.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pods {
    Unlabelled,
    Labelled,
}

/// The bindings that have something to say about the pod: one that has injected it has nothing against it.
pub(super) fn conditions(config: &Config) -> Vec<(&'static str, String)> {
    let served = format!(
        "{} && {} && ({}) == 'Resolved'",
        already_injected::has_all(config),
        predicates::covers(),
        predicates::standing()
    );
    vec![
        ("has-a-say", predicates::has_a_say()),
        ("of-service-account", predicates::of_service_account()),
        ("has-not-served", format!("!({served})")),
    ]
}

pub(super) fn variables(config: &Config) -> Vec<Variable> {
    let in_the_way = format!(
        "({}).filter(c, string(c.name) in variables.chosen).map(c, c.?volumeMounts.orValue([])\
         .filter(m, {} && !({})).map(m, [string(c.name), string(m.name), string(m.mountPath)])).flatten()",
        predicates::containers(),
        predicates::is_within_token_path("m.mountPath"),
        predicates::is_token_mount("m"),
    );
    vec![
        predicates::brought(config),
        predicates::volume(),
        predicates::injected(),
        predicates::chosen(),
        ("covers", predicates::covers()),
        ("standing", predicates::standing()),
        ("in_the_way", in_the_way),
        ("not_accepted_reason", predicates::quoted(ConditionType::Accepted, "reason")),
        ("not_accepted_message", predicates::quoted(ConditionType::Accepted, "message")),
        ("unresolved_reason", predicates::quoted(ConditionType::IdentityResolved, "reason")),
        ("unresolved_message", predicates::quoted(ConditionType::IdentityResolved, "message")),
    ]
}

/// What each binding of the pod's service account has to say.
pub(super) fn validations(pods: Pods) -> Vec<Validation> {
    let mut validations = vec![unresolved(), in_the_way(), taken()];
    if pods == Pods::Labelled {
        validations.extend([pending(), not_accepted(), deleting(), no_container()]);
        validations.extend([InjectionMode::None, InjectionMode::Pods].map(near_miss));
    }
    validations
}

/// What no binding can say: that there is none. The outcome alone counts, because anybody can write an annotation.
pub(super) fn outcome() -> Validation {
    let refusal = denial::not_injected(&slot("namespace"), &slot("account"));
    Validation { holds: "variables.injected".to_owned(), otherwise: said(&refusal.message) }
}

/// Refuses what is neither injected nor going to be; the webhook says so only if no other binding serves.
fn unless_injected(standing: &str) -> String {
    format!("!(variables.covers && variables.standing == '{standing}') || variables.injected")
}

fn unresolved() -> Validation {
    let why = slot("why");
    let [unknown, known] =
        [None, Some(why)].map(|why| said(&unfit(&BindingReadiness::Unresolved { why: why.map(Into::into) })));
    Validation {
        holds: "!(variables.covers && variables.standing == 'Unresolved')".to_owned(),
        otherwise: format!("variables.unresolved_reason == '' ? {unknown} : {known}"),
    }
}

fn pending() -> Validation {
    Validation {
        holds: "!(variables.covers && variables.standing == 'Pending')".to_owned(),
        otherwise: said(&unfit(&BindingReadiness::Pending)),
    }
}

fn not_accepted() -> Validation {
    let standing = BindingReadiness::NotAccepted { reason: slot("reason").into(), message: slot("message").into() };
    Validation { holds: unless_injected("NotAccepted"), otherwise: said(&unfit(&standing)) }
}

fn deleting() -> Validation {
    Validation { holds: unless_injected("Deleting"), otherwise: said(&unfit(&BindingReadiness::Deleting)) }
}

fn no_container() -> Validation {
    let refusal = denial::no_container(&binding(InjectionMode::Pods), &slot("namespace"));
    Validation {
        holds: format!("{} || variables.chosen.size() > 0", unless_injected("Resolved")),
        otherwise: said(&refusal.message),
    }
}

/// The pod's service account has a binding, but that one does not mean the pod.
fn near_miss(mode: InjectionMode) -> Validation {
    let near = binding(mode);
    let refusal = denial::no_binding(&slot("namespace"), &slot("account"), std::iter::once(&near));
    let means = match mode {
        InjectionMode::None => predicates::injects_pods(),
        InjectionMode::Pods => format!("variables.covers || !({})", predicates::injects_pods()),
    };
    Validation { holds: format!("{means} || variables.injected"), otherwise: said(&refusal.message) }
}

fn in_the_way() -> Validation {
    let refusal = denial::mount_clash(&slot("container"), &slot("mount"), &slot("path"), &slot("token"));
    Validation {
        holds: "!(variables.covers && variables.standing == 'Resolved') || variables.in_the_way.size() == 0".to_owned(),
        otherwise: said(&refusal.message),
    }
}

fn taken() -> Validation {
    Validation {
        holds: format!(
            "!(variables.covers && variables.standing == 'Resolved') || variables.chosen.size() == 0 || !({})",
            predicates::is_taken()
        ),
        otherwise: said(&denial::volume_clash(TOKEN_VOLUME).message),
    }
}

/// A binding with slots where the webhook would have values.
fn binding(mode: InjectionMode) -> Binding {
    let spec = ManagedIdentityBindingSpec {
        identity_ref: IdentityRef { kind: IdentityKind::ManagedIdentity, name: slot("identity") },
        service_account_name: slot("account"),
        pod_selector: None,
        injection: Injection { mode, ..Injection::default() },
    };
    let mut binding = Binding::from(&ManagedIdentityBinding::new(&slot("binding"), spec));
    // Its kind is not known before either.
    binding.identity = slot("identity").into();
    binding
}

fn unfit(standing: &BindingReadiness) -> String {
    let mut binding = binding(InjectionMode::Pods);
    binding.standing.clone_from(standing);
    denial::unfit(&binding, &slot("namespace")).message
}

/// The webhook's words, with what the policy knows in its slots.
fn said(message: &str) -> String {
    let account = predicates::service_account();
    let identity = predicates::identity();
    let why = "variables.unresolved_reason + ': ' + variables.unresolved_message";
    words(
        message,
        &[
            ("binding", "params.metadata.name"),
            ("namespace", "request.namespace"),
            ("account", &account),
            ("identity", &identity),
            ("why", why),
            ("reason", "variables.not_accepted_reason"),
            ("message", "variables.not_accepted_message"),
            ("container", "variables.in_the_way[0][0]"),
            ("mount", "variables.in_the_way[0][1]"),
            ("path", "variables.in_the_way[0][2]"),
            ("token", "variables.volume"),
        ],
    )
}
