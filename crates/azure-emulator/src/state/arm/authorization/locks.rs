//! Locks, read-only: the state document sets them.

use serde_json::{Value, json};

use crate::state::arm::scope::Scope;
use crate::state::model::{Lock, LockLevel, State, is_within};

/// The locks at, above and below a scope.
pub(super) fn list(state: &State, scope: &Scope) -> Vec<Value> {
    let at = scope.to_string();
    let numbered = state.locks.iter().zip(1_u32..);
    numbered.filter(|(lock, _)| lock.covers(&at) || is_within(&lock.scope, &at)).map(show).collect()
}

/// In the state, locks have no names: here they have numbers.
fn show((lock, number): (&Lock, u32)) -> Value {
    let name = format!("lock-{number}");
    json!({
        "id": format!("{}/providers/Microsoft.Authorization/locks/{name}", lock.scope.trim_end_matches('/')),
        "name": name,
        "type": "Microsoft.Authorization/locks",
        "properties": {"level": match lock.level {
            LockLevel::CanNotDelete => "CanNotDelete",
            LockLevel::ReadOnly => "ReadOnly",
        }},
    })
}
