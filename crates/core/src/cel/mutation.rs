//! What a `MutatingAdmissionPolicy` does to a pod for one binding: the patch of [`crate::admission`], in CEL.
//!
//! The API server invokes the policy once for each binding of the namespace, in no certain order, each on what the one
//! before has left. So every step adds only what is not there. What costs is in variables, each of which has a budget of
//! its own; variables may not build patches, so the one mutation puts them together.

use super::Config;
use super::already_injected;
use super::literals::literal;
use super::predicates::{self, CONTAINER_LISTS, Variable};
use ensign_api::Injection;
use ensign_api::keys::{
    ENV_AUTHORITY_HOST, ENV_TENANT_ID, ENV_TOKEN_FILE, GATED_LABEL, IDENTITY_GATE, INJECTED_BY_ANNOTATION, TOKEN_FILE,
    TOKEN_MOUNT_PATH, TOKEN_PATH,
};

const CHOSEN: &str = "string(c.name) in variables.chosen";

/// The bindings that inject, and have not: each condition is a name and an expression.
pub(super) fn conditions(config: &Config) -> Vec<(&'static str, String)> {
    vec![
        ("has-a-say", predicates::has_a_say()),
        ("covers", format!("{} && {}", predicates::of_service_account(), predicates::covers())),
        ("serves", format!("({}) == 'Resolved'", predicates::standing())),
        ("is-not-done", format!("!({} && {})", already_injected::has_all(config), is_held_if_need_be(config))),
    ]
}

/// What the mutation is put together from.
pub(super) fn variables(config: &Config) -> Vec<Variable> {
    vec![
        predicates::brought(config),
        predicates::volume(),
        predicates::chosen(),
        ("wanted", wanted(config)),
        ("env", env()),
        ("mounts", mounts()),
        ("lists", lists()),
        ("claims", claims()),
        ("claim", predicates::claim()),
        ("held", held(config)),
    ]
}

/// The names and values of a container's variables, in order.
fn wanted(config: &Config) -> String {
    format!(
        "[[{}, string(params.status.clientID)], [{}, string(params.status.tenantID)], [{}, {}], [{}, {}]]",
        predicates::client_id_env(),
        literal(ENV_TENANT_ID),
        literal(ENV_TOKEN_FILE),
        literal(TOKEN_FILE),
        literal(ENV_AUTHORITY_HOST),
        literal(&config.authority_host),
    )
}

/// Path of the list, name and value of each variable that is missing.
fn env() -> String {
    each_container(|list| {
        format!(
            "{CHOSEN}, variables.wanted.filter(w, !c.?env.orValue([]).exists(e, e.name == w[0]))\
             .map(w, ['/spec/{list}/' + string(i) + '/env', w[0], w[1]])"
        )
    })
}

/// Path of each list of mounts that lacks the token.
fn mounts() -> String {
    let within = predicates::is_within_token_path("m.mountPath");
    each_container(|list| {
        format!(
            "{CHOSEN} && !c.?volumeMounts.orValue([]).exists(m, {within}), ['/spec/{list}/' + string(i) + '/volumeMounts']"
        )
    })
}

/// Path of each list that has to be made first.
fn lists() -> String {
    each_container(|list| {
        format!(
            "{CHOSEN}, (c.?env.orValue([]).size() == 0 ? ['/spec/{list}/' + string(i) + '/env'] : []) + \
             (c.?volumeMounts.orValue([]).size() == 0 ? ['/spec/{list}/' + string(i) + '/volumeMounts'] : [])"
        )
    })
}

/// A list for each container `c` at place `i`, put together; `filter_and_list` is the rest of a comprehension.
fn each_container(filter_and_list: impl Fn(&str) -> String) -> String {
    CONTAINER_LISTS
        .map(|list| format!("object.spec.?{list}.orValue([]).transformList(i, c, {}).flatten()", filter_and_list(list)))
        .join(" + ")
}

/// What the pod's annotation says already. Before the token volume is there no binding has injected the pod, and what it
/// says is somebody else's word.
fn claims() -> String {
    format!("variables.brought.size() == 0 ? [] : {}.filter(claim, claim != '')", predicates::claimed())
}

fn held(config: &Config) -> String {
    if !config.hold {
        return "false".to_owned();
    }
    format!("object.spec.?nodeName.orValue('') == '' && ({} || ({}))", predicates::is_gated(), predicates::waits())
}

/// Whether gate and label are as [`hold`] would leave them.
fn is_held_if_need_be(config: &Config) -> String {
    let label = literal(GATED_LABEL);
    let is_labelled = format!("object.metadata.?labels[?{label}].orValue('') == 'true'");
    format!("({} ? {} && {is_labelled} : true)", held(config), predicates::is_gated())
}

/// The mutation: nothing where the binding chooses no container of the pod.
pub(super) fn mutation(config: &Config) -> String {
    let parts = [annotation(), token_volume(config), containers(), hold()];
    format!("variables.chosen.size() == 0 ? [] : {}", parts.map(|part| format!("({part})")).join(" + "))
}

fn annotation() -> String {
    let value = "(variables.claims + [variables.claim]).join(',')";
    let key = literal(INJECTED_BY_ANNOTATION);
    format!(
        "variables.claim in variables.claims ? [] : {} + [{}]",
        made("object.metadata.?annotations.orValue({})", "/metadata/annotations", "{}"),
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
        "variables.brought.size() > 0 || {} ? [] : {} + [{}]",
        predicates::is_taken(),
        made("object.spec.?volumes.orValue([])", "/spec/volumes", "[]"),
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

fn hold() -> String {
    let label = literal(GATED_LABEL);
    let gate = format!("Object.spec.schedulingGates{{name: {}}}", literal(IDENTITY_GATE));
    let labels = "object.metadata.?labels.orValue({})";
    format!(
        "!variables.held ? [] : ({} ? [] : {} + [{}]) + ({labels}[?{label}].orValue('') == 'true' ? [] : {} + [{}])",
        predicates::is_gated(),
        made("object.spec.?schedulingGates.orValue([])", "/spec/schedulingGates", "[]"),
        added("'/spec/schedulingGates/-'", &gate),
        made(labels, "/metadata/labels", "{}"),
        added(&format!("'/metadata/labels/' + jsonpatch.escapeKey({label})"), "'true'"),
    )
}

/// Makes a list or map where it is absent.
fn made(list: &str, path: &str, empty: &str) -> String {
    format!("({list}.size() == 0 ? [{}] : [])", added(&literal(path), empty))
}

fn added(path: &str, value: &str) -> String {
    format!("JSONPatch{{op: 'add', path: {path}, value: {value}}}")
}
