//! How long a credential takes to settle, as whole reconciles decide about it.

use k8s_openapi::jiff::SignedDuration;

use super::tests::{STAMP, World, failure, is, ours};
use super::*;
use ensign_api::conditions::{ConditionType, find};

#[test]
fn a_credential_is_ready_once_entra_had_time_to_learn_of_it_and_stays_so() {
    let mut world = World::new();
    world.settings.settle = Duration::from_secs(30);
    let mut world = world.settled();
    assert_eq!(world.ready(), is("False", "Propagating"));
    let now: Timestamp = STAMP.parse().unwrap();
    let status = |world: &World, seconds| {
        let assessment = world.assess_at(now + SignedDuration::from_secs(seconds));
        (assessment.settles, assessment.bindings[0].status.clone())
    };
    let (settles, before) = status(&world, 29);
    assert_eq!(settles, Some(now + SignedDuration::from_secs(30)));
    assert_eq!(Some(&before), world.binding.status.as_ref(), "status does not churn meanwhile");
    let (settles, after) = status(&world, 30);
    assert_eq!((settles, find(&after.conditions, ConditionType::Ready).unwrap().status.as_str()), (None, "True"));
    world.binding.status = Some(after.clone());
    world.observed.credentials = Some(Err(failure(Reason::AzureUnavailable)));
    assert_eq!(status(&world, 60), (None, after), "nor is it taken back when Azure can't be asked");
}

#[test]
fn time_settles_a_credential_also_while_azure_cannot_be_asked() {
    let mut world = World::new();
    world.settings.settle = Duration::from_secs(30);
    let mut world = world.settled();
    world.observed.credentials = Some(Err(failure(Reason::AzureUnavailable)));
    let later = world.assess_at(STAMP.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(30));
    let ready = find(&later.bindings[0].status.conditions, ConditionType::CredentialReady).unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("True", "Confirmed"));
}

#[test]
fn a_credential_that_was_written_anew_settles_anew() {
    let mut world = World::new();
    world.settings.settle = Duration::from_secs(30);
    let mut world = world.settled();
    let later = STAMP.parse::<Timestamp>().unwrap() + SignedDuration::from_hours(1);
    world.binding.status = Some(world.assess_at(later).bindings[0].status.clone());
    world.observed.written.insert(ours().name);
    let assessment = world.assess_at(later);
    let status = &assessment.bindings[0].status;
    assert_eq!(find(&status.conditions, ConditionType::Ready).unwrap().reason, "Propagating");
    assert_eq!(status.credential.as_ref().unwrap().confirmed_since.0, later);
    assert_eq!(assessment.settles, Some(later + SignedDuration::from_secs(30)));
}
