//! The stand-in over HTTP: reading requests, fetching issuers' keys, signing, logging and failing on purpose.

mod arm;
mod control;
mod discovery;
mod exchange;
pub mod faults;
mod front;
mod issuer;
pub mod log;
mod protected;
mod signing;
mod token;

use std::time::Instant;

use parking_lot::Mutex;

pub(super) use front::router;
pub(super) use issuer::{InvalidCertificate, Issuers};
pub(super) use signing::{Signer, SigningFailed};

use super::state::arm::{ArmError, Caller, Operation, Throttle};
use super::state::entra::{AccessClaims, Principal};
use super::state::{ADMINISTRATOR, Defaults, InvalidDocument, State, StateDocument};
use ensign_runtime::clock::SharedClock;
use faults::FaultPlan;
use log::RequestLog;

/// What every request handler shares.
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// What a reset goes back to.
    pub(super) initial: StateDocument,
    pub(super) defaults: Defaults,
    pub(super) log: Mutex<RequestLog>,
    pub(super) faults: Mutex<FaultPlan>,
    pub(super) signer: Signer,
    pub(super) issuers: Issuers,
    /// `https://127.0.0.1:PORT`
    pub(super) base_url: String,
    pub(super) clock: SharedClock,
    /// Azure's limits on requests, where they are enforced.
    pub(super) limits: Mutex<Option<Limits>>,
}

/// Azure's limits on requests, as time goes by on a clock.
pub(super) struct Limits {
    throttle: Throttle,
    clock: SharedClock,
    begun: Instant,
}

impl Limits {
    /// Nobody has asked for anything yet.
    pub(super) fn new(clock: SharedClock) -> Self {
        Self { throttle: Throttle::default(), begun: clock.monotonic(), clock }
    }

    /// Counts a request, or refuses it if there were too many.
    fn admit(&mut self, operation: &Operation, caller: &Caller) -> Result<(), ArmError> {
        let now = self.clock.monotonic().saturating_duration_since(self.begun);
        self.throttle.admit(operation, &caller.object_id, now)
    }
}

impl Shared {
    /// Replaces the whole state. Writes that are under way go on, and end in the new one.
    pub(super) fn set_state(&self, document: StateDocument) -> Result<(), InvalidDocument> {
        let state = document.into_state(&self.defaults, self.clock.now())?;
        self.state.lock().replace(state);
        self.issuers.forget();
        Ok(())
    }

    /// A token for ARM with all rights, and when it expires.
    pub(super) fn administrator_token(&self) -> Result<(String, i64), SigningFailed> {
        let claims: AccessClaims = {
            let state = self.state.lock();
            let principal = Principal {
                tenant_id: &state.tenant_id,
                client_id: ADMINISTRATOR,
                object_id: ADMINISTRATOR,
                arm_id: None,
            };
            principal.claims(&state, "https://management.azure.com", &self.base_url, self.clock.now())
        };
        Ok((self.signer.sign(&claims)?, claims.exp))
    }
}
