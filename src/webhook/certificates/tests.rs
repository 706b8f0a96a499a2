use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::jiff::Timestamp;
use rustls::crypto::{CryptoProvider, aws_lc_rs};

use super::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

fn names() -> Vec<String> {
    ["ensign-webhook.ensign-system.svc", "127.0.0.1"].map(str::to_owned).to_vec()
}

fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

fn issue() -> Bundle {
    Bundle::default().repaired(None, &names(), now(), &provider()).unwrap().0
}

fn check(bundle: &Bundle, at: Timestamp) -> Result<Option<Fault>, Fault> {
    bundle.check(&names(), at, &provider()).map(|usable| usable.wanting)
}

fn entries(bundle: &Bundle) -> BTreeMap<String, ByteString> {
    let mut data = BTreeMap::new();
    bundle.write(&mut data);
    data
}

/// The bundle with one entry taken from another, or emptied.
fn with(bundle: &Bundle, key: &str, other: Option<&Bundle>) -> Bundle {
    let mut data = entries(bundle);
    let value = other.map(|other| entries(other)[key].clone()).unwrap_or_default();
    data.insert(key.to_owned(), value);
    Bundle::read(Some(&data))
}

#[test]
fn a_new_bundle_is_valid_for_every_name() {
    assert_eq!(check(&issue(), now()), Ok(None));
}

#[test]
fn a_bundle_is_read_back_from_its_secret_unchanged_and_other_entries_stay() {
    let bundle = issue();
    let mut data = BTreeMap::from([("other".to_owned(), ByteString(b"kept".to_vec()))]);
    bundle.write(&mut data);
    assert_eq!(Bundle::read(Some(&data)), bundle);
    assert_eq!(data["other"].0, b"kept");
}

#[test]
fn a_secret_without_data_or_with_empty_entries_is_empty() {
    assert_eq!(check(&Bundle::read(None), now()), Err(Fault::Empty));
    let empty = [CERTIFICATE_KEY, PRIVATE_KEY_KEY].map(|key| (key.to_owned(), ByteString::default()));
    assert_eq!(check(&Bundle::read(Some(&empty.into())), now()), Err(Fault::Empty));
}

#[test]
fn clients_whose_clocks_are_slightly_behind_accept_a_new_certificate() {
    assert_eq!(check(&issue(), now() - Duration::from_secs(50 * 60)), Ok(None));
}

#[test]
fn a_certificate_from_the_future_is_not_valid_now() {
    assert_eq!(check(&issue(), now() - DAY), Err(Fault::NotValidNow));
}

#[test]
fn an_expired_certificate_is_not_valid_now() {
    assert_eq!(check(&issue(), now() + DAY * 91), Err(Fault::NotValidNow));
}

#[test]
fn a_certificate_that_expires_soon_can_be_served_but_should_be_replaced() {
    assert_eq!(check(&issue(), now() + DAY * 59), Ok(None));
    assert_eq!(check(&issue(), now() + DAY * 61), Ok(Some(Fault::EndsSoon)));
}

#[test]
fn a_certificate_that_lacks_a_name_reports_which() {
    let more = [names(), vec!["new.example".to_owned()]].concat();
    let wanting = issue().check(&more, now(), &provider()).unwrap().wanting;
    assert_eq!(wanting, Some(Fault::LacksName { name: "new.example".to_owned() }));
}

#[test]
fn a_certificate_of_another_ca_is_not_signed() {
    assert_eq!(check(&with(&issue(), CA_CERTIFICATE_KEY, Some(&issue())), now()), Err(Fault::NotSigned));
}

#[test]
fn a_key_of_another_certificate_does_not_match() {
    assert_eq!(check(&with(&issue(), PRIVATE_KEY_KEY, Some(&issue())), now()), Err(Fault::KeyMismatch));
}

#[test]
fn an_entry_that_is_missing_or_invalid_is_named() {
    for entry in [CA_CERTIFICATE_KEY, CERTIFICATE_KEY, PRIVATE_KEY_KEY] {
        assert_eq!(check(&with(&issue(), entry, None), now()), Err(Fault::Unreadable { entry }));
        let mut data = entries(&issue());
        data.insert(entry.to_owned(), ByteString(b"garbage".to_vec()));
        assert_eq!(check(&Bundle::read(Some(&data)), now()), Err(Fault::Unreadable { entry }));
    }
}

