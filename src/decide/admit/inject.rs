//! The patch that gives a pod its identities.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation};
use serde_json::{Value, json};

use super::Config;
use super::binding::{Binding, Standing};
use super::pod::{Container, EnvVar, Pod, TokenSource, Volume, VolumeMount};
use super::refusal::{self, Refusal};
use crate::api::keys::{
    ENV_AUTHORITY_HOST, ENV_CLIENT_ID, ENV_TENANT_ID, ENV_TOKEN_FILE, INJECTED_BY_ANNOTATION, TOKEN_FILE,
    TOKEN_MOUNT_PATH, TOKEN_PATH, TOKEN_VOLUME,
};
use crate::mutants::{self, Mutant};

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
            Standing::Resolved { client_id, tenant_id } => Some(Self { binding, client_id, tenant_id }),
            _ => None,
        }
    }
}

/// A patch in the making.
#[derive(Default)]
pub(super) struct Injection {
    pub(super) operations: Vec<PatchOperation>,
    pub(super) warnings: Vec<String>,
}

impl Injection {
    fn add(&mut self, path: &[&str], value: Value) {
        self.operations
            .push(PatchOperation::Add(AddOperation { path: PointerBuf::from_tokens(path.iter().copied()), value }));
    }

    /// Appends to a list, or creates it where it is absent.
    fn append(&mut self, list: &[&str], exists: bool, items: Vec<Value>) {
        if items.is_empty() {
            return;
        }
        if !exists {
            return self.add(list, Value::Array(items));
        }
        let end: Vec<&str> = list.iter().copied().chain(["-"]).collect();
        for item in items {
            self.add(&end, item);
        }
    }
}

