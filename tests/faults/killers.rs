//! Which plans should catch which mutant.

use ensign_mutants::Mutant;

/// Mutants of the part that `make test` runs.
pub const QUICK: &[Mutant] = &[Mutant::FinalizerAfterPut, Mutant::FreshnessSkipped, Mutant::ReleasedBeforeDelete];

/// Plans by name, or by the beginning of their name; the first that notices ends it.
pub fn of(mutant: Mutant) -> &'static [&'static str] {
    match mutant {
        Mutant::FinalizerAfterPut | Mutant::EverythingWrittenAgain | Mutant::StatusAlwaysWritten => {
            &["create/reference"]
        }
        Mutant::ForbiddenIsGone => &["forbidden-is-not-gone"],
        Mutant::UidIgnored => &["same-name-new-uid-unseen"],
        Mutant::RetryAfterIgnored => &["azure/get/429-seconds", "azure/put/429-seconds", "azure/delete/429-seconds"],
        Mutant::RefusedTokenKept => &["a-refused-token-is-refreshed-once"],
        Mutant::PauseForgotten => &["azure/list-1/503", "azure/list-5/503"],
        Mutant::LimitsForgotten => &["the-limits-are-kept"],
        Mutant::PartialListTrusted => &["azure/page-2-*"],
        Mutant::FreshnessSkipped => &["deleted-unseen", "revoked-unseen"],
        Mutant::OwnershipByPrefix => &["own-prefix-is-not-ownership"],
        Mutant::OwnershipWithoutIssuer => &["clone-of-a-cluster", "own-prefix-is-not-ownership"],
        Mutant::ReleasedBeforeDelete => &["delete/reference"],
        Mutant::AnyNotFoundIsGone => &["a-page-for-people-is-not-gone"],
        Mutant::LimitIgnored => &["quota/reference"],
        Mutant::DeleteBeforeCreate => &["create-goes-before-delete"],
        Mutant::ReadyBeforeConfirmed => &["locked", "azure/put/403"],
        Mutant::FailureNotRequeued => &["azure/get/500", "azure/list-1/500", "azure/delete/500"],
        Mutant::DuplicatesWrite => &["twins/reference"],
        Mutant::GrantNotRechecked => &["revoke/reference"],
        Mutant::AdoptedDeleted => &["adopt/reference"],
        Mutant::AudienceIgnored => &["audience/reference"],
        Mutant::ForeignOverwritten => &["taken-name-is-left"],
        Mutant::OldIssuerDroppedAtOnce => &["issuer/reference"],
        Mutant::LeadershipNotChecked => &["frozen-before-a-put"],
        Mutant::StandbyTrusted => &["a-new-leader-learns-what-its-watch-did-not-bring"],
        Mutant::IssuerBelievedAtOnce => &["an-issuer-seen-back-and-forth"],
        Mutant::TenantAbandons => &["tenants-cannot-abandon"],
        Mutant::IdentityTakenSilently | Mutant::OwnershipByClusterTag => &["an-identity-of-somebody-else-is-left"],
        Mutant::ForeignIdentityDeleted => &["an-identity-given-away-is-left"],
        Mutant::ReleasedBeforeIdentityDelete => &["a-deletion-of-an-identity-that-fails-holds-the-object"],
        Mutant::ClaimByName => &["a-claim-is-of-one-uid"],
        Mutant::ReclaimUnchecked => &["an-old-list-lacks-the-claimant"],
        Mutant::ForeignRoleDeleted | Mutant::EqualRoleUnseen => &["what-others-assigned-is-left"],
        Mutant::RolesLeft | Mutant::RoleBeforeRecord => &["roles/reference"],
        Mutant::RoleWildcardsIgnored => &["no-attempt-to-get-at-more-is-written"],
        Mutant::RoleFreshnessSkipped => {
            &["a-role-given-up-unseen-is-not-assigned", "a-role-asked-for-again-unseen-is-not-taken-away"]
        }
        Mutant::RoleDriftIgnored => &["a-role-removed-by-hand-is-given-again-once"],
        Mutant::InjectedTwice => &["create/reference"],
        Mutant::RefusalUnexplained => &["label/reference"],
    }
}