#[test]
fn a_bundle_without_the_ca_key_can_be_served_and_is_external() {
    let foreign = with(&issue(), CA_PRIVATE_KEY_KEY, None);
    assert_eq!(check(&foreign, now()), Ok(None));
    assert!(foreign.is_foreign(&provider()));
    assert!(!issue().is_foreign(&provider()));
    assert!(!Bundle::default().is_foreign(&provider()));
}

#[test]
fn an_expired_leaf_is_replaced_under_the_same_ca() {
    let old = issue();
    let later = now() + DAY * 100;
    let (new, usable) = old.repaired(None, &names(), later, &provider()).unwrap();
    assert_eq!(new.ca_certificate(), old.ca_certificate(), "clients keep trusting it");
    assert_ne!(new, old);
    assert!(usable.wanting.is_none());
}

#[test]
fn a_new_name_is_added_under_the_same_ca() {
    let old = issue();
    let more = [names(), vec!["new.example".to_owned()]].concat();
    let (new, _) = old.repaired(None, &more, now(), &provider()).unwrap();
    assert_eq!(new.ca_certificate(), old.ca_certificate());
    assert!(new.check(&more, now(), &provider()).unwrap().wanting.is_none());
}

#[test]
fn an_emptied_secret_gets_back_the_served_bundle() {
    let served = issue();
    let (restored, _) = Bundle::default().repaired(Some(&served), &names(), now(), &provider()).unwrap();
    assert_eq!(restored, served);
}

#[test]
fn an_emptied_secret_gets_a_new_ca_once_the_served_bundle_has_expired() {
    let served = issue();
    let later = now() + DAY * 100;
    let (fresh, _) = Bundle::default().repaired(Some(&served), &names(), later, &provider()).unwrap();
    assert_ne!(fresh.ca_certificate(), served.ca_certificate());
    assert_eq!(check(&fresh, later), Ok(None));
}

#[test]
fn a_ca_whose_key_does_not_match_is_replaced() {
    let broken = with(&issue(), CA_PRIVATE_KEY_KEY, Some(&issue()));
    let (fresh, _) = broken.repaired(None, &names(), now() + DAY * 100, &provider()).unwrap();
    assert_ne!(fresh.ca_certificate(), broken.ca_certificate());
    assert_eq!(check(&fresh, now() + DAY * 100), Ok(None));
}

#[test]
fn a_bundle_with_two_cas_trusts_both_and_signs_with_the_first() {
    let (new, old) = (issue(), issue());
    let mut data = entries(&new);
    let both = [new.ca_certificate(), old.ca_certificate()].concat();
    data.insert(CA_CERTIFICATE_KEY.to_owned(), ByteString(both.clone()));
    for key in [CERTIFICATE_KEY, PRIVATE_KEY_KEY] {
        data.insert(key.to_owned(), entries(&old)[key].clone());
    }
    let overlapping = Bundle::read(Some(&data));
    assert_eq!(check(&overlapping, now()), Ok(None), "the old leaf is still trusted");
    let (renewed, _) = overlapping.repaired(None, &names(), now(), &provider()).unwrap();
    assert_eq!(renewed.ca_certificate(), both);
    assert_eq!(check(&with(&renewed, CA_CERTIFICATE_KEY, Some(&new)), now()), Ok(None), "the new one has signed");
}

/// Shortly before the CA expires, so that a new leaf is cut short.
fn much_later() -> Timestamp {
    now() + DAY * (10 * 365 - 20)
}

#[test]
fn an_expired_ca_is_not_trusted_as_on_an_api_server() {
    let (old, later) = (issue(), now() + DAY * (10 * 365 + 1));
    let young = Bundle::default().repaired(None, &names(), later, &provider()).unwrap().0;
    let mixed = with(&young, CA_CERTIFICATE_KEY, Some(&old));
    assert_eq!(check(&mixed, later), Err(Fault::AuthorityNotValidNow));
    let (fresh, _) = old.repaired(Some(&old), &names(), later, &provider()).unwrap();
    assert_ne!(fresh.ca_certificate(), old.ca_certificate());
    assert_eq!(check(&fresh, later), Ok(None));
}

