//! The rows of the matrix that no generated plan covers: scenarios with a fault of their own inside.

mod azure;
mod clones;
mod dedicated;
mod deletion;
mod foreign;
mod issuers;
mod leaders;
mod pace;
mod roles;
mod unseen;
mod watches;

use std::sync::Arc;

use super::oracles::Licence;
use super::plan::{Fault, Plan};
use super::scenarios::{Scenario, begin};
use super::world::{Checked, RESYNC, World};

const BINDING: &str = "ManagedIdentityBinding";
const IDENTITY: &str = "ManagedIdentity";
const BINDINGS: &str = "/apis/ensign.dev/v1alpha1/managedidentitybindings";
const IDENTITIES: &str = "/apis/ensign.dev/v1alpha1/managedidentities";
const NAMESPACES: &str = "/api/v1/namespaces";

#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the table below")]
struct Row {
    rows: &'static [u32],
    scenario: Scenario,
    /// What the plan may do that others may not.
    stale_write: bool,
    stripped: bool,
    rivals: bool,
    abandoned: bool,
    /// The plan disturbs all others.
    alone: bool,
    /// Too long for `make test`.
    long: bool,
}

macro_rules! rows {
    ($($row:expr, $room:ident::$name:ident $(, $flag:ident)*;)*) => {
        static ROWS: &[Row] = &[$(Row {
            $($flag: true,)*
            ..Row {
                rows: &$row,
                scenario: Scenario { name: stringify!($name), run: $room::$name, rows: &$row },
                stale_write: false,
                stripped: false,
                rivals: false,
                abandoned: false,
                alone: false,
                long: false,
            }
        },)*];
    };
}

rows! {
    [3], unseen::revoked_unseen;
    [3], unseen::deleted_unseen;
    [3], unseen::label_unseen;
    [3], unseen::claim_unseen;
    [4], unseen::old_list_knows_a_binding_too_many;
    [4], unseen::old_list_lacks_a_binding;
    [5], unseen::made_and_deleted_unseen;
    [5], unseen::same_name_new_uid_unseen, stripped;
    [6], leaders::frozen_before_a_put;
    [6], leaders::frozen_in_the_middle_of_a_put, stale_write;
    [6], leaders::frozen_before_the_answer;
    [6], leaders::a_write_is_given_up_before_the_lease_ends, stale_write;
    [6], leaders::a_new_leader_learns_what_its_watch_did_not_bring;
    [6, 22], leaders::wall_clocks_decide_nothing;
    [7], azure::other_subscriptions_go_on;
    [7], pace::a_subscription_waits_as_one;
    [7], pace::kubernetes_goes_on_in_a_pause;
    [7], pace::the_limits_are_kept;
    [12], azure::stale_list_is_no_storm;
    [12], azure::a_list_without_a_parent_is_no_storm;
    [12], azure::a_list_that_still_has_what_is_gone_is_no_storm;
    [14], azure::a_refused_token_is_refreshed_once;
    [14, 25], azure::no_token_is_not_gone, long;
    [14, 25], deletion::unauthenticated_is_not_gone, long;
    [14, 25], deletion::forbidden_is_not_gone;
    [10, 25], deletion::trouble_is_not_gone, long;
    [10, 25], deletion::silence_is_not_gone, long;
    [10, 25], deletion::a_page_for_people_is_not_gone;
    [16], watches::watches_cut_and_expired;
    [16], watches::half_open_watch;
    [16], watches::the_api_server_restarts, alone, long;
    [16], watches::etcd_is_compacted_and_the_api_server_restarts, alone, long;
    [18], watches::poison_is_one_objects_problem;
    [22], issuers::the_wall_clock_jumps_about, long;
    [24], foreign::drift_is_repaired_once;
    [25], deletion::no_parent_releases;
    [25], deletion::an_operator_abandons, abandoned;
    [26], foreign::create_goes_before_delete;
    [27], issuers::an_issuer_seen_back_and_forth, long;
    [27], issuers::an_issuer_doubted_at_start;
    [28], foreign::owner_of_twins_goes;
    [29], clones::clone_of_a_cluster, rivals;
    [29], clones::three_clusters_share_identities, rivals, long;
    [29], foreign::own_prefix_is_not_ownership;
    [30], deletion::stripped_finalizer, stripped;
    [30], deletion::tenants_cannot_abandon;
    [31], azure::locked, long;
    [31], azure::forbidden_by_policy;
    [9], dedicated::an_identity_of_somebody_else_is_left;
    [9], dedicated::an_identity_given_away_is_left, long;
    [23], dedicated::a_vanished_identity_is_made_anew;
    [25], dedicated::a_deletion_of_an_identity_that_fails_holds_the_object, long;
    [26], dedicated::a_quota_of_identities_is_told_and_passes, long;
    [5], dedicated::a_claim_is_of_one_uid;
    [4], dedicated::an_old_list_lacks_the_claimant, long;
    [28], dedicated::a_class_goes_and_its_identities_live_on, long;
    [9, 32], foreign::revoked_over_an_adopted_credential;
    [9, 32], foreign::taken_name_is_left;
    [24], roles::a_role_removed_by_hand_is_given_again_once;
    [9, 32], roles::what_others_assigned_is_left;
    [25], roles::an_object_waits_for_its_roles_to_go, long;
    [14, 25], roles::a_role_that_cannot_be_taken_away_holds_the_object, long;
    [23], roles::roles_of_an_identity_that_vanished_go, long;
    [3], roles::a_role_given_up_unseen_is_not_assigned, long;
    [3], roles::a_role_asked_for_again_unseen_is_not_taken_away, long;
    [9, 32], roles::roles_go_though_the_identity_was_given_away, long;
    [], roles::no_attempt_to_get_at_more_is_written;
    [], roles::a_copied_claim_gets_no_identity_and_no_role;
}

/// A plan for each scenario of these files.
pub fn plans() -> Vec<Plan> {
    let plan = |row: &'static Row| Plan {
        id: row.scenario.name.replace('_', "-"),
        rows: row.rows.to_vec(),
        scenario: &row.scenario,
        fault: Fault::None,
        licence: Licence {
            stale_write: row.stale_write,
            stripped: row.stripped,
            rivals: row.rivals,
            abandoned: row.abandoned,
        },
        compared: false,
        quick: !row.long,
        alone: row.alone,
    };
    ROWS.iter().map(plan).collect()
}

fn settled(world: &Arc<World>) -> Checked {
    begin(world)?;
    world.binding("shop", "app", "orders", "app");
    world.ready("shop", "app")?;
    world.identity_ready("orders")
}

/// Nothing is written to Azure while a drift period passes.
fn azure_untouched(world: &World) -> Checked {
    let before = world.azure_writes().len();
    world.pass_slowly(RESYNC * 5 / 4)?;
    let after = world.azure_writes();
    if after.len() == before { Ok(()) } else { Err(format!("written on an old word: {:?}", &after[before..])) }
}
