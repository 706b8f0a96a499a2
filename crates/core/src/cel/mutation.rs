//! What a `MutatingAdmissionPolicy` does to a pod for one binding: the patch of [`crate::admission`], in CEL.
//!
//! The API server invokes the policy once for each binding of the namespace, in no guaranteed order, each time on the
//! result of the previous invocation. So every step adds only what is missing. Expensive expressions are variables, each
//! of which has its own cost budget. Variables can't build patches, so the single mutation assembles them.

use super::already_injected;
use super::literals::literal;
use super::predicates::{self, CONTAINER_LISTS, Variable};
use crate::admission::Config;
use ensign_api::Injection;
use ensign_api::injected_env::{INJECTED_ENV, InjectedValue};
use ensign_api::keys::{GATED_LABEL, IDENTITY_GATE, INJECTED_BY_ANNOTATION, TOKEN_FILE, TOKEN_MOUNT_PATH, TOKEN_PATH};

const IS_SELECTED: &str = "string(c.name) in variables.selected";

/// Match conditions, as names and expressions: the binding is ready, covers the pod, and has not injected it yet.
pub(super) fn conditions(config: &Config) -> Vec<(&'static str, String)> {
    vec![
        ("not-exempt", predicates::is_not_exempt()),
        ("covers-pod", format!("{} && {}", predicates::for_service_account(), predicates::covers())),
        ("is-ready", format!("({}) == 'Resolved'", predicates::readiness())),
        (
            "not-injected-yet",
            format!("!({} && {})", already_injected::is_injected(config), is_gated_if_required(config)),
        ),
    ]
}

/// Variables from which the mutation is assembled.
pub(super) fn variables(config: &Config) -> Vec<Variable> {
    vec![
        predicates::token_volumes(config),
        predicates::volume(),
        predicates::selected(),
        ("wanted", wanted(config)),
        ("env", env()),
        ("mounts", mounts()),
        ("lists", lists()),
        ("entries", entries()),
        ("entry", predicates::entry()),
        ("gated", gated(config)),
    ]
}

/// The names and values of a container's variables, in order.
fn wanted(config: &Config) -> String {
    let pairs: Vec<String> = INJECTED_ENV
        .iter()
        .map(|variable| format!("[{}, {}]", predicates::variable_name(variable), value(variable.value, config)))
        .collect();
    format!("[{}]", pairs.join(", "))
}

/// The value of an injected variable.
fn value(value: InjectedValue, config: &Config) -> String {
    match value {
        InjectedValue::ClientId => "string(params.status.clientID)".to_owned(),
        InjectedValue::TenantId => "string(params.status.tenantID)".to_owned(),
        InjectedValue::TokenFile => literal(TOKEN_FILE),
        InjectedValue::AuthorityHost => literal(&config.authority_host),
    }
}

/// For each missing variable: the path of the list, its name and its value.
fn env() -> String {
    each_container(|list| {
        format!(
            "{IS_SELECTED}, variables.wanted.filter(w, !c.?env.orValue([]).exists(e, e.name == w[0]))\
             .map(w, ['/spec/{list}/' + string(i) + '/env', w[0], w[1]])"
        )
    })
}

/// Path of each list of mounts without the token.
fn mounts() -> String {
    let within = predicates::is_within_token_path("m.mountPath");
    each_container(|list| {
        format!(
            "{IS_SELECTED} && !c.?volumeMounts.orValue([]).exists(m, {within}), ['/spec/{list}/' + string(i) + '/volumeMounts']"
        )
    })
}

/// Path of each list that has to be created first.
fn lists() -> String {
    each_container(|list| {
        format!(
            "{IS_SELECTED}, (c.?env.orValue([]).size() == 0 ? ['/spec/{list}/' + string(i) + '/env'] : []) + \
             (c.?volumeMounts.orValue([]).size() == 0 ? ['/spec/{list}/' + string(i) + '/volumeMounts'] : [])"
        )
    })
}

/// Concatenates a list for each container `c` at index `i`; `filter_and_list` is the rest of a comprehension.
fn each_container(filter_and_list: impl Fn(&str) -> String) -> String {
    CONTAINER_LISTS
        .map(|list| format!("object.spec.?{list}.orValue([]).transformList(i, c, {}).flatten()", filter_and_list(list)))
        .join(" + ")
}

