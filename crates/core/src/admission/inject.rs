//! The patch that gives a pod its identities.

use super::Config;
use super::azure_workload_identity::Terms;
use super::binding::{Binding, BindingReadiness, Origin};
use super::denial::Denial;
use super::injected_by;
use super::json_patch::{Addition, Content};
use super::pod::{Container, EnvVar, Pod};
use super::token_volume::Token;
use crate::assess::CLIENT_ID_ANNOTATION;
use ensign_api::keys::{ENV_AUTHORITY_HOST, ENV_CLIENT_ID, ENV_TENANT_ID, ENV_TOKEN_FILE, TOKEN_FILE, TOKEN_VOLUME};

/// Warnings travel in HTTP headers, so their number and the values in them have a bound.
const MAX_WARNINGS: usize = 10;
const MAX_VALUE_CHARACTERS: usize = 64;

/// A binding that can serve, with what its pods get.
#[derive(Clone, Copy)]
pub(super) struct Identity<'b> {
    pub(super) binding: &'b Binding,
    client_id: &'b str,
    tenant_id: &'b str,
}

impl<'b> Identity<'b> {
    pub(super) fn of(binding: &'b Binding) -> Option<Self> {
        match &binding.standing {
            BindingReadiness::Resolved { client_id, tenant_id } => Some(Self { binding, client_id, tenant_id }),
            _ => None,
        }
    }

    /// How a junior identity goes along with this one in a container. The controller accepts only bindings that agree;
    /// this is for the time until it has.
    fn beside(self, junior: Self) -> IdentityFate {
        let same_name = self.binding.client_id_env == junior.binding.client_id_env;
        let tenants = (self.tenant_id, junior.tenant_id);
        if same_name && (self.client_id != junior.client_id || junior.binding.origin == Origin::ServiceAccount) {
            IdentityFate::Superseded
        } else if tenants.1.is_empty() || tenants.0.eq_ignore_ascii_case(tenants.1) {
            IdentityFate::Used
        } else {
            IdentityFate::OfAnotherTenant
        }
    }
}

/// What became of an identity; in several containers, the best.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum IdentityFate {
    /// It chooses no container of the pod.
    Unasked,
    /// A senior one claims its variable.
    Superseded,
    /// A senior one is of another tenant, and a container has one tenant.
    OfAnotherTenant,
    /// It is injected.
    Used,
}

/// A patch in the making.
#[derive(Default)]
pub(super) struct Injection {
    pub(super) operations: Vec<Addition>,
    pub(super) warnings: Vec<String>,
}

impl Injection {
    pub(super) fn add(&mut self, path: &[&str], content: Content) {
        self.operations.push(Addition::new(path, content));
    }

    /// Appends to a list, or creates it where it is absent.
    pub(super) fn append(&mut self, list: &[&str], exists: bool, items: Vec<Content>) {
        if items.is_empty() {
            return;
        }
        if !exists {
            return self.add(list, Content::List(items));
        }
        let end: Vec<&str> = list.iter().copied().chain(["-"]).collect();
        for item in items {
            self.add(&end, item);
        }
    }
}

/// Injects the identities, the senior first; `None` if they choose none of the pod's containers.
pub(super) fn inject(pod: &Pod<'_>, identities: &[Identity<'_>], config: &Config) -> Result<Option<Injection>, Denial> {
    let Some(spec) = &pod.spec else { return Ok(None) };
    let terms = Terms::of(pod, TOKEN_VOLUME, config);
    let token = Token::of(spec.volumes.as_deref(), &terms.volume, config);
    let mut injection = Injection::default();
    let mut fates = vec![IdentityFate::Unasked; identities.len()];
    for (list, containers) in [("initContainers", &spec.init_containers), ("containers", &spec.containers)] {
        for (index, container) in containers.iter().flatten().enumerate() {
            if terms.skip(&container.name) {
                continue;
            }
            let chosen = choose(&container.name, identities, &mut fates);
            if !chosen.is_empty() {
                let place = ["spec", list, &index.to_string()];
                inject_env(&mut injection, place, container, &chosen, config);
                token.mount(&mut injection, place, container)?;
            }
        }
    }
    let with = |wanted: IdentityFate| {
        let fates = fates.iter().zip(identities);
        fates.filter(move |(fate, _)| **fate == wanted).map(|(_, identity)| *identity)
    };
    let used: Vec<&Binding> = with(IdentityFate::Used).map(|identity| identity.binding).collect();
    // The controller accepts only bindings that agree; the shortest life is the safe answer all the same.
    let Some(seconds) = used.iter().map(|binding| binding.token_expiration_seconds).min() else { return Ok(None) };
    token.add(&mut injection, seconds, config)?;
    injection.warnings.extend(with(IdentityFate::OfAnotherTenant).map(of_another_tenant));
    injection
        .warnings
        .extend(with(IdentityFate::Used).filter(|identity| identity.client_id.is_empty()).map(without_client_id));
    let overridden = identities.iter().zip(&fates).find(|(identity, fate)| {
        identity.binding.origin == Origin::ServiceAccount
            && !identity.client_id.is_empty()
            && matches!(fate, IdentityFate::Superseded | IdentityFate::OfAnotherTenant)
    });
    let by = injected_by::value(&used, overridden.map(|(identity, _)| identity.binding));
    injection.operations.extend(injected_by::set(pod, by));
    Ok(Some(injection))
}

