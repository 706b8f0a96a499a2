//! The patch that injects a pod's identities.

use super::binding::{Binding, BindingReadiness, Origin};
use super::config::Config;
use super::denial::Denial;
use super::injected_by;
use super::injection::Injection;
use super::json_patch::Content;
use super::pod::{Container, EnvVar, Pod};
use super::token_volume::Token;
use super::upstream_pod::PodOptions;
use crate::assess::CLIENT_ID_ANNOTATION;
use ensign_api::injected_env::{INJECTED_ENV, InjectedValue};
use ensign_api::keys::{ENV_CLIENT_ID, TOKEN_FILE, TOKEN_VOLUME};

/// Warnings are sent as HTTP headers, so their number and the length of values in them are limited.
const MAX_WARNINGS: usize = 10;
const MAX_VALUE_CHARACTERS: usize = 64;

/// A ready binding, with what its pods get.
#[derive(Clone, Copy)]
pub(super) struct Identity<'b> {
    pub(super) binding: &'b Binding,
    client_id: &'b str,
    tenant_id: &'b str,
}

impl<'b> Identity<'b> {
    pub(super) fn of(binding: &'b Binding) -> Option<Self> {
        match &binding.readiness {
            BindingReadiness::Resolved { client_id, tenant_id } => Some(Self { binding, client_id, tenant_id }),
            _ => None,
        }
    }

    /// What happens to a younger identity in a container that has this one. The controller accepts only bindings that
    /// agree; this applies until it has evaluated them.
    fn outcome_for_younger(self, younger: Self) -> IdentityOutcome {
        let same_name = self.binding.client_id_env == younger.binding.client_id_env;
        let tenants = (self.tenant_id, younger.tenant_id);
        if same_name && (self.client_id != younger.client_id || younger.binding.origin == Origin::ServiceAccount) {
            IdentityOutcome::Superseded
        } else if tenants.1.is_empty() || tenants.0.eq_ignore_ascii_case(tenants.1) {
            IdentityOutcome::Injected
        } else {
            IdentityOutcome::TenantMismatch
        }
    }
}

/// What happens to an identity. If it differs between containers, the largest one counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum IdentityOutcome {
    /// Its binding selects no container of the pod.
    NotSelected,
    /// An older binding sets its variable.
    Superseded,
    /// An older binding is for another tenant, and a container can have only one.
    TenantMismatch,
    /// It is injected.
    Injected,
}

/// Injects the identities, given oldest first; `None` if they select none of the pod's containers.
pub(super) fn inject(pod: &Pod<'_>, identities: &[Identity<'_>], config: &Config) -> Result<Option<Injection>, Denial> {
    let Some(spec) = &pod.spec else { return Ok(None) };
    let options = PodOptions::of(pod, TOKEN_VOLUME, config);
    let token = Token::of(spec.volumes.as_deref(), &options.volume, config);
    let mut injection = Injection::default();
    let mut outcomes = vec![IdentityOutcome::NotSelected; identities.len()];
    for (list, containers) in [("initContainers", &spec.init_containers), ("containers", &spec.containers)] {
        for (index, container) in containers.iter().flatten().enumerate() {
            if options.skips(&container.name) {
                continue;
            }
            let selected = select(&container.name, identities, &mut outcomes);
            if !selected.is_empty() {
                let path = ["spec", list, &index.to_string()];
                inject_env(&mut injection, path, container, &selected, config);
                token.mount(&mut injection, path, container)?;
            }
        }
    }
    let with = |wanted: IdentityOutcome| {
        let outcomes = outcomes.iter().zip(identities);
        outcomes.filter(move |(outcome, _)| **outcome == wanted).map(|(_, identity)| *identity)
    };
    let injected: Vec<&Binding> = with(IdentityOutcome::Injected).map(|identity| identity.binding).collect();
    // The controller accepts only bindings that agree on the lifetime; until then, the shortest one is safe.
    let Some(seconds) = injected.iter().map(|binding| binding.token_expiration_seconds).min() else { return Ok(None) };
    token.add(&mut injection, seconds, config)?;
    injection.warnings.extend(with(IdentityOutcome::TenantMismatch).map(tenant_mismatch));
    injection
        .warnings
        .extend(with(IdentityOutcome::Injected).filter(|identity| identity.client_id.is_empty()).map(no_client_id));
    let overridden = identities.iter().zip(&outcomes).find(|(identity, outcome)| {
        identity.binding.origin == Origin::ServiceAccount
            && !identity.client_id.is_empty()
            && matches!(outcome, IdentityOutcome::Superseded | IdentityOutcome::TenantMismatch)
    });
    let by = injected_by::value(&injected, overridden.map(|(identity, _)| identity.binding));
    injection.operations.extend(injected_by::set(pod, by));
    Ok(Some(injection))
}

