//! Seeded mistakes: the fault tests turn on one at a time and have to notice.
//!
//! The released source contains none of them. Each is a file of `changes/`, which the fault runner applies to a copy of the
//! workspace (`dev/ensign_dev/mutants.py`); in that copy the changed lines ask this crate whether their mistake is on.
//!
//! A switch belongs to a thread, so that controllers with different mistakes run side by side, each on a runtime of one
//! thread.

use std::cell::Cell;

macro_rules! mutants {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal,)*) => {
        /// A seeded mistake.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mutant { $($(#[doc = $doc])* $name,)* }

        impl Mutant {
            /// Every mutant.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name, and that of its file in `changes/`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

mutants! {
    /// The finalizer is set after the writes to Azure.
    FinalizerAfterPut = "finalizer-after-put",
    /// A refused LIST is read as a missing identity.
    ForbiddenIsGone = "forbidden-is-gone",
    /// A finalizer goes from an object whose UID nobody compared, and the cache is trusted whatever its UID.
    UidIgnored = "uid-ignored",
    /// A token that Azure refuses is used on.
    RefusedTokenKept = "refused-token-kept",
    /// Azure's wish for a pause is not heard.
    RetryAfterIgnored = "retry-after-ignored",
    /// An event brings requests before a pause is over.
    PauseForgotten = "pause-forgotten",
    /// Requests go out beyond Azure's limits.
    LimitsForgotten = "limits-forgotten",
    /// A page that fails ends the list instead of failing it.
    PartialListTrusted = "partial-list-trusted",
    /// Writes go out on the word of the cache.
    FreshnessSkipped = "freshness-skipped",
    /// A name that begins like ours is ours.
    OwnershipByPrefix = "ownership-by-prefix",
    /// A name that recomputes is ours, whatever its issuer.
    OwnershipWithoutIssuer = "ownership-without-issuer",
    /// The finalizer goes before Azure has confirmed the DELETE.
    ReleasedBeforeDelete = "released-before-delete",
    /// What a read does not show is gone, even right after it was written.
    AbsenceBelieved = "absence-believed",
    /// A credential that no LIST shows is not deleted with its binding.
    ReleasedWithoutDelete = "released-without-delete",
    /// A credential without a subject makes all others of its LIST unreadable.
    ListFailsAsAWhole = "list-fails-as-a-whole",
    /// A 404 of something in between is read as a missing identity.
    AnyNotFoundIsGone = "any-not-found-is-gone",
    /// Azure's limit is not planned with.
    LimitIgnored = "limit-ignored",
    /// Deletes go before the writes that they need not wait for.
    DeleteBeforeCreate = "delete-before-create",
    /// Status says Ready before Azure confirmed.
    ReadyBeforeConfirmed = "ready-before-confirmed",
    /// A reconcile that failed is not tried again.
    FailureNotRequeued = "failure-not-requeued",
    /// Every object on an identity acts as its owner.
    DuplicatesWrite = "duplicates-write",
    /// A grant is looked at once and never again.
    GrantNotRechecked = "grant-not-rechecked",
    /// An adopted credential is deleted with its binding.
    AdoptedDeleted = "adopted-deleted",
    /// A credential with the wrong audience counts.
    AudienceIgnored = "audience-ignored",
    /// A name that somebody else took is overwritten.
    ForeignOverwritten = "foreign-overwritten",
    /// Every look writes every credential again.
    EverythingWrittenAgain = "everything-written-again",
    /// The old issuer's credentials go with the change.
    OldIssuerDroppedAtOnce = "old-issuer-dropped-at-once",
    /// Status is written at each look.
    StatusAlwaysWritten = "status-always-written",
    /// Writes go out, and on, whether or not the controller leads.
    LeadershipNotChecked = "leadership-not-checked",
    /// What a standby has seen counts as all there is when it comes to lead.
    StandbyTrusted = "standby-trusted",
    /// A new issuer is believed when it is first seen.
    IssuerBelievedAtOnce = "issuer-believed-at-once",
    /// A tenant's annotation gives up what Azure did not confirm.
    TenantAbandons = "tenant-abandons",
    /// An identity that somebody else made is taken as the object's own.
    IdentityTakenSilently = "identity-taken-silently",
    /// An identity is the object's own by the cluster's tag alone.
    OwnershipByClusterTag = "ownership-by-cluster-tag",
    /// An identity is deleted with its object, whosever it is.
    ForeignIdentityDeleted = "foreign-identity-deleted",
    /// The object goes before Azure has confirmed that the identity is gone.
    ReleasedBeforeIdentityDelete = "released-before-identity-delete",
    /// A claim is the binding's of that name, whatever its UID.
    ClaimByName = "claim-by-name",
    /// The object of a binding that the cache does not have goes without a look at the API server.
    ReclaimUnchecked = "reclaim-unchecked",
    /// Every role assignment of an identity is the object's own.
    ForeignRoleDeleted = "foreign-role-deleted",
    /// A role that somebody else assigned already is assigned once more.
    EqualRoleUnseen = "equal-role-unseen",
    /// An object goes and leaves its role assignments behind.
    RolesLeft = "roles-left",
    /// A role is assigned before the finalizer and the record of it.
    RoleBeforeRecord = "role-before-record",
    /// A star in a role's actions stands for itself.
    RoleWildcardsIgnored = "role-wildcards-ignored",
    /// Roles are assigned and taken away on the word of the cache.
    RoleFreshnessSkipped = "role-freshness-skipped",
    /// A role that was assigned once counts as assigned.
    RoleDriftIgnored = "role-drift-ignored",
    /// A pod that has an identity gets it once more.
    InjectedTwice = "injected-twice",
    /// A pod is refused without the reason that its binding has.
    RefusalUnexplained = "refusal-unexplained",
}

thread_local! {
    static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Turns a mistake on for this thread, or all off.
pub fn activate(mutant: Option<Mutant>) {
    ACTIVE.set(mutant);
}

/// Whether the mistake is on in this thread.
pub fn is_active(mutant: Mutant) -> bool {
    ACTIVE.get() == Some(mutant)
}
