//! Properties of a pod (`object`) and of a binding (`params`) that the policies evaluate, as CEL expressions.
//!
//! Each one corresponds to a function of [`crate::admission`]; a test sends the same pods through both.

use serde::Serialize;
use serde_json::Value;

use super::literals::{escaped, literal, literals};
use crate::admission::{Config, VOLUME_PREFIX};
use ensign_api::conditions::ConditionType;
use ensign_api::injected_env::{INJECTED_ENV, InjectedVariable, reserved_names};
use ensign_api::keys::{
    IDENTITY_GATE, INJECT_LABEL, INJECTED_BY_ANNOTATION, MIRROR_ANNOTATION, TOKEN_MOUNT_PATH, TOKEN_PATH, TOKEN_VOLUME,
};
use ensign_api::selector::LabelOperator;
use ensign_api::{IdentityKind, Injection, InjectionMode, StartPolicy};

/// The pod's labels.
const LABELS: &str = "object.metadata.?labels.orValue({})";
/// Lists of containers that are injected, in the order of the pod's spec.
pub(super) const CONTAINER_LISTS: [&str; 2] = ["initContainers", "containers"];
/// Maximum length of a condition's message in a denial; the API server drops messages of more than 5 KiB.
const MAX_QUOTED: usize = 2_048;