/// The identities of a container, the senior first.
fn choose<'b>(container: &str, identities: &[Identity<'b>], fates: &mut [IdentityFate]) -> Vec<Identity<'b>> {
    let mut chosen: Vec<Identity<'b>> = Vec::with_capacity(identities.len());
    for (identity, fate) in identities.iter().zip(fates) {
        if !identity.binding.chooses(container) {
            continue;
        }
        let here = chosen.iter().map(|senior| senior.beside(*identity)).min().unwrap_or(IdentityFate::Used);
        if here == IdentityFate::Used {
            chosen.push(*identity);
        }
        *fate = here.max(*fate);
    }
    chosen
}

fn inject_env(
    injection: &mut Injection,
    place: [&str; 3],
    container: &Container<'_>,
    identities: &[Identity<'_>],
    config: &Config,
) {
    let [spec, list, index] = place;
    let existing = container.env.as_deref();
    let wanted = wanted_env(identities, config);
    let mut missing = Vec::with_capacity(wanted.len());
    for (name, value) in wanted {
        // Of a repeated name the last one counts.
        match existing.unwrap_or_default().iter().rfind(|variable| &*variable.name == name) {
            None => missing.push(Content::variable(name, value)),
            Some(kept) => injection.warnings.extend(difference(&container.name, kept, value)),
        }
    }
    injection.append(&[spec, list, index, "env"], existing.is_some(), missing);
}

/// The variables of a container, in order. An empty value is left out: it would hide one that comes from `envFrom`.
fn wanted_env<'a>(identities: &[Identity<'a>], config: &'a Config) -> Vec<(&'a str, &'a str)> {
    let mut wanted: Vec<(&str, &str)> = Vec::with_capacity(identities.len() + 3);
    for identity in identities {
        let name = identity.binding.client_id_env.as_ref();
        // Two bindings of one identity write one variable.
        if !wanted.iter().any(|(taken, _)| *taken == name) {
            wanted.push((name, identity.client_id));
        }
    }
    if let Some(senior) = identities.first() {
        wanted.extend([
            (ENV_TENANT_ID, senior.tenant_id),
            (ENV_TOKEN_FILE, TOKEN_FILE),
            (ENV_AUTHORITY_HOST, &config.authority_host),
        ]);
    }
    wanted.retain(|(_, value)| !value.is_empty());
    wanted
}

fn of_another_tenant(identity: Identity<'_>) -> String {
    format!(
        "{} is for Entra tenant {:?}, an older binding of the pod for another, and a container has one tenant: it was not \
         injected",
        named(identity.binding),
        shortened(identity.tenant_id)
    )
}

/// Only annotations can lack one: a binding is resolved when it is known.
fn without_client_id(identity: Identity<'_>) -> String {
    format!(
        "{} has no annotation {CLIENT_ID_ANNOTATION}: {ENV_CLIENT_ID} is not injected; annotate it, or create a \
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

/// A warning if a variable that is kept has not the value that would have been injected.
fn difference(container: &str, kept: &EnvVar<'_>, wanted: &str) -> Option<String> {
    let name = &*kept.name;
    let value = kept.value.as_deref().unwrap_or_default();
    if kept.value_from.is_none() && value == wanted {
        return None;
    }
    let wanted = shortened(wanted);
    Some(if kept.value_from.is_some() {
        format!("container {container:?}: {name} is kept as its valueFrom says, not set to {wanted:?}")
    } else {
        format!("container {container:?}: {name} is kept as {:?}, not set to {wanted:?}", shortened(value))
    })
}

/// Keeps the first warnings. Client IDs come first: a wrong one is the likeliest surprise.
pub(super) fn bound_warnings(warnings: &mut Vec<String>) {
    warnings.sort_by_key(|warning| !warning.contains(ENV_CLIENT_ID));
    if warnings.len() > MAX_WARNINGS {
        let more = warnings.len() - MAX_WARNINGS;
        warnings.truncate(MAX_WARNINGS);
        warnings.push(format!("and {more} more"));
    }
}
