//! The controller's own credential for ARM.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::error::{Error, ErrorKind};
use azure_core::time::OffsetDateTime;

use super::lock::lock;

/// Returns a token, or fails, and counts the requests.
#[derive(Debug)]
pub struct CountedCredential {
    token: String,
    asked: AtomicUsize,
    failing: Mutex<bool>,
}

impl CountedCredential {
    pub fn new(token: String) -> Self {
        Self { token, asked: AtomicUsize::new(0), failing: Mutex::new(false) }
    }

    /// How often a token was requested.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Makes Entra fail, or work again.
    pub fn fail(&self, failing: bool) {
        *lock(&self.failing) = failing;
    }
}

#[async_trait::async_trait]
impl TokenCredential for CountedCredential {
    async fn get_token(
        &self,
        _scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if *lock(&self.failing) {
            return Err(Error::with_message(ErrorKind::Credential, "AADSTS700016: scripted"));
        }
        let expires_on = OffsetDateTime::now_utc() + azure_core::time::Duration::hours(12);
        Ok(AccessToken::new(self.token.clone(), expires_on))
    }
}
