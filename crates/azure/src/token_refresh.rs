//! Replaces a token that ARM rejects before it expires.
//!
//! Two caches keep a token until shortly before it expires: that of the SDK's policy, which drops a rejected token, and
//! that of the SDK's credential, which does not. So the credential is created again.

use std::fmt;
use std::sync::Arc;

use azure_core::credentials::{AccessToken, Secret, TokenCredential, TokenRequestOptions};
use azure_core::http::Request;
use azure_core::http::headers::AUTHORIZATION;
use parking_lot::Mutex;

/// The token that ARM rejected, in the context of the request for another one.
#[derive(Debug)]
pub(super) struct RejectedToken(Secret);

impl RejectedToken {
    /// The token of a request.
    pub(super) fn of(request: &Request) -> Option<Self> {
        let header = request.headers().get_optional_str(&AUTHORIZATION)?;
        Some(Self(Secret::new(header.strip_prefix("Bearer ")?.to_owned())))
    }
}

type Create = dyn Fn() -> azure_core::Result<Arc<dyn TokenCredential>> + Send + Sync;

/// A credential that is created again when its token was rejected.
pub(super) struct RenewableCredential {
    create: Box<Create>,
    state: Mutex<State>,
}

struct State {
    credential: Arc<dyn TokenCredential>,
    /// The last token that it returned.
    issued: Option<Secret>,
}

impl RenewableCredential {
    pub(super) fn new(
        create: impl Fn() -> azure_core::Result<Arc<dyn TokenCredential>> + Send + Sync + 'static,
    ) -> azure_core::Result<Self> {
        let state = State { credential: create()?, issued: None };
        Ok(Self { create: Box::new(create), state: Mutex::new(state) })
    }

    /// The credential to use: a new one if the current one returned the rejected token. Of many requests with the same
    /// token, only the first creates one.
    fn credential(&self, rejected: Option<&RejectedToken>) -> azure_core::Result<Arc<dyn TokenCredential>> {
        let mut state = self.state.lock();
        if let Some(RejectedToken(rejected)) = rejected
            && state.issued.as_ref() == Some(rejected)
        {
            *state = State { credential: (self.create)()?, issued: None };
            tracing::info!("ARM rejected the controller's token before it expired; requesting a new one");
        }
        Ok(state.credential.clone())
    }
}

#[async_trait::async_trait]
impl TokenCredential for RenewableCredential {
    async fn get_token(
        &self,
        scopes: &[&str],
        options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let rejected = options.as_ref().and_then(|options| options.method_options.context.value::<RejectedToken>());
        let credential = self.credential(rejected)?;
        let token = credential.get_token(scopes, options).await?;
        self.state.lock().issued = Some(token.token.clone());
        Ok(token)
    }
}

impl fmt::Debug for RenewableCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RenewableCredential").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use azure_core::http::{ClientMethodOptions, Context};
    use azure_core::time::OffsetDateTime;

    use super::*;

    /// Always returns the same token.
    #[derive(Debug)]
    struct Cached(String);

    #[async_trait::async_trait]
    impl TokenCredential for Cached {
        async fn get_token(&self, _: &[&str], _: Option<TokenRequestOptions<'_>>) -> azure_core::Result<AccessToken> {
            Ok(AccessToken::new(self.0.clone(), OffsetDateTime::now_utc() + azure_core::time::Duration::hours(1)))
        }
    }

    fn numbered() -> RenewableCredential {
        let created = AtomicUsize::new(0);
        RenewableCredential::new(move || {
            let number = created.fetch_add(1, Ordering::SeqCst);
            Ok(Arc::new(Cached(format!("token-{number}"))))
        })
        .unwrap()
    }

    async fn ask(credential: &RenewableCredential, rejected: Option<&str>) -> String {
        let mut context = Context::new();
        if let Some(rejected) = rejected {
            context.insert(RejectedToken(Secret::new(rejected.to_owned())));
        }
        let options = TokenRequestOptions { method_options: ClientMethodOptions { context } };
        credential.get_token(&["scope"], Some(options)).await.unwrap().token.secret().to_owned()
    }

    #[tokio::test]
    async fn a_rejected_token_is_replaced_once_for_all_requests_that_carried_it() {
        let credential = numbered();
        assert_eq!(ask(&credential, None).await, "token-0");
        assert_eq!(ask(&credential, Some("token-0")).await, "token-1");
        assert_eq!(ask(&credential, Some("token-0")).await, "token-1", "a late rejection of the old one");
        assert_eq!(ask(&credential, None).await, "token-1");
    }

    #[test]
    fn the_token_of_a_request_is_read_and_never_shown() {
        let mut request = Request::new("https://arm.example/".parse().unwrap(), azure_core::http::Method::Get);
        assert!(RejectedToken::of(&request).is_none());
        request.insert_header(AUTHORIZATION, "Bearer canary");
        let rejected = RejectedToken::of(&request).unwrap();
        assert_eq!(rejected.0.secret(), "canary");
        assert!(!format!("{rejected:?}").contains("canary"));
    }
}
