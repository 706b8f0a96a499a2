//! Tests of what reads mean, given the recent writes.

use super::*;

const START: Moment = Duration::from_secs(1000);
const SOON: Moment = Duration::from_secs(1000 + 119);
const LATER: Moment = Duration::from_secs(1000 + 120);

fn id() -> ArmId {
    let group = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg";
    format!("{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders").parse().unwrap()
}

fn identity(client_id: &str) -> AzureIdentity {
    AzureIdentity {
        arm_id: id().to_string(),
        client_id: client_id.to_owned(),
        principal_id: "principal".into(),
        tenant_id: "tenant".into(),
        location: "westeurope".into(),
        tags: BTreeMap::new(),
        isolation_scope: None,
    }
}

fn credential(name: &str) -> Credential {
    Credential { name: name.into(), issuer: "https://i".into(), subject: "s".into(), audiences: vec!["a".into()] }
}

fn gone() -> Failure {
    Failure { reason: Reason::IdentityNotFound, message: "404".into(), retry_after: None }
}

fn busy() -> Failure {
    Failure { reason: Reason::AzureUnavailable, message: "500".into(), retry_after: None }
}

fn names(list: &[Credential]) -> Vec<&str> {
    list.iter().map(|credential| credential.name.as_str()).collect()
}

#[test]
fn an_identity_that_was_just_put_is_there_whatever_get_returns() {
    let mut own = OwnWrites::new(READ_LAG);
    own.identity_put(&identity("new"), true, START);
    assert_eq!(own.identity(&id(), Err(gone()), SOON), Ok(identity("new")));
    assert!(!own.confirmed(SOON).identity_uncertain);
    assert_eq!(own.identity(&id(), Ok(identity("old")), SOON), Ok(identity("new")));
    // Somebody else may have changed it since.
    assert!(own.confirmed(SOON).identity_uncertain);
    assert_eq!(own.confirmed(SOON).look_again_in, Some(Duration::from_secs(1)));
    assert_eq!(own.identity(&id(), Err(gone()), LATER), Err(gone()));
}

#[test]
fn an_identity_that_a_put_found_needs_no_further_look_although_get_does_not_find_it() {
    let mut own = OwnWrites::new(READ_LAG);
    own.identity_put(&identity("found"), false, START);
    assert_eq!(own.identity(&id(), Err(gone()), SOON), Ok(identity("found")));
    assert_eq!(own.confirmed(SOON).look_again_in, None);
}

#[test]
fn an_identity_that_was_just_deleted_is_gone_whatever_get_returns() {
    let mut own = OwnWrites::new(READ_LAG);
    own.identity_deleted(START);
    assert!(own.identity(&id(), Ok(identity("old")), SOON).is_err_and(|failure| failure.is_gone()));
    assert!(own.confirmed(SOON).identity_gone);
    assert_eq!(own.identity(&id(), Ok(identity("old")), LATER), Ok(identity("old")));
}

#[test]
fn an_identity_under_which_a_credential_was_just_put_is_there() {
    let mut own = OwnWrites::new(READ_LAG);
    own.credential_put(&credential("one"), Some(&identity("known")), START);
    assert_eq!(own.identity(&id(), Err(gone()), SOON), Ok(identity("known")));
    // It was not written itself, so that GET can return something newer.
    assert_eq!(own.identity(&id(), Ok(identity("recreated")), SOON), Ok(identity("recreated")));
}

#[test]
fn a_list_without_a_credential_that_was_just_put_has_it() {
    let mut own = OwnWrites::new(READ_LAG);
    own.credential_put(&credential("one"), None, START);
    let list = own.credentials(&id(), Ok(vec![credential("two")]), &[], SOON).unwrap();
    assert_eq!(names(&list), ["two", "one"]);
    assert!(own.confirmed(SOON).look_again_in.is_some());
    assert_eq!(names(&own.credentials(&id(), Ok(Vec::new()), &[], LATER).unwrap()), [""; 0]);
}

#[test]
fn a_list_with_a_credential_that_was_just_deleted_does_not_have_it() {
    let mut own = OwnWrites::new(READ_LAG);
    own.credential_put(&credential("one"), None, START);
    own.credential_deleted("one", START);
    assert_eq!(names(&own.credentials(&id(), Ok(vec![credential("one")]), &[], SOON).unwrap()), [""; 0]);
    assert!(own.confirmed(SOON).deleted_credentials.contains("one"));
    assert_eq!(names(&own.credentials(&id(), Ok(vec![credential("one")]), &[], LATER).unwrap()), ["one"]);
}