#[test]
fn a_leaf_does_not_outlive_its_ca() {
    let renewed = issue().with_new_leaf(&names(), much_later()).unwrap();
    let usable = renewed.check(&names(), much_later(), &provider()).unwrap();
    assert_eq!(usable.leaf.until, usable.authority.until);
}

#[test]
fn at_every_step_of_a_ca_rotation_clients_one_step_behind_or_ahead_trust_the_leaf() {
    let first = issue();
    let prepared = first.prepared(now()).unwrap();
    let switched = prepared.switched(&names(), now()).unwrap();
    let pruned = switched.pruned();
    let steps = [first, prepared, switched, pruned];
    for (index, step) in steps.iter().enumerate() {
        assert_eq!(check(step, now()), Ok(None), "step {index}");
    }
    for (before, after) in steps.iter().zip(&steps[1..]) {
        assert_eq!(check(&with(before, CA_CERTIFICATE_KEY, Some(after)), now()), Ok(None));
        assert_eq!(check(&with(after, CA_CERTIFICATE_KEY, Some(before)), now()), Ok(None));
    }
    let states: Vec<_> = steps.iter().map(|step| (step.successor().is_some(), step.has_predecessors())).collect();
    assert_eq!(states, [(false, false), (true, false), (false, true), (false, false)]);
    let stale = with(&steps[3], CA_CERTIFICATE_KEY, Some(&steps[0]));
    assert_eq!(check(&stale, now()), Err(Fault::NotSigned), "it is another CA");
}

#[test]
fn a_leaf_renewed_while_a_next_ca_is_prepared_is_signed_by_the_current_ca() {
    let prepared = issue().prepared(now()).unwrap();
    let (renewed, _) = prepared.repaired(None, &names(), now() + DAY * 61, &provider()).unwrap();
    assert_eq!(renewed.successor(), prepared.successor());
    assert_eq!(check(&with(&renewed, CA_CERTIFICATE_KEY, Some(&prepared.pruned())), now() + DAY * 61), Ok(None));
}

#[test]
fn the_next_ca_takes_over_from_one_whose_key_is_lost() {
    let prepared = issue().prepared(now()).unwrap();
    let broken = with(&prepared, CA_PRIVATE_KEY_KEY, None);
    assert!(!broken.is_foreign(&provider()));
    let (repaired, _) = broken.repaired(None, &names(), now() + DAY * 100, &provider()).unwrap();
    assert!(repaired.ca_certificate().len() == prepared.ca_certificate().len(), "clients keep trusting it");
    assert_eq!(repaired.successor(), None);
}

#[test]
fn the_key_of_the_next_ca_is_removed_from_its_entry_with_the_switch() {
    let prepared = issue().prepared(now()).unwrap();
    let mut data = entries(&prepared);
    assert!(data.contains_key(NEXT_CA_PRIVATE_KEY_KEY));
    assert_eq!(Bundle::read(Some(&data)), prepared);
    prepared.switched(&names(), now()).unwrap().write(&mut data);
    assert!(!data.contains_key(NEXT_CA_PRIVATE_KEY_KEY));
}

#[test]
fn the_expiry_of_the_loaded_certificates_is_reported() {
    let resolver = Resolver::new(Arc::new(provider()));
    assert_eq!(resolver.expiry(), None);
    resolver.load(&issue().check(&names(), now(), &provider()).unwrap());
    let expiry = resolver.expiry().unwrap();
    assert_eq!(expiry.leaf, now() + DAY * 90);
    assert_eq!(expiry.authority, now() + DAY * 3650);
}

#[test]
fn the_debug_form_hides_the_keys() {
    let bundle = issue();
    let debug = format!("{bundle:?}");
    assert!(debug.contains("BEGIN CERTIFICATE") && !debug.contains("PRIVATE KEY"), "{debug}");
}
