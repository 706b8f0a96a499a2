//! Failed requests to Azure Resource Manager: facts in, a condition's reason and its words out.
//!
//! `azure_failures/refusals.rs` is the one table of Azure's errors. A new error is a row there.

mod operation;
mod refusals;
mod row;
mod throttling;

use std::time::Duration;

pub use self::operation::Operation;
use self::refusals::{BY_CODE_OR_TEXT, BY_STATUS};
use self::row::{Refused, Row};
pub use self::throttling::{pause, throttle};
use crate::acceptance::scopes;
use crate::failure::Failure;
use crate::scheduling::rate_limiter::Deferral;
use ensign_api::ArmId;
use ensign_api::conditions::Reason;

/// Longest part of a foreign message that reaches a status, in characters.
const MAX_FOREIGN_MESSAGE: usize = 400;

/// How a request to ARM failed.
#[derive(Debug, thiserror::Error)]
pub enum ArmErrorCause {
    /// ARM answered with an error.
    #[error("HTTP {status} {code}: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// ARM's error code; empty when the response was not ARM's error envelope.
        code: String,
        /// ARM's message.
        message: String,
        /// The errors within it, the outer ones first.
        details: Vec<ErrorDetail>,
        /// How long ARM asked to wait.
        retry_after: Option<Duration>,
    },
    /// The response could not be parsed.
    #[error("the response could not be parsed: {0}")]
    Unreadable(String),
    /// Nothing was sent: what the request is about, an ARM ID, is outside the scopes that Ensign is limited to.
    #[error("not sent: {0} is outside --azure-allowed-scopes")]
    OutOfScope(String),
    /// Ensign got no token for itself. Only the text of the SDK's error is kept: the error holds the whole response, which may
    /// contain a token.
    #[error("no token for the controller's own identity: {0}")]
    Credential(String),
    /// No connection, or no response.
    #[error("no response: {0}")]
    Transport(String),
    /// No response in time.
    #[error("no response within {} s", .0.as_secs())]
    Deadline(Duration),
    /// Not sent: a rate limit or a pause that Azure asked for is in effect.
    #[error("not sent; may be sent in {} s", .0.wait().as_secs())]
    NotSent(Deferral),
}

/// An error within an error response. A provider wraps what another one refused, such as Azure Policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorDetail {
    /// Its code.
    pub code: String,
    /// Its message.
    pub message: String,
}

/// The failure as a condition reports it. The text is the same for the same problem, so that status does not churn.
pub fn judge(operation: Operation, id: &ArmId, cause: &ArmErrorCause, own_client_id: Option<&str>) -> Failure {
    let doing = operation.describe();
    let (reason, message, retry_after) = match cause {
        ArmErrorCause::Refused { status, code, message, details, retry_after } => {
            let refused = Refused { operation, id, status: *status, code, message, inner: false, own_client_id };
            let (reason, text) = judge_refused(refused, details);
            (reason, text, retry_after.or_else(|| pause(message).filter(|_| matches!(status, 429 | 503))))
        }
        ArmErrorCause::Unreadable(_) => {
            (Reason::AzureUnavailable, format!("{doing} {id}: Azure's response could not be parsed; retrying"), None)
        }
        ArmErrorCause::OutOfScope(outside) => (Reason::ScopeNotAllowed, out_of_scope(operation, id, outside), None),
        ArmErrorCause::Credential(error) => {
            let text = format!("the controller gets no token for its own identity: {}", without_variable_parts(error));
            (Reason::CredentialUnavailable, text, None)
        }
        ArmErrorCause::Transport(_) | ArmErrorCause::Deadline(_) => {
            (Reason::AzureUnavailable, format!("{doing} {id}: Azure can't be reached; retrying"), None)
        }
        ArmErrorCause::NotSent(Deferral::Paused { wait, reason, message }) => (*reason, message.clone(), Some(*wait)),
        ArmErrorCause::NotSent(Deferral::RateLimited { wait }) => {
            (Reason::Throttled, format!("{doing} {id}: waiting for Azure rate-limit budget"), Some(*wait))
        }
    };
    Failure { reason, message, retry_after }
}

fn out_of_scope(operation: Operation, id: &ArmId, outside: &str) -> String {
    if Operation::ALL.contains(&operation) {
        return scopes::outside(id);
    }
    format!(
        "{} {id}: {outside} is outside the scopes that this controller is restricted to, so nothing is read, written or deleted there. An administrator of Ensign has to add it, its resource group or its subscription to --azure-allowed-scopes, or to --allowed-role-scopes",
        operation.describe()
    )
}

/// What an error response means. An error within it decides where the outer one says nothing in particular.
fn judge_refused(outer: Refused<'_>, details: &[ErrorDetail]) -> (Reason, String) {
    let known = |refused: Refused<'_>| BY_CODE_OR_TEXT.iter().flat_map(|rows| *rows).find(|row| row.matches(refused));
    let inner = details.iter().filter(|_| (400..500).contains(&outer.status)).map(|detail| Refused {
        code: &detail.code,
        message: &detail.message,
        inner: true,
        ..outer
    });
    let found = std::iter::once(outer).chain(inner).find_map(|refused| Some((refused, known(refused)?)));
    let row = found.or_else(|| Some((outer, BY_STATUS.iter().find(|row| row.matches(outer))?)));
    let Some((refused, Row { reason, cure, .. })) = row else {
        // What no row describes is a server error, which passes.
        let (doing, id) = (outer.operation.describe(), outer.id);
        return (Reason::AzureUnavailable, format!("{doing} {id}: Azure returned a server error; retrying"));
    };
    let (doing, id, cure) = (refused.operation.describe(), refused.id, cure.words(refused));
    let text = match reason {
        Reason::Throttled => throttle(refused.operation.kind().provider(), refused.code, refused.message).message(id),
        // Azure's own words change from one response to the next.
        Reason::ConcurrentWrites | Reason::AzureUnavailable => format!("{doing} {id}: {cure}"),
        _ => format!("{doing} {id}: {cure} ({}: {})", shorten(refused.code), shorten(refused.message)),
    };
    (*reason, text)
}

/// Entra's message without its times and trace ID, which differ each time.
pub fn without_variable_parts(message: &str) -> String {
    let end = [" Trace ID:", " Current time:"].iter().filter_map(|from| message.find(from)).min();
    shorten(&message[..end.unwrap_or(message.len())])
}

fn shorten(text: &str) -> String {
    let mut short: String = text.chars().filter(|c| !c.is_control()).take(MAX_FOREIGN_MESSAGE).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
#[path = "azure_failures_tests.rs"]
mod tests;