/// The identities of a container, oldest first. Updates the outcome of each identity.
fn select<'b>(container: &str, identities: &[Identity<'b>], outcomes: &mut [IdentityOutcome]) -> Vec<Identity<'b>> {
    let mut selected: Vec<Identity<'b>> = Vec::with_capacity(identities.len());
    for (identity, outcome) in identities.iter().zip(outcomes) {
        if !identity.binding.selects(container) {
            continue;
        }
        let here = selected
            .iter()
            .map(|older| older.outcome_for_younger(*identity))
            .min()
            .unwrap_or(IdentityOutcome::Injected);
        if here == IdentityOutcome::Injected {
            selected.push(*identity);
        }
        *outcome = here.max(*outcome);
    }
    selected
}

fn inject_env(
    injection: &mut Injection,
    path: [&str; 3],
    container: &Container<'_>,
    identities: &[Identity<'_>],
    config: &Config,
) {
    let [spec, list, index] = path;
    let existing = container.env.as_deref();
    let wanted = wanted_env(identities, config);
    let mut missing = Vec::with_capacity(wanted.len());
    for (name, value) in wanted {
        // Of variables with the same name, the last one applies.
        match existing.unwrap_or_default().iter().rfind(|variable| &*variable.name == name) {
            None => missing.push(Content::variable(name, value)),
            Some(kept) => injection.warnings.extend(difference(&container.name, kept, value)),
        }
    }
    injection.append(&[spec, list, index, "env"], existing.is_some(), missing);
}

/// Names and values of a container's variables, in order. An empty value is omitted, because it would hide one from
/// `envFrom`.
fn wanted_env<'a>(identities: &[Identity<'a>], config: &'a Config) -> Vec<(&'a str, &'a str)> {
    let mut wanted: Vec<(&str, &str)> = Vec::with_capacity(identities.len() + INJECTED_ENV.len());
    for variable in &INJECTED_ENV {
        if !variable.renamable {
            // All identities of a container share it.
            wanted.extend(identities.first().map(|oldest| (variable.key, value(variable.value, *oldest, config))));
            continue;
        }
        for identity in identities {
            let name = &*identity.binding.client_id_env;
            // Two bindings to the same identity set the same variable.
            if !wanted.iter().any(|(taken, _)| *taken == name) {
                wanted.push((name, value(variable.value, *identity, config)));
            }
        }
    }
    wanted.retain(|(_, value)| !value.is_empty());
    wanted
}

fn value<'a>(value: InjectedValue, identity: Identity<'a>, config: &'a Config) -> &'a str {
    match value {
        InjectedValue::ClientId => identity.client_id,
        InjectedValue::TenantId => identity.tenant_id,
        InjectedValue::TokenFile => TOKEN_FILE,
        InjectedValue::AuthorityHost => &config.authority_host,
    }
}

fn tenant_mismatch(identity: Identity<'_>) -> String {
    format!(
        "{} was not injected: it is for Entra tenant {:?}, an older binding of the pod is for another tenant, and a \
         container can have only one",
        named(identity.binding),
        shortened(identity.tenant_id)
    )
}

/// Only annotations can be without a client ID: a binding is ready once it is known.
fn no_client_id(identity: Identity<'_>) -> String {
    format!(
        "{} has no annotation {CLIENT_ID_ANNOTATION}, so {ENV_CLIENT_ID} was not injected; annotate it, or create a \
         ManagedIdentityBinding",
        named(identity.binding)
    )
}

fn named(binding: &Binding) -> String {
    match binding.origin {
        Origin::Object => format!("ManagedIdentityBinding {:?}", binding.name),
        Origin::ServiceAccount => format!("service account {:?}", binding.service_account),
    }
}

fn shortened(value: &str) -> &str {
    let end = value.char_indices().nth(MAX_VALUE_CHARACTERS).map_or(value.len(), |(end, _)| end);
    &value[..end]
}

/// A warning if a variable that is kept differs from what would have been injected.
fn difference(container: &str, kept: &EnvVar<'_>, wanted: &str) -> Option<String> {
    let name = &*kept.name;
    let value = kept.value.as_deref().unwrap_or_default();
    if kept.value_from.is_none() && value == wanted {
        return None;
    }
    let wanted = shortened(wanted);
    Some(if kept.value_from.is_some() {
        format!("container {container:?}: {name} keeps its valueFrom; Ensign would have set {wanted:?}")
    } else {
        format!(
            "container {container:?}: {name} keeps its value {:?}; Ensign would have set {wanted:?}",
            shortened(value)
        )
    })
}

/// Limits the number of warnings. Those about client IDs come first: a wrong one matters most.
pub(super) fn limit_warnings(warnings: &mut Vec<String>) {
    warnings.sort_by_key(|warning| !warning.contains(ENV_CLIENT_ID));
    if warnings.len() > MAX_WARNINGS {
        let more = warnings.len() - MAX_WARNINGS;
        warnings.truncate(MAX_WARNINGS);
        warnings.push(format!("and {more} more"));
    }
}
