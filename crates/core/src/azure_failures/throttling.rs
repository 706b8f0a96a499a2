//! What a response with status 429 says: who throttles, in which scope, and for how long.
//!
//! Resource Manager throttles by subscription or tenant, with codes of its own, and whatever provider a request is for. A
//! provider names what it throttles in the text only: `Request is temporarily throttled because resource /subscriptions/… has
//! issued too many requests. Retry after 20 seconds.` (microsoft/onefuzz issue 249). Microsoft.Authorization also answers with
//! 17 bytes of text or HTML and `Retry-After`.

use std::time::Duration;

use crate::scheduling::rate_limiter::{Provider, Scope, Throttle, Throttler};

/// A longer pause in a text counts as a mistake, as in a header.
const MAX_PAUSE: Duration = Duration::from_secs(3600);

/// What a throttled request to this provider says; code and message are empty where the body is not ARM's envelope.
pub fn throttle(provider: Provider, code: &str, message: &str) -> Throttle {
    let text = message.to_ascii_lowercase();
    let names = |scope: &str| text.contains(&format!("requests for {scope} '"));
    let by_manager = match code {
        "SubscriptionRequestsThrottled" => Some(Scope::Subscription),
        "TenantRequestsThrottled" => Some(Scope::Tenant),
        _ if names("subscription") => Some(Scope::Subscription),
        _ if names("tenant") => Some(Scope::Tenant),
        _ => None,
    };
    if let Some(scope) = by_manager {
        return Throttle { by: Throttler::ResourceManager, scope };
    }
    match provider {
        Provider::ManagedIdentity => Throttle {
            by: Throttler::ManagedIdentity,
            // Without a name it is the narrowest: other identities find out for themselves.
            scope: named_by_provider(&text).unwrap_or(Scope::Identity),
        },
        // Nothing in Microsoft.Authorization belongs to one identity.
        Provider::Authorization => {
            let wide = named_by_provider(&text).filter(|scope| *scope != Scope::Identity);
            Throttle { by: Throttler::Authorization, scope: wide.unwrap_or(Scope::Subscription) }
        }
    }
}

/// The scope in `because resource /subscriptions/… has issued too many requests`.
fn named_by_provider(text: &str) -> Option<Scope> {
    let (_, named) = text.split_once("because ")?;
    let (named, _) = named.split_once(" has issued too many requests")?;
    let (kind, name) = named.split_once(' ')?;
    let segments = name.trim_matches('/').split('/').count();
    match kind {
        "tenant" => Some(Scope::Tenant),
        "subscription" => Some(Scope::Subscription),
        "resource" if name.starts_with("/subscriptions/") && segments == 2 => Some(Scope::Subscription),
        "resource" => Some(Scope::Identity),
        _ => None,
    }
}

/// The pause that a text asks for: `Retry after 20 seconds`, `Please try again after '10' seconds`.
pub fn pause(message: &str) -> Option<Duration> {
    let text = message.to_ascii_lowercase();
    let seconds = text.split("after ").skip(1).find_map(|rest| {
        let rest = rest.trim_start_matches(['\'', '"']);
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = rest.split_at(digits);
        let unit = unit.trim_start_matches(['\'', '"', ' ']);
        let number: u64 = number.parse().ok()?;
        match unit {
            _ if unit.starts_with("second") => Some(number),
            _ if unit.starts_with("minute") => number.checked_mul(60),
            _ => None,
        }
    })?;
    (seconds > 0).then(|| Duration::from_secs(seconds).min(MAX_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_ONE: &str = "Request is temporarily throttled because resource /subscriptions/s/resourcegroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders has issued too many requests. Retry after 20 seconds.";
    const OF_SUBSCRIPTION: &str =
        "Number of 'read' requests for subscription 's' actor 'o' exceeded. Please try again after '10' seconds.";

    #[test]
    fn the_scope_that_azure_names_is_the_one_that_is_paused() {
        let (identities, roles) = (Provider::ManagedIdentity, Provider::Authorization);
        let of = |kind: &str| {
            OF_ONE.replace("resource /subscriptions/s/resourcegroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders", kind)
        };
        let cases = [
            (identities, "", OF_ONE.to_owned(), Throttler::ManagedIdentity, Scope::Identity),
            (identities, "", of("subscription /subscriptions/s"), Throttler::ManagedIdentity, Scope::Subscription),
            (identities, "", of("resource /subscriptions/s"), Throttler::ManagedIdentity, Scope::Subscription),
            (identities, "", of("tenant t"), Throttler::ManagedIdentity, Scope::Tenant),
            (identities, "TooManyRequests", String::new(), Throttler::ManagedIdentity, Scope::Identity),
            (identities, "", OF_SUBSCRIPTION.to_owned(), Throttler::ResourceManager, Scope::Subscription),
            (identities, "TenantRequestsThrottled", String::new(), Throttler::ResourceManager, Scope::Tenant),
            (roles, "SubscriptionRequestsThrottled", String::new(), Throttler::ResourceManager, Scope::Subscription),
            (roles, "", String::new(), Throttler::Authorization, Scope::Subscription),
            (roles, "ResourceRequestsThrottled", OF_ONE.to_owned(), Throttler::Authorization, Scope::Subscription),
            (roles, "", of("tenant t"), Throttler::Authorization, Scope::Tenant),
        ];
        for (provider, code, message, by, scope) in cases {
            assert_eq!(throttle(provider, code, &message), Throttle { by, scope }, "{provider:?} {code} {message}");
        }
    }

    #[test]
    fn a_pause_in_the_text_is_read_in_each_form() {
        let cases = [
            (OF_ONE, Some(20)),
            (OF_SUBSCRIPTION, Some(10)),
            ("Retry after 1 second.", Some(1)),
            ("Retry after 2 minutes.", Some(120)),
            ("After the pause, retry after 5 seconds", Some(5)),
            ("Retry after 999999 seconds.", Some(3600)),
            ("Retry after 99999999999999999999999 seconds.", None),
            ("Retry after 0 seconds.", None),
            ("Retry after a while.", None),
            ("Too Many Requests", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(pause(text), expected.map(Duration::from_secs), "{text}");
        }
    }
}
