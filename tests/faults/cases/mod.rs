//! Rows of the matrix that no generated plan covers: scenarios that contain a fault of their own.

mod azure;
mod clones;
mod dedicated;
mod deletion;
mod foreign;
mod issuers;
mod late_reads;
mod leaders;
mod rate_limits;
mod roles;
mod shapes;
mod stale_cache;
mod watches;

use std::sync::Arc;

use super::harness::{Checked, Harness, RESYNC};
use super::oracles::Allowances;
use super::plan::{Fault, Plan};
use super::scenarios::{Scenario, begin};

const BINDING: &str = "ManagedIdentityBinding";
const IDENTITY: &str = "ManagedIdentity";
const BINDINGS: &str = "/apis/ensign.dev/v1alpha1/managedidentitybindings";
const IDENTITIES: &str = "/apis/ensign.dev/v1alpha1/managedidentities";
const NAMESPACES: &str = "/api/v1/namespaces";

#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the table below")]
struct Case {
    rows: &'static [u32],
    scenario: Scenario,
    /// What the plan may do that others may not.
    stale_write: bool,
    stripped: bool,
    rivals: bool,
    abandoned: bool,
    /// It disturbs all other plans.
    alone: bool,
    /// Too long for `make test`.
    long: bool,
}

macro_rules! cases {
    ($($rows:expr, $module:ident::$name:ident $(, $flag:ident)*;)*) => {
        static CASES: &[Case] = &[$(Case {
            $($flag: true,)*
            ..Case {
                rows: &$rows,
                scenario: Scenario { name: stringify!($name), run: $module::$name, rows: &$rows },
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

cases! {
    [3], stale_cache::revoked_unseen;
    [3], stale_cache::deleted_unseen;
    [3], stale_cache::label_unseen;
    [3], stale_cache::claim_unseen;
    [4], stale_cache::old_list_contains_a_deleted_binding;
    [4], stale_cache::old_list_lacks_a_binding;
    [5], stale_cache::created_and_deleted_unseen;
    [5], stale_cache::same_name_new_uid_unseen, stripped;
    [6], leaders::paused_before_a_put;
    [6], leaders::paused_during_a_put, stale_write;
    [6], leaders::paused_before_the_response;
    [6], leaders::a_write_is_abandoned_before_the_lease_expires, stale_write;
    [6], leaders::a_new_leader_reads_what_its_watch_did_not_deliver;
    [6, 22], leaders::wall_clocks_do_not_affect_leadership;
    [7], azure::other_subscriptions_continue;
    [7], rate_limits::a_pause_applies_to_the_whole_subscription;
    [7], rate_limits::kubernetes_continues_during_a_pause;
    [7], rate_limits::rate_limits_are_respected;
    [12], azure::stale_list_causes_no_write_storm;
    [12], azure::a_list_without_a_parent_causes_no_write_storm;
    [12], azure::a_list_with_deleted_credentials_causes_no_write_storm;
    [33], late_reads::a_stale_list_releases_nothing;
    [33], late_reads::a_list_that_is_stale_for_hours_releases_nothing;
    [33], late_reads::a_missing_identity_releases_nothing;
    [33], late_reads::a_stale_list_revokes_all_the_same;
    [12, 33], late_reads::a_get_that_never_finds_the_identity_causes_no_write_storm;
    [34], shapes::foreign_credentials_of_any_shape;
    [34], shapes::foreign_credentials_of_any_shape_take_slots_and_names;
    [14], azure::a_refused_token_is_refreshed_once;
    [14, 25], azure::no_token_does_not_mean_deleted, long;
    [14, 25], deletion::unauthenticated_does_not_mean_deleted, long;
    [14, 25], deletion::forbidden_does_not_mean_deleted;
    [10, 25], deletion::server_errors_do_not_mean_deleted, long;
    [10, 25], deletion::no_response_does_not_mean_deleted, long;
    [10, 25], deletion::an_html_404_does_not_mean_deleted;
    [16], watches::watches_cut_and_expired;
    [16], watches::half_open_watch;
    [16], watches::the_api_server_restarts, alone, long;
    [16], watches::etcd_is_compacted_and_the_api_server_restarts, alone, long;
    [18], watches::an_invalid_object_affects_only_itself;
    [22], issuers::wall_clock_jumps_change_nothing, long;
    [24], foreign::drift_is_repaired_once;
    [25], deletion::a_deleted_identity_releases_its_objects;
    [25], deletion::an_operator_abandons, abandoned;
    [26], foreign::create_precedes_delete;
    [27], issuers::an_alternating_issuer, long;
    [27], issuers::an_uncertain_issuer_at_startup;
    [28], foreign::owner_of_duplicates_is_deleted;
    [29], clones::cloned_cluster, rivals;
    [29], clones::three_clusters_share_identities, rivals, long;
    [29], foreign::own_prefix_is_not_ownership;
    [30], deletion::stripped_finalizer, stripped;
    [30], deletion::tenants_cannot_abandon;
    [31], azure::resource_lock, long;
    [31], azure::denied_by_azure_policy;
    [9], dedicated::a_foreign_identity_is_unchanged;
    [9], dedicated::an_identity_with_a_new_owner_is_unchanged, long;
    [23], dedicated::an_identity_deleted_out_of_band_is_recreated;
    [25], dedicated::a_failing_identity_deletion_keeps_the_object, long;
    [26], dedicated::an_identity_quota_is_reported_and_recovered_from, long;
    [5], dedicated::a_claim_belongs_to_one_uid;
    [4], dedicated::an_old_list_lacks_the_claimant, long;
    [28], dedicated::identities_outlive_their_class, long;
    [9, 32], foreign::revoked_over_an_adopted_credential;
    [9, 32], foreign::a_foreign_credential_under_our_name_is_unchanged;
    [24], roles::a_deleted_role_assignment_is_recreated_once;
    [33], roles::role_definitions_that_come_and_go_are_not_reported;
    [9, 32], roles::foreign_role_assignments_are_unchanged;
    [25], roles::an_object_waits_until_its_role_assignments_are_deleted, long;
    [14, 25], roles::a_role_assignment_that_cannot_be_deleted_keeps_the_object, long;
    [23], roles::role_assignments_of_a_deleted_identity_are_deleted, long;
    [3], roles::a_role_removed_unseen_is_not_assigned, long;
    [3], roles::a_role_restored_unseen_is_not_unassigned, long;
    [9, 32], roles::role_assignments_are_deleted_though_the_identity_has_a_new_owner, long;
    [], roles::privilege_escalation_is_never_written;
    [], roles::a_copied_claim_gets_no_identity_and_no_role;
}

/// A plan for each case.
pub fn plans() -> Vec<Plan> {
    let plan = |case: &'static Case| Plan {
        id: case.scenario.name.replace('_', "-"),
        rows: case.rows.to_vec(),
        scenario: &case.scenario,
        fault: Fault::None,
        allowances: Allowances {
            stale_write: case.stale_write,
            stripped: case.stripped,
            rivals: case.rivals,
            abandoned: case.abandoned,
        },
        compared: false,
        quick: !case.long,
        alone: case.alone,
    };
    CASES.iter().map(plan).collect()
}

fn bound(harness: &Arc<Harness>) -> Checked {
    begin(harness)?;
    harness.binding("shop", "app", "orders", "app");
    harness.ready("shop", "app")?;
    harness.identity_ready("orders")
}

/// Checks that nothing is written to Azure within a drift check interval.
fn azure_not_written(harness: &Harness) -> Checked {
    let before = harness.azure_writes().len();
    harness.advance_in_steps(RESYNC * 5 / 4)?;
    let after = harness.azure_writes();
    if after.len() == before { Ok(()) } else { Err(format!("written because of stale data: {:?}", &after[before..])) }
}