/// A named expression, which others refer to as `variables.NAME`.
pub(super) type Variable = (&'static str, String);

/// The service account of the pod.
pub(super) fn service_account() -> String {
    let account = "object.spec.?serviceAccountName.orValue('')";
    format!("({account} == '' ? 'default' : {account})")
}

/// Whether bindings apply to the pod: it did not opt out, and it does not mirror a static pod.
pub(super) fn is_not_exempt() -> String {
    let (mirror, label) = (literal(MIRROR_ANNOTATION), literal(INJECT_LABEL));
    format!("!({mirror} in object.metadata.?annotations.orValue({{}})) && {LABELS}[?{label}].orValue('') != 'false'")
}

/// Whether the binding is for the pod's service account.
pub(super) fn for_service_account() -> String {
    format!("params.spec.serviceAccountName == {}", service_account())
}

/// Whether the binding injects pods, and selects this one.
pub(super) fn covers() -> String {
    format!("{} && ({})", injects_pods(), selects_pod())
}

/// Whether the binding injects pods.
pub(super) fn injects_pods() -> String {
    let injection = Injection::default();
    let (default, pods) = (name_of(injection.mode), name_of(InjectionMode::Pods));
    format!("params.spec.?injection.?mode.orValue({default}) == {pods}")
}

/// Whether the binding's `podSelector` selects the pod. CEL has no function for label selectors.
fn selects_pod() -> String {
    let selector = "params.spec.?podSelector";
    let [within, not_within, exists, missing] =
        [LabelOperator::In, LabelOperator::NotIn, LabelOperator::Exists, LabelOperator::DoesNotExist].map(name_of);
    let listed = format!("e.key in {LABELS} && {LABELS}[e.key] in e.?values.orValue([])");
    format!(
        "{selector}.?matchLabels.orValue({{}}).all(k, v, k in {LABELS} && {LABELS}[k] == v) && \
         {selector}.?matchExpressions.orValue([]).all(e, \
         e.operator == {within} ? ({listed}) : \
         e.operator == {not_within} ? !({listed}) : \
         e.operator == {exists} ? e.key in {LABELS} : \
         e.operator == {missing} && !(e.key in {LABELS}))"
    )
}

/// Whether the pods of the binding can be injected: the name of a variant of [`crate::admission::BindingReadiness`].
pub(super) fn readiness() -> String {
    let accepted = |status| condition_is(ConditionType::Accepted, status);
    let known = |field| format!("params.status.?{field}.orValue('') != ''");
    format!(
        "has(params.metadata.deletionTimestamp) ? 'Deleting' : \
         {} ? ({} && {} ? 'Resolved' : 'Unresolved') : \
         {} ? 'NotAccepted' : 'Pending'",
        accepted("True"),
        known("clientID"),
        known("tenantID"),
        accepted("False"),
    )
}

fn condition_is(condition: ConditionType, status: &str) -> String {
    let (condition, status) = (literal(condition.as_str()), literal(status));
    format!("params.?status.?conditions.orValue([]).exists(c, c.type == {condition} && c.status == {status})")
}

/// A field of a condition of the binding, on one line and of limited length; empty if the condition is `True`.
pub(super) fn quoted(condition: ConditionType, field: &str) -> String {
    let (condition, spaced) = (literal(condition.as_str()), r"replace('\n', ' ').replace('\r', ' ')");
    format!(
        "params.?status.?conditions.orValue([]).filter(c, c.type == {condition} && c.status != 'True')\
         .map(c, string(c.{field}).{spaced})\
         .map(text, text.size() > {MAX_QUOTED} ? text.substring(0, {MAX_QUOTED}) : text).join('')"
    )
}

/// Name of an injected variable.
pub(super) fn variable_name(variable: &InjectedVariable) -> String {
    let key = literal(variable.key);
    if variable.renamable { format!("string(params.spec.?injection.?clientIDEnv.orValue({key}))") } else { key }
}

/// Names of the variables that the binding injects, separated by commas.
pub(super) fn variable_names() -> String {
    INJECTED_ENV.iter().map(variable_name).collect::<Vec<_>>().join(", ")
}

/// The entry of the binding in an injected pod's annotation.
pub(super) fn entry() -> String {
    format!("string(params.metadata.name) + '=' + {}", identity())
}

/// Kind and name of what the binding references.
pub(super) fn identity() -> String {
    // The kind's name is derived from the type, so that it can't differ.
    let kind = name_of(IdentityKind::default());
    format!("string(params.spec.identityRef.?kind.orValue({kind})) + '/' + string(params.spec.identityRef.name)")
}

/// The entries of the pod's annotation, which anyone may have written.
pub(super) fn entries() -> String {
    format!("object.metadata.?annotations[?{}].orValue('').split(',')", literal(INJECTED_BY_ANNOTATION))
}

/// Whether a pod of the binding waits for its identity: [`StartPolicy`] requires it, and the credential is not ready.
pub(super) fn waits_for_identity() -> String {
    let injection = Injection::default();
    let (default, wait) = (name_of(injection.start_policy), name_of(StartPolicy::WaitForIdentity));
    format!(
        "params.spec.?injection.?startPolicy.orValue({default}) == {wait} && !{}",
        condition_is(ConditionType::CredentialReady, "True")
    )
}

/// Whether the pod has Ensign's scheduling gate.
pub(super) fn has_gate() -> String {
    format!("object.spec.?schedulingGates.orValue([]).exists(g, g.name == {})", literal(IDENTITY_GATE))
}

/// Names of the token volumes that the pod has: those of Ensign and, in a copy of a pod that it injected, of
/// azure-workload-identity.
pub(super) fn token_volumes(config: &Config) -> Variable {
    let is_token = format!(
        "v.projected.sources.all(s, s.?serviceAccountToken.?path.orValue('') == {} && \
         s.?serviceAccountToken.?audience.orValue('') == {})",
        literal(TOKEN_PATH),
        literal(&config.audience),
    );
    let expression = format!(
        "object.spec.?volumes.orValue([]).filter(v, {} && \
         v.?projected.?sources.orValue([]).size() == 1 && {is_token}).map(v, string(v.name))",
        is_token_name("v.name"),
    );
    ("token_volumes", expression)
}

fn is_token_name(name: &str) -> String {
    format!("({name} == {} || {name}.startsWith({}))", literal(TOKEN_VOLUME), literal(VOLUME_PREFIX))
}

/// Name of the token volume to mount; needs `token_volumes`.
pub(super) fn volume() -> Variable {
    let name = literal(TOKEN_VOLUME);
    ("volume", format!("variables.token_volumes.size() > 0 ? variables.token_volumes[0] : {name}"))
}

/// Whether another volume has the name of the token volume; needs `token_volumes`.
pub(super) fn is_name_taken() -> String {
    format!(
        "variables.token_volumes.size() == 0 && object.spec.?volumes.orValue([]).exists(v, v.name == {})",
        literal(TOKEN_VOLUME)
    )
}

/// Names of the containers that the binding selects.
pub(super) fn selected() -> Variable {
    ("selected", format!("({}).map(c, string(c.name)).filter(name, {})", containers(), selects_container("name")))
}

/// Whether the binding selects the container of this name.
pub(super) fn selects_container(name: &str) -> String {
    let filter = "params.spec.?injection.?containers";
    format!(
        "({filter}.?include.orValue([]).size() == 0 || {name} in {filter}.?include.orValue([])) && \
         !({name} in {filter}.?exclude.orValue([]))"
    )
}

/// Every container that can be injected.
pub(super) fn containers() -> String {
    CONTAINER_LISTS.map(|list| format!("object.spec.?{list}.orValue([])")).join(" + ")
}

/// Whether a path is at or below the token's mount path, where a mount would hide the token or fail. CEL can't resolve
/// `..`: a path that contains it counts if the components of the mount path occur in it in order.
pub(super) fn is_within_token_path(path: &str) -> String {
    let names: Vec<String> = TOKEN_MOUNT_PATH.split('/').filter(|name| !name.is_empty()).map(escaped).collect();
    let (separator, any_path) = ("/(\\.?/)*", "/(.*/)?");
    let plain = format!("^(\\.?/)*{}(/|$)", names.join(separator));
    let dotted = format!("(^|/){}(/|$)", names.join(any_path));
    format!("({path}.contains('..') ? {path}.matches({}) : {path}.matches({}))", literal(&dotted), literal(&plain))
}

/// Whether a mount is that of the token; needs `token_volumes` and `volume`.
pub(super) fn is_token_mount(mount: &str) -> String {
    let is_token = format!("({mount}.name == variables.volume || {mount}.name in variables.token_volumes)");
    format!("{is_token} && {}", mounts_as_token(mount))
}

/// Whether a mount of the token volume has the expected path and options.
pub(super) fn mounts_as_token(mount: &str) -> String {
    format!(
        "{mount}.mountPath.matches({}) && {mount}.?readOnly.orValue(false) && \
         {mount}.?subPath.orValue('') == '' && {mount}.?subPathExpr.orValue('') == ''",
        literal(&format!("^{}/*$", escaped(TOKEN_MOUNT_PATH))),
    )
}

/// Whether the pod is injected, judging by its contents and not by its annotation; needs `token_volumes` and `volume`.
pub(super) fn injected() -> Variable {
    let expression = format!(
        "variables.token_volumes.size() > 0 && ({}).exists(c, c.?volumeMounts.orValue([]).exists(m, {}) && \
         {}.all(name, c.?env.orValue([]).exists(e, e.name == name)))",
        containers(),
        is_token_mount("m"),
        literals(&reserved_names().collect::<Vec<_>>()),
    );
    ("injected", expression)
}

/// The name of a value of an enumeration, as a literal. If it had none, the result would be no valid expression, so that the
/// API server would reject the policy.
fn name_of(value: impl Serialize) -> String {
    let value = serde_json::to_value(value).ok();
    value.as_ref().and_then(Value::as_str).map_or_else(|| "<not an enumeration>".to_owned(), literal)
}