/// Injects the identities, the senior first; `None` if they choose none of the pod's containers.
pub(super) fn inject(
    pod: &Pod<'_>,
    identities: &[Identity<'_>],
    config: &Config,
) -> Result<Option<Injection>, Refusal> {
    let Some(spec) = &pod.spec else { return Ok(None) };
    let mut injection = Injection::default();
    let mut used = vec![false; identities.len()];
    for (list, containers) in [("initContainers", &spec.init_containers), ("containers", &spec.containers)] {
        for (index, container) in containers.iter().flatten().enumerate() {
            let mut chosen = Vec::with_capacity(identities.len());
            for (identity, used) in identities.iter().zip(&mut used) {
                if identity.binding.chooses(&container.name) {
                    *used = true;
                    chosen.push(*identity);
                }
            }
            if !chosen.is_empty() {
                let place = ["spec", list, &index.to_string()];
                inject_container(&mut injection, place, container, &chosen, config)?;
            }
        }
    }
    let used: Vec<&Binding> =
        identities.iter().zip(used).filter(|(_, used)| *used).map(|(identity, _)| identity.binding).collect();
    if used.is_empty() {
        return Ok(None);
    }
    add_volume(&mut injection, spec.volumes.as_deref(), &used, config)?;
    add_annotation(&mut injection, pod, &used);
    Ok(Some(injection))
}

fn inject_container(
    injection: &mut Injection,
    place: [&str; 3],
    container: &Container<'_>,
    identities: &[Identity<'_>],
    config: &Config,
) -> Result<(), Refusal> {
    let [spec, list, index] = place;
    let existing = container.env.as_deref();
    let wanted = wanted_env(identities, config);
    let mut missing = Vec::with_capacity(wanted.len());
    for (name, value) in wanted {
        // Of a repeated name the last one counts.
        match existing.unwrap_or_default().iter().rfind(|variable| &*variable.name == name) {
            Some(_) if mutants::active(Mutant::InjectedTwice) => missing.push(json!({"name": name, "value": value})),
            None => missing.push(json!({"name": name, "value": value})),
            Some(kept) => injection.warnings.extend(difference(&container.name, kept, value)),
        }
    }
    injection.append(&[spec, list, index, "env"], existing.is_some(), missing);

    let mounts = container.volume_mounts.as_deref();
    let in_the_way = mounts.unwrap_or_default().iter().find(|mount| is_within_token_path(&mount.mount_path));
    match in_the_way {
        None => {
            let mount = json!({"name": TOKEN_VOLUME, "mountPath": TOKEN_MOUNT_PATH, "readOnly": true});
            injection.append(&[spec, list, index, "volumeMounts"], mounts.is_some(), vec![mount]);
            Ok(())
        }
        Some(mount) if is_token_mount(mount) => Ok(()),
        Some(mount) => Err(refusal::mount_clash(&container.name, &mount.name, &mount.mount_path)),
    }
}

/// The variables of a container, in order. Where two identities claim one name, the senior has it.
fn wanted_env<'a>(identities: &[Identity<'a>], config: &'a Config) -> Vec<(&'a str, &'a str)> {
    let mut wanted: Vec<(&str, &str)> = Vec::with_capacity(identities.len() + 3);
    for identity in identities {
        let name = identity.binding.client_id_env.as_str();
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
    wanted
}

/// A warning if a variable that is kept has not the value that would have been injected.
fn difference(container: &str, kept: &EnvVar<'_>, wanted: &str) -> Option<String> {
    let name = &*kept.name;
    if kept.value_from.is_some() {
        return Some(format!("container {container:?}: {name} is kept as its valueFrom says, not set to {wanted:?}"));
    }
    let value = kept.value.as_deref().unwrap_or_default();
    (value != wanted).then(|| {
        let end = value.char_indices().nth(MAX_VALUE_CHARACTERS).map_or(value.len(), |(end, _)| end);
        format!("container {container:?}: {name} is kept as {:?}, not set to {wanted:?}", &value[..end])
    })
}

/// Whether a path is the token's mount path or below it, where a mount would hide the token or fail.
fn is_within_token_path(path: &str) -> bool {
    let mut components = path.split('/').filter(|component| !matches!(*component, "" | "."));
    TOKEN_MOUNT_PATH
        .split('/')
        .filter(|component| !component.is_empty())
        .all(|wanted| components.next() == Some(wanted))
}

fn is_token_mount(mount: &VolumeMount<'_>) -> bool {
    let whole = |path: &Option<super::Text<'_>>| path.as_deref().is_none_or(str::is_empty);
    &*mount.name == TOKEN_VOLUME
        && mount.mount_path.trim_end_matches('/') == TOKEN_MOUNT_PATH
        && mount.read_only == Some(true)
        && whole(&mount.sub_path)
        && whole(&mount.sub_path_expr)
}

fn add_volume(
    injection: &mut Injection,
    volumes: Option<&[Volume<'_>]>,
    bindings: &[&Binding],
    config: &Config,
) -> Result<(), Refusal> {
    // The controller accepts only bindings that agree; the shortest life is the safe answer all the same.
    let seconds = bindings.iter().map(|binding| binding.token_expiration_seconds).min().unwrap_or_default();
    if let Some(volume) = volumes.unwrap_or_default().iter().find(|volume| &*volume.name == TOKEN_VOLUME) {
        let token = token_source(volume, config).ok_or_else(refusal::volume_clash)?;
        if let Some(kept) = token.expiration_seconds
            && kept != i64::from(seconds)
        {
            injection.warnings.push(format!(
                "volume {TOKEN_VOLUME:?}: a token lifetime of {kept} seconds is kept, not set to {seconds}"
            ));
        }
    } else {
        let volume = json!({"name": TOKEN_VOLUME, "projected": {"sources": [{"serviceAccountToken": {
            "path": TOKEN_PATH, "audience": config.audience, "expirationSeconds": seconds,
        }}]}});
        injection.append(&["spec", "volumes"], volumes.is_some(), vec![volume]);
    }
    Ok(())
}

/// The token of a volume, if it is the token volume: copies of injected pods carry it already.
fn token_source<'v, 'a>(volume: &'v Volume<'a>, config: &Config) -> Option<&'v TokenSource<'a>> {
    let [source] = volume.projected.as_ref()?.sources.as_deref()? else { return None };
    source.service_account_token.as_ref().filter(|token| {
        token.path.as_deref() == Some(TOKEN_PATH) && token.audience.as_deref() == Some(&config.audience)
    })
}

fn add_annotation(injection: &mut Injection, pod: &Pod<'_>, bindings: &[&Binding]) {
    let by: Vec<String> = bindings.iter().map(|binding| format!("{}={}", binding.name, binding.identity)).collect();
    let by = by.join(",");
    match (pod.annotations(), pod.metadata.is_some()) {
        (Some(annotations), _) => {
            if annotations.injected_by.as_deref() != Some(&by) {
                injection.add(&["metadata", "annotations", INJECTED_BY_ANNOTATION], Value::String(by));
            }
        }
        (None, true) => injection.add(&["metadata", "annotations"], json!({INJECTED_BY_ANNOTATION: by})),
        (None, false) => injection.add(&["metadata"], json!({"annotations": {INJECTED_BY_ANNOTATION: by}})),
    }
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
