//! Propagation of credentials, as whole reconciles decide about it.

use std::time::Duration;

use k8s_openapi::jiff::SignedDuration;

use super::tests::{STAMP, World, failure, is, ours};
use super::*;
use ensign_api::conditions::{ConditionType, find};

#[test]
fn a_credential_is_ready_once_it_had_time_to_propagate_and_remains_so() {
    let mut world = World::new();
    world.settings.propagation_delay = Duration::from_secs(30);
    let mut world = world.reconciled();
    assert_eq!(world.ready(), is("False", "Propagating"));
    let now: Timestamp = STAMP.parse().unwrap();
    let status = |world: &World, seconds| {
        let assessment = world.assess_at(now + SignedDuration::from_secs(seconds));
        (assessment.propagates_at, assessment.bindings[0].status.clone())
    };
    let (propagates_at, before) = status(&world, 29);
    assert_eq!(propagates_at, Some(now + SignedDuration::from_secs(30)));
    assert_eq!(Some(&before), world.binding.status.as_ref(), "the status does not change in the meantime");
    let (propagates_at, after) = status(&world, 30);
    assert_eq!((propagates_at, find(&after.conditions, ConditionType::Ready).unwrap().status.as_str()), (None, "True"));
    world.binding.status = Some(after.clone());
    world.observed.credentials = Some(Err(failure(Reason::AzureUnavailable)));
    assert_eq!(status(&world, 60), (None, after), "it remains ready while Azure is unavailable");
}

#[test]
fn a_credential_becomes_ready_even_while_azure_is_unavailable() {
    let mut world = World::new();
    world.settings.propagation_delay = Duration::from_secs(30);
    let mut world = world.reconciled();
    world.observed.credentials = Some(Err(failure(Reason::AzureUnavailable)));
    let later = world.assess_at(STAMP.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(30));
    let ready = find(&later.bindings[0].status.conditions, ConditionType::CredentialReady).unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("True", "Confirmed"));
}

#[test]
fn a_rewritten_credential_has_to_propagate_again() {
    let mut world = World::new();
    world.settings.propagation_delay = Duration::from_secs(30);
    let mut world = world.reconciled();
    let later = STAMP.parse::<Timestamp>().unwrap() + SignedDuration::from_hours(1);
    world.binding.status = Some(world.assess_at(later).bindings[0].status.clone());
    world.observed.written.insert(ours().name);
    let assessment = world.assess_at(later);
    let status = &assessment.bindings[0].status;
    assert_eq!(find(&status.conditions, ConditionType::Ready).unwrap().reason, "Propagating");
    assert_eq!(status.credential.as_ref().unwrap().confirmed_since.0, later);
    assert_eq!(assessment.propagates_at, Some(later + SignedDuration::from_secs(30)));
}
