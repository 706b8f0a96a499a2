//! Which plans have to catch which mutant.

use ensign_mutants::Mutant;

/// The mutants that `make test` runs.
pub const QUICK: &[Mutant] = &[Mutant::FinalizerAfterPut, Mutant::FreshnessSkipped, Mutant::ReleasedBeforeDelete];

/// Plans by ID, or by the beginning of their ID; they run until one catches the mutant.
pub fn of(mutant: Mutant) -> &'static [&'static str] {
    match mutant {
        Mutant::FinalizerAfterPut | Mutant::EverythingWrittenAgain | Mutant::StatusAlwaysWritten => {
            &["create/reference"]
        }
        Mutant::ForbiddenIsGone => &["forbidden-does-not-mean-deleted"],
        Mutant::UidIgnored => &["same-name-new-uid-unseen"],
        Mutant::RetryAfterIgnored => &["azure/get/429-seconds", "azure/put/429-seconds", "azure/delete/429-seconds"],
        Mutant::RefusedTokenKept => &["a-refused-token-is-refreshed-once"],
        Mutant::PauseForgotten => &["azure/list-1/503", "azure/list-5/503"],
        Mutant::LimitsForgotten => &["rate-limits-are-respected"],
        Mutant::PartialListTrusted => &["azure/page-2-*"],
        Mutant::FreshnessSkipped => &["deleted-unseen", "revoked-unseen"],
        Mutant::OwnershipByPrefix => &["own-prefix-is-not-ownership"],
        Mutant::OwnershipWithoutIssuer => &["cloned-cluster", "own-prefix-is-not-ownership"],
        Mutant::ReleasedBeforeDelete => &["delete/reference"],
        Mutant::AnyNotFoundIsGone => &["an-html-404-does-not-mean-deleted"],
        Mutant::AbsenceBelieved => &["a-get-that-never-finds-the-identity-causes-no-write-storm"],
        Mutant::ReleasedWithoutDelete => &["a-stale-list-releases-nothing", "a-missing-identity-releases-nothing"],
        Mutant::ListFailsAsAWhole => &["foreign-credentials-of-any-shape"],
        Mutant::LimitIgnored => &["quota/reference"],
        Mutant::DeleteBeforeCreate => &["create-precedes-delete"],
        Mutant::ReadyBeforeConfirmed => &["resource-lock", "azure/put/403"],
        Mutant::FailureNotRequeued => &["azure/get/500", "azure/list-1/500", "azure/delete/500"],
        Mutant::DuplicatesWrite => &["twins/reference"],
        Mutant::GrantNotRechecked => &["revoke/reference"],
        Mutant::AdoptedDeleted => &["adopt/reference"],
        Mutant::AudienceIgnored => &["audience/reference"],
        Mutant::ForeignOverwritten => &["a-foreign-credential-under-our-name-is-unchanged"],
        Mutant::OldIssuerDroppedAtOnce => &["issuer/reference"],
        Mutant::LeadershipNotChecked => &["paused-before-a-put"],
        Mutant::StandbyTrusted => &["a-new-leader-reads-what-its-watch-did-not-deliver"],
        Mutant::IssuerBelievedAtOnce => &["an-alternating-issuer"],
        Mutant::TenantAbandons => &["tenants-cannot-abandon"],
        Mutant::IdentityTakenSilently | Mutant::OwnershipByClusterTag => &["a-foreign-identity-is-unchanged"],
        Mutant::ForeignIdentityDeleted => &["an-identity-with-a-new-owner-is-unchanged"],
        Mutant::ReleasedBeforeIdentityDelete => &["a-failing-identity-deletion-keeps-the-object"],
        Mutant::ClaimByName => &["a-claim-belongs-to-one-uid"],
        Mutant::ReclaimUnchecked => &["an-old-list-lacks-the-claimant"],
        Mutant::ForeignRoleDeleted | Mutant::EqualRoleUnseen => &["foreign-role-assignments-are-unchanged"],
        Mutant::RolesLeft | Mutant::RoleBeforeRecord => &["roles/reference"],
        Mutant::RoleWildcardsIgnored => &["privilege-escalation-is-never-written"],
        Mutant::RoleFreshnessSkipped => {
            &["a-role-removed-unseen-is-not-assigned", "a-role-restored-unseen-is-not-unassigned"]
        }
        Mutant::RoleDriftIgnored => &["a-deleted-role-assignment-is-recreated-once"],
        Mutant::InjectedTwice => &["create/reference"],
        Mutant::RefusalUnexplained => &["label/reference"],
    }
}
