//! A row of the table of ARM's errors, and the error that it is compared with.

use std::ops::RangeInclusive;

use super::operation::Operation;
use ensign_api::ArmId;
use ensign_api::conditions::Reason;

/// An error response, or an error within one.
#[derive(Clone, Copy)]
pub(super) struct Refused<'a> {
    pub(super) operation: Operation,
    pub(super) id: &'a ArmId,
    /// The status of the whole response.
    pub(super) status: u16,
    /// Empty where the response was not ARM's error envelope, such as a proxy's page.
    pub(super) code: &'a str,
    pub(super) message: &'a str,
    /// Whether it was in `details` of another error. It has no status of its own then.
    pub(super) inner: bool,
    pub(super) own_client_id: Option<&'a str>,
}

impl Refused<'_> {
    /// Whether the message contains this text, given in lower case.
    pub(super) fn says(self, text: &str) -> bool {
        self.message.to_ascii_lowercase().contains(text)
    }

    /// The controller's own identity, for commands.
    pub(super) fn assignee(&self) -> &str {
        self.own_client_id.unwrap_or("<client ID of the controller>")
    }
}

/// A row of the table: an error that it describes, and what it means.
pub(super) struct Row {
    operations: Operations,
    statuses: RangeInclusive<u16>,
    codes: Codes,
    /// What else has to hold.
    also: Option<fn(Refused<'_>) -> bool>,
    pub(super) reason: Reason,
    pub(super) cure: Cure,
}

/// The operations that a row is about.
pub(super) enum Operations {
    Any,
    Only(&'static [Operation]),
}

/// The error codes that a row is about.
pub(super) enum Codes {
    /// Also of a response that is not ARM's envelope.
    Any,
    /// Any code, but one of ARM's envelope.
    Envelope,
    Only(&'static [&'static str]),
}

/// What failed and who has to do what.
pub(super) enum Cure {
    Text(&'static str),
    Of(fn(Refused<'_>) -> String),
}

impl Row {
    pub(super) const fn new(
        operations: Operations,
        statuses: RangeInclusive<u16>,
        codes: Codes,
        reason: Reason,
        cure: Cure,
    ) -> Self {
        Self { operations, statuses, codes, also: None, reason, cure }
    }

    pub(super) const fn when(self, also: fn(Refused<'_>) -> bool) -> Self {
        Self { also: Some(also), ..self }
    }

    pub(super) fn matches(&self, refused: Refused<'_>) -> bool {
        let operation = match self.operations {
            Operations::Any => true,
            Operations::Only(these) => these.contains(&refused.operation),
        };
        let code = match self.codes {
            Codes::Any => true,
            Codes::Envelope => !refused.code.is_empty(),
            Codes::Only(these) => these.iter().any(|code| code.eq_ignore_ascii_case(refused.code)),
        };
        // What is gone is only believed of the response itself: an inner error may be about another resource.
        let place = if refused.inner {
            self.reason != Reason::IdentityNotFound
        } else {
            self.statuses.contains(&refused.status)
        };
        operation && code && place && self.also.is_none_or(|also| also(refused))
    }
}

impl Cure {
    pub(super) fn words(&self, refused: Refused<'_>) -> String {
        match self {
            Self::Text(text) => (*text).to_owned(),
            Self::Of(words) => words(refused),
        }
    }
}
