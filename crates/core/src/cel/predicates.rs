//! What the policies ask of a pod (`object`) and of a binding (`params`), as expressions.
//!
//! Each one says what a function of [`crate::admission`] says; the test of equivalence holds them together.

use serde::Serialize;

use super::Config;
use super::literals::{escaped, literal, literals};
use crate::admission::azure_workload_identity::VOLUME_PREFIX;
use ensign_api::conditions::ConditionType;
use ensign_api::keys::{
    ENV_AUTHORITY_HOST, ENV_TENANT_ID, ENV_TOKEN_FILE, IDENTITY_GATE, INJECT_LABEL, INJECTED_BY_ANNOTATION,
    MIRROR_ANNOTATION, TOKEN_MOUNT_PATH, TOKEN_PATH, TOKEN_VOLUME,
};
use ensign_api::selector::LabelOperator;
use ensign_api::{IdentityKind, Injection, InjectionMode, StartPolicy};

/// The pod's labels.
const LABELS: &str = "object.metadata.?labels.orValue({})";
/// Lists of containers that are injected, in the order of the pod's spec.
pub(super) const CONTAINER_LISTS: [&str; 2] = ["initContainers", "containers"];
/// Longest text of a condition that a refusal quotes; the API server drops a message of more than 5 KiB.
const MAX_QUOTED: usize = 2_048;

