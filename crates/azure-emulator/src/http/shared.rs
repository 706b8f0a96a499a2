//! What every request handler shares.

use std::time::Instant;

use parking_lot::Mutex;

use super::faults::FaultPlan;
use super::issuer::Issuers;
use super::log::RequestLog;
use super::signing::{Signer, SigningFailed};
use crate::state::arm::{ArmError, Caller, Operation, Throttle};
use crate::state::entra::{AccessClaims, Principal};
use crate::state::{ADMINISTRATOR, Defaults, InvalidDocument, State, StateDocument};
use ensign_runtime::clock::SharedClock;

/// The emulator's parts.
pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    /// The state after a reset.
    pub(crate) initial: StateDocument,
    pub(crate) defaults: Defaults,
    pub(crate) log: Mutex<RequestLog>,
    pub(crate) faults: Mutex<FaultPlan>,
    pub(crate) signer: Signer,
    pub(crate) issuers: Issuers,
    /// `https://127.0.0.1:PORT`
    pub(crate) base_url: String,
    pub(crate) clock: SharedClock,
    /// The clock by which reads lag.
    pub(crate) lag_clock: Mutex<SharedClock>,
    /// Azure's rate limits, if they are enforced.
    pub(crate) limits: Mutex<Option<Limits>>,
}

/// Azure's rate limits, by a clock.
pub(crate) struct Limits {
    throttle: Throttle,
    clock: SharedClock,
    started: Instant,
}

impl Limits {
    /// The limits before any request.
    pub(crate) fn new(clock: SharedClock) -> Self {
        Self { throttle: Throttle::default(), started: clock.monotonic(), clock }
    }

    /// Counts a request, or rejects it if there were too many.
    pub(super) fn admit(&mut self, operation: &Operation, caller: &Caller) -> Result<(), ArmError> {
        let now = self.clock.monotonic().saturating_duration_since(self.started);
        self.throttle.admit(operation, &caller.object_id, now)
    }
}

impl Shared {
    /// Replaces the whole state. Writes in progress continue, and end in the new one.
    pub(crate) fn set_state(&self, document: StateDocument) -> Result<(), InvalidDocument> {
        let state = document.into_state(&self.defaults, self.clock.now())?;
        self.state.lock().replace(state);
        self.issuers.forget();
        Ok(())
    }

    /// A token for ARM with all rights, and when it expires.
    pub(crate) fn administrator_token(&self) -> Result<(String, i64), SigningFailed> {
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