#[test]
fn a_list_that_does_not_find_the_identity_is_retried_after_a_write_to_it() {
    let mut own = OwnWrites::new(READ_LAG);
    own.credential_put(&credential("one"), Some(&identity("known")), START);
    let failure = own.credentials(&id(), Err(gone()), &[], SOON).unwrap_err();
    assert!(failure.is_transient(), "{failure:?}");
    assert_eq!(own.credentials(&id(), Err(gone()), &[], LATER), Err(gone()));
}

#[test]
fn a_list_that_does_not_find_the_identity_that_get_found_is_retried() {
    let mut own = OwnWrites::new(READ_LAG);
    own.identity(&id(), Ok(identity("there")), START).unwrap();
    assert!(own.credentials(&id(), Err(gone()), &[], SOON).unwrap_err().is_transient());
    // GET does not find it either.
    own.identity(&id(), Err(gone()), SOON).unwrap_err();
    assert_eq!(own.credentials(&id(), Err(gone()), &[], SOON), Err(gone()));
}

#[test]
fn a_new_identity_has_only_what_was_written_under_it() {
    let mut own = OwnWrites::new(READ_LAG);
    own.credential_put(&credential("of-its-predecessor"), None, START);
    own.identity_put(&identity("new"), true, START);
    own.credential_put(&credential("one"), Some(&identity("new")), START);
    assert_eq!(names(&own.credentials(&id(), Err(gone()), &[], SOON).unwrap()), ["one"]);
}

#[test]
fn a_failure_that_is_no_answer_stays_one() {
    let mut own = OwnWrites::new(READ_LAG);
    own.identity_put(&identity("new"), true, START);
    assert_eq!(own.identity(&id(), Err(busy()), SOON), Err(busy()));
    assert_eq!(own.credentials(&id(), Err(busy()), &[], SOON), Err(busy()));
}

#[test]
fn absence_of_an_identity_is_certain_only_when_it_lasts() {
    let mut own = OwnWrites::new(READ_LAG);
    assert_eq!(own.identity(&id(), Err(gone()), START), Err(gone()));
    assert!(!own.confirmed(SOON).identity_gone);
    assert_eq!(own.confirmed(SOON).look_again_in, Some(Duration::from_secs(1)));
    assert!(own.confirmed(LATER).identity_gone);
    assert_eq!(own.confirmed(LATER).look_again_in, None);
    // It was only late.
    assert!(own.identity(&id(), Ok(identity("there")), LATER).is_ok());
    assert!(!own.confirmed(LATER).identity_gone);
}

#[test]
fn a_former_issuer_is_absent_once_no_list_has_had_it_for_long_enough() {
    let mut own = OwnWrites::new(READ_LAG);
    let former = Credential { issuer: "https://former".into(), ..credential("one") };
    own.credentials(&id(), Ok(vec![former]), &["https://former"], START).unwrap();
    own.credentials(&id(), Ok(Vec::new()), &["https://former"], SOON).unwrap();
    assert!(own.confirmed(SOON).absent_issuers.is_empty());
    assert_eq!(own.confirmed(LATER).absent_issuers, BTreeSet::from(["https://former".to_owned()]));
    own.credentials(&id(), Ok(Vec::new()), &[], LATER).unwrap();
    assert!(own.confirmed(LATER).absent_issuers.is_empty());
}

#[test]
fn what_was_written_no_longer_counts_once_another_write_may_have_been_applied() {
    let mut own = OwnWrites::new(READ_LAG);
    own.identity_put(&identity("new"), true, START);
    own.credential_put(&credential("one"), None, START);
    own.credential_unknown("one");
    assert_eq!(own.credentials(&id(), Ok(Vec::new()), &[], SOON), Ok(Vec::new()));
    own.identity_unknown();
    assert_eq!(own.identity(&id(), Err(gone()), SOON), Err(gone()));
}

#[test]
fn a_role_assignment_counts_as_it_was_written() {
    let mut own = OwnWrites::new(READ_LAG);
    let assignment = |name: &str| Assignment {
        name: name.into(),
        scope: "/subscriptions/s".into(),
        role: "r".into(),
        principal: "p".into(),
        condition: None,
    };
    own.assignment_put(&assignment("NEW"), START);
    own.assignment_deleted("OLD", START);
    assert_eq!(own.assignments(&[assignment("old")], SOON), [assignment("NEW")]);
    assert!(own.confirmed(SOON).look_again_in.is_some());
    assert_eq!(own.assignments(&[assignment("old")], LATER), [assignment("old")]);
    assert!(own.confirmed(SOON).deleted_assignments.contains("old"));
}

#[test]
fn nothing_is_kept_longer_than_it_matters() {
    let mut own = OwnWrites::new(READ_LAG);
    own.identity_put(&identity("new"), true, START);
    own.credential_put(&credential("one"), Some(&identity("new")), START);
    own.assignment_deleted("old", START);
    assert!(!own.forget(SOON));
    assert!(own.forget(LATER));
}
