//! Whether a pod has all that a binding gives: then the policies have no more to do for that binding.
//!
//! The API server asks whatever injects a second time, and then whatever judges. Nothing else that it does costs as much
//! as to hand a binding to expressions, once for match conditions and once or twice more where they hold; and a patch, also
//! an empty one, encodes and decodes the pod (docs/performance.md). Match conditions know no variables: what is needed more
//! than once is the only element of a list here.

use super::Config;
use super::literals::literal;
use super::predicates;
use ensign_api::keys::{ENV_AUTHORITY_HOST, ENV_TENANT_ID, ENV_TOKEN_FILE};

/// Whether the pod's annotation names the binding, and each container that the binding chooses has its variables and the
/// token, with nothing in its way. What the annotation says is tried first, because that is cheap; that it lies helps
/// nobody.
pub(super) fn has_all(config: &Config) -> String {
    let names = format!(
        "[{}, {}, {}, {}]",
        predicates::client_id_env(),
        literal(ENV_TENANT_ID),
        literal(ENV_TOKEN_FILE),
        literal(ENV_AUTHORITY_HOST)
    );
    let is_token_mount = format!("m.name in brought && {}", predicates::mounts_as_token("m"));
    let complete = format!(
        "names.all(name, c.?env.orValue([]).exists(e, e.name == name)) && \
         c.?volumeMounts.orValue([]).exists(m, {is_token_mount}) && \
         c.?volumeMounts.orValue([]).all(m, !{} || ({is_token_mount}))",
        predicates::is_within_token_path("m.mountPath"),
    );
    format!(
        "({}) in {} && [{}].exists(brought, brought.size() > 0 && [{names}].exists(names, \
         [({}).filter(c, {})].exists(chosen, chosen.size() > 0 && chosen.all(c, {complete}))))",
        predicates::claim(),
        predicates::claimed(),
        predicates::brought(config).1,
        predicates::containers(),
        predicates::chooses("string(c.name)"),
    )
}