/// The existing entries of the pod's annotation. Without the token volume no binding has injected the pod, so someone else
/// wrote them.
fn entries() -> String {
    format!("variables.token_volumes.size() == 0 ? [] : {}.filter(entry, entry != '')", predicates::entries())
}

/// Whether the pod has to be gated.
fn gated(config: &Config) -> String {
    if !config.gate_pods {
        return "false".to_owned();
    }
    let (has_gate, waits) = (predicates::has_gate(), predicates::waits_for_identity());
    format!("object.spec.?nodeName.orValue('') == '' && ({has_gate} || ({waits}))")
}

/// Whether the pod has gate and label if [`gate`] would add them.
fn is_gated_if_required(config: &Config) -> String {
    let label = literal(GATED_LABEL);
    let is_labelled = format!("object.metadata.?labels[?{label}].orValue('') == 'true'");
    format!("({} ? {} && {is_labelled} : true)", gated(config), predicates::has_gate())
}

/// The mutation; empty if the binding selects no container of the pod.
pub(super) fn mutation(config: &Config) -> String {
    let parts = [annotation(), token_volume(config), containers(), gate()];
    format!("variables.selected.size() == 0 ? [] : {}", parts.map(|part| format!("({part})")).join(" + "))
}

fn annotation() -> String {
    let value = "(variables.entries + [variables.entry]).join(',')";
    let key = literal(INJECTED_BY_ANNOTATION);
    format!(
        "variables.entry in variables.entries ? [] : {} + [{}]",
        created("object.metadata.?annotations.orValue({})", "/metadata/annotations", "{}"),
        added(&format!("'/metadata/annotations/' + jsonpatch.escapeKey({key})"), value),
    )
}

fn token_volume(config: &Config) -> String {
    let injection = Injection::default();
    let token = format!(
        "Object.spec.volumes.projected.sources.serviceAccountToken{{path: {}, audience: {}, \
         expirationSeconds: int(params.spec.?injection.?tokenExpirationSeconds.orValue({}))}}",
        literal(TOKEN_PATH),
        literal(&config.audience),
        injection.token_expiration_seconds,
    );
    let volume = format!(
        "Object.spec.volumes{{name: variables.volume, projected: Object.spec.volumes.projected{{\
         sources: [Object.spec.volumes.projected.sources{{serviceAccountToken: {token}}}]}}}}"
    );
    format!(
        "variables.token_volumes.size() > 0 || {} ? [] : {} + [{}]",
        predicates::is_name_taken(),
        created("object.spec.?volumes.orValue([])", "/spec/volumes", "[]"),
        added("'/spec/volumes/-'", &volume),
    )
}

fn containers() -> String {
    let mount = format!(
        "Object.spec.containers.volumeMounts{{name: variables.volume, mountPath: {}, readOnly: true}}",
        literal(TOKEN_MOUNT_PATH)
    );
    format!(
        "variables.lists.map(list, {}) + variables.env.map(e, {}) + variables.mounts.map(list, {})",
        added("list", "[]"),
        added("e[0] + '/-'", "Object.spec.containers.env{name: e[1], value: e[2]}"),
        added("list + '/-'", &mount),
    )
}

fn gate() -> String {
    let label = literal(GATED_LABEL);
    let gate = format!("Object.spec.schedulingGates{{name: {}}}", literal(IDENTITY_GATE));
    let labels = "object.metadata.?labels.orValue({})";
    format!(
        "!variables.gated ? [] : ({} ? [] : {} + [{}]) + ({labels}[?{label}].orValue('') == 'true' ? [] : {} + [{}])",
        predicates::has_gate(),
        created("object.spec.?schedulingGates.orValue([])", "/spec/schedulingGates", "[]"),
        added("'/spec/schedulingGates/-'", &gate),
        created(labels, "/metadata/labels", "{}"),
        added(&format!("'/metadata/labels/' + jsonpatch.escapeKey({label})"), "'true'"),
    )
}

/// Creates a list or map if it does not exist.
fn created(list: &str, path: &str, empty: &str) -> String {
    format!("({list}.size() == 0 ? [{}] : [])", added(&literal(path), empty))
}

fn added(path: &str, value: &str) -> String {
    format!("JSONPatch{{op: 'add', path: {path}, value: {value}}}")
}