/// A named expression, which others use as `variables.NAME`.
pub(super) type Variable = (&'static str, String);

/// The service account of the pod.
pub(super) fn service_account() -> String {
    let account = "object.spec.?serviceAccountName.orValue('')";
    format!("({account} == '' ? 'default' : {account})")
}

/// Whether bindings have a say: the pod did not opt out, and it does not mirror a static pod.
pub(super) fn has_a_say() -> String {
    let (mirror, label) = (literal(MIRROR_ANNOTATION), literal(INJECT_LABEL));
    format!("!({mirror} in object.metadata.?annotations.orValue({{}})) && {LABELS}[?{label}].orValue('') != 'false'")
}

/// Whether the binding is for the pod's service account.
pub(super) fn of_service_account() -> String {
    format!("params.spec.serviceAccountName == {}", service_account())
}

/// Whether the binding has pods injected, and selects this one.
pub(super) fn covers() -> String {
    format!("{} && ({})", injects_pods(), selects())
}

/// Whether the binding has pods injected.
pub(super) fn injects_pods() -> String {
    let injection = Injection::default();
    let (default, pods) = (name_of(injection.mode), name_of(InjectionMode::Pods));
    format!("params.spec.?injection.?mode.orValue({default}) == {pods}")
}

/// CEL has no function for label selectors.
fn selects() -> String {
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

/// How far the controller has come with a binding, by the names of [`crate::admission::BindingReadiness`].
pub(super) fn standing() -> String {
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

/// What a condition of the binding says, on one line and not too long.
pub(super) fn quoted(condition: ConditionType, field: &str) -> String {
    let (condition, spaced) = (literal(condition.as_str()), r"replace('\n', ' ').replace('\r', ' ')");
    format!(
        "params.?status.?conditions.orValue([]).filter(c, c.type == {condition} && c.status != 'True')\
         .map(c, string(c.{field}).{spaced})\
         .map(text, text.size() > {MAX_QUOTED} ? text.substring(0, {MAX_QUOTED}) : text).join('')"
    )
}

/// Name of the variable that has the binding's client ID.
pub(super) fn client_id_env() -> String {
    let default = literal(&Injection::default().client_id_env);
    format!("string(params.spec.?injection.?clientIDEnv.orValue({default}))")
}

/// What an injected pod's annotation says of the binding.
pub(super) fn claim() -> String {
    format!("string(params.metadata.name) + '=' + {}", identity())
}

/// Kind and name of what the binding references.
pub(super) fn identity() -> String {
    // The kind's name comes from the type, so that another kind of identity can't be forgotten here.
    let kind = name_of(IdentityKind::default());
    format!("string(params.spec.identityRef.?kind.orValue({kind})) + '/' + string(params.spec.identityRef.name)")
}

/// What the pod's annotation says of bindings, whoever wrote it.
pub(super) fn claimed() -> String {
    format!("object.metadata.?annotations[?{}].orValue('').split(',')", literal(INJECTED_BY_ANNOTATION))
}

/// Whether a pod of the binding has to wait: [`StartPolicy`], and the credential does not work yet.
pub(super) fn waits() -> String {
    let injection = Injection::default();
    let (default, waits) = (name_of(injection.start_policy), name_of(StartPolicy::WaitForIdentity));
    format!(
        "params.spec.?injection.?startPolicy.orValue({default}) == {waits} && !{}",
        condition_is(ConditionType::CredentialReady, "True")
    )
}

/// Whether the pod has Ensign's gate.
pub(super) fn is_gated() -> String {
    format!("object.spec.?schedulingGates.orValue([]).exists(g, g.name == {})", literal(IDENTITY_GATE))
}

/// Names of the token volumes that the pod has: at most one by injection, but a copy of an injected pod brings one along,
/// also one that azure-workload-identity injected.
pub(super) fn brought(config: &Config) -> Variable {
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
    ("brought", expression)
}

fn is_token_name(name: &str) -> String {
    format!("({name} == {} || {name}.startsWith({}))", literal(TOKEN_VOLUME), literal(VOLUME_PREFIX))
}

/// Name of the token volume; needs `brought`.
pub(super) fn volume() -> Variable {
    ("volume", format!("variables.brought.size() > 0 ? variables.brought[0] : {}", literal(TOKEN_VOLUME)))
}

/// Whether the name for a token volume is taken by something else; needs `brought`.
pub(super) fn is_taken() -> String {
    format!(
        "variables.brought.size() == 0 && object.spec.?volumes.orValue([]).exists(v, v.name == {})",
        literal(TOKEN_VOLUME)
    )
}

/// Names of the containers that the binding chooses.
pub(super) fn chosen() -> Variable {
    ("chosen", format!("({}).map(c, string(c.name)).filter(name, {})", containers(), chooses("name")))
}

/// Whether the binding chooses the container of this name.
pub(super) fn chooses(name: &str) -> String {
    let filter = "params.spec.?injection.?containers";
    format!(
        "({filter}.?include.orValue([]).size() == 0 || {name} in {filter}.?include.orValue([])) && \
         !({name} in {filter}.?exclude.orValue([]))"
    )
}

/// Every container that injection is about.
pub(super) fn containers() -> String {
    CONTAINER_LISTS.map(|list| format!("object.spec.?{list}.orValue([])")).join(" + ")
}

/// Whether a path is the token's mount path or below it, where a mount would hide the token or fail. A path that goes back
/// up can't be followed in CEL: it counts if it names the whole mount path on its way.
pub(super) fn is_within_token_path(path: &str) -> String {
    let names: Vec<String> = TOKEN_MOUNT_PATH.split('/').filter(|name| !name.is_empty()).map(escaped).collect();
    let (skipped, detour) = ("/(\\.?/)*", "/(.*/)?");
    let plain = format!("^(\\.?/)*{}(/|$)", names.join(skipped));
    let winding = format!("(^|/){}(/|$)", names.join(detour));
    format!("({path}.contains('..') ? {path}.matches({}) : {path}.matches({}))", literal(&winding), literal(&plain))
}

/// Whether a mount is that of the token; needs `brought` and `volume`.
pub(super) fn is_token_mount(mount: &str) -> String {
    let is_token = format!("({mount}.name == variables.volume || {mount}.name in variables.brought)");
    format!("{is_token} && {}", mounts_as_token(mount))
}

/// Whether a mount of the token's volume is as it should be.
pub(super) fn mounts_as_token(mount: &str) -> String {
    format!(
        "{mount}.mountPath.matches({}) && {mount}.?readOnly.orValue(false) && \
         {mount}.?subPath.orValue('') == '' && {mount}.?subPathExpr.orValue('') == ''",
        literal(&format!("^{}/*$", escaped(TOKEN_MOUNT_PATH))),
    )
}

/// Whether the pod is injected, by what it has and not by what it says; needs `brought` and `volume`.
pub(super) fn injected() -> Variable {
    let expression = format!(
        "variables.brought.size() > 0 && ({}).exists(c, c.?volumeMounts.orValue([]).exists(m, {}) && \
         {}.all(name, c.?env.orValue([]).exists(e, e.name == name)))",
        containers(),
        is_token_mount("m"),
        literals(&[ENV_TENANT_ID, ENV_TOKEN_FILE, ENV_AUTHORITY_HOST]),
    );
    ("injected", expression)
}

/// The name of a value of an enumeration, as a literal.
fn name_of(value: impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    literal(value.as_str().unwrap_or_default())
}
