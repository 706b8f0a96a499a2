//! Whether a binding has injected a pod already: then the policies have nothing left to do for that binding.
//!
//! The API server evaluates mutating policies twice, and then validating ones. The most expensive part is to pass a
//! binding to expressions: once for the match conditions, and once or twice more if they are true. A patch, even an empty
//! one, encodes and decodes the pod (docs/performance.md). Match conditions have no variables, so whatever is needed more
//! than once is the only element of a list here.

use super::predicates;
use crate::admission::Config;

/// Whether the pod's annotation lists the binding, and each container that the binding selects has its variables and the
/// token, without a conflicting mount. The annotation is checked first, because that is cheap. A forged one gains nothing.
pub(super) fn is_injected(config: &Config) -> String {
    let names = predicates::variable_names();
    let is_token_mount = format!("m.name in token_volumes && {}", predicates::mounts_as_token("m"));
    let complete = format!(
        "names.all(name, c.?env.orValue([]).exists(e, e.name == name)) && \
         c.?volumeMounts.orValue([]).exists(m, {is_token_mount}) && \
         c.?volumeMounts.orValue([]).all(m, !{} || ({is_token_mount}))",
        predicates::is_within_token_path("m.mountPath"),
    );
    format!(
        "({}) in {} && [{}].exists(token_volumes, token_volumes.size() > 0 && [[{names}]].exists(names, \
         [({}).filter(c, {})].exists(selected, selected.size() > 0 && selected.all(c, {complete}))))",
        predicates::entry(),
        predicates::entries(),
        predicates::token_volumes(config).1,
        predicates::containers(),
        predicates::selects_container("string(c.name)"),
    )
}
