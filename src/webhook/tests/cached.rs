//! The index of bindings.

use super::*;

fn names(index: &Index, service_account: &str) -> Vec<String> {
    let found = index.find("shop", service_account);
    found.iter().flat_map(|bindings| bindings.iter()).map(|binding| binding.name.to_string()).collect()
}

fn change(index: &Arc<Index>, event: Event<Guarded>) {
    follow(&mut Follower::new(Arc::clone(index)), event);
}

#[test]
fn the_index_follows_additions_changes_and_deletions() {
    let index = filled([object("a", &json!({})), object("b", &json!({}))]);
    assert_eq!(names(&index, "orders"), ["a", "b"]);
    change(&index, Event::Apply(object("c", &json!({}))));
    change(&index, Event::Apply(object("a", &json!({"status": {"clientID": "new"}}))));
    assert_eq!(names(&index, "orders"), ["b", "c", "a"]);
    change(&index, Event::Delete(object("b", &json!({}))));
    assert_eq!(names(&index, "orders"), ["c", "a"]);
}

#[test]
fn a_binding_recreated_for_another_service_account_moves() {
    let index = filled([object("a", &json!({}))]);
    change(&index, Event::Apply(object("a", &json!({"spec": {"serviceAccountName": "pay"}}))));
    assert!(names(&index, "orders").is_empty());
    assert_eq!(names(&index, "pay"), ["a"]);
}

#[test]
fn bindings_of_other_namespaces_are_not_found() {
    let index = filled([object("a", &json!({"metadata": {"namespace": "elsewhere"}}))]);
    assert!(names(&index, "orders").is_empty());
}

#[test]
fn the_last_known_bindings_are_used_until_a_restarted_watch_is_complete() {
    let index = filled([object("old", &json!({}))]);
    let mut follower = Follower::new(Arc::clone(&index));
    follow(&mut follower, Event::Init);
    follow(&mut follower, Event::InitApply(object("new", &json!({}))));
    assert_eq!(names(&index, "orders"), ["old"]);
    follow(&mut follower, Event::InitDone);
    assert_eq!(names(&index, "orders"), ["new"]);
}

#[test]
fn a_new_list_shares_bindings_that_have_not_changed() {
    let index = filled([object("same", &json!({})), object("changed", &json!({}))]);
    let before = index.find("shop", "orders").unwrap();
    let mut follower = Follower::new(Arc::clone(&index));
    follow(&mut follower, Event::Init);
    follow(&mut follower, Event::InitApply(object("same", &json!({}))));
    follow(&mut follower, Event::InitApply(object("changed", &json!({"spec": {"injection": {"clientIDEnv": "ID"}}}))));
    follow(&mut follower, Event::InitDone);
    let after = index.find("shop", "orders").unwrap();
    assert_eq!(names(&index, "orders"), ["same", "changed"]);
    assert!(Arc::ptr_eq(&before[0], &after[0]));
    assert!(before[1] != after[1]);
}

#[test]
fn the_index_is_initialised_by_its_first_complete_list() {
    let index = Arc::new(Index::default());
    let mut follower = Follower::new(Arc::clone(&index));
    follow(&mut follower, Event::Init);
    follow(&mut follower, Event::InitApply(object("a", &json!({}))));
    assert!(!index.is_initialised());
    follow(&mut follower, Event::InitDone);
    assert!(index.is_initialised());
}

#[test]
fn a_malformed_binding_is_dropped_and_the_others_stay() {
    let index = filled([object("a", &json!({})), object("b", &json!({}))]);
    change(&index, Event::Apply(object("a", &json!({"spec": {"identityRef": 7}}))));
    assert_eq!(names(&index, "orders"), ["b"]);
    change(&index, Event::Delete(object("b", &json!({"spec": null}))));
    assert!(index.find("shop", "orders").is_none());
}

#[test]
fn bindings_to_one_identity_share_its_texts() {
    let status = json!({"status": {"clientID": "id", "tenantID": "tenant", "conditions": []}});
    let index = filled([object("one", &status), object("two", &status)]);
    let [one, two] = &index.find("shop", "orders").unwrap()[..] else { panic!("two bindings") };
    assert_eq!(one.identity, two.identity);
    assert!(Arc::ptr_eq(&one.identity, &two.identity));
}
