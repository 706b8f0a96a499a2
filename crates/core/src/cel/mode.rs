//! What injects pods: the API server or the webhook.

/// The configured injection mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Policies; the controller does not start if that is not possible.
    Policy,
    /// The webhook.
    Webhook,
    /// Policies if the API server supports them, otherwise the webhook.
    #[default]
    Auto,
}

/// What injects pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The API server, by admission policies.
    Policy,
    /// The webhook.
    Webhook,
}

impl Mode {
    /// The mode's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Webhook => "webhook",
        }
    }
}

/// The mode and the reason for it, or an error if the configured one is not possible. `shortfall` is why policies can't
/// inject in this cluster, if they can't.
pub fn mode(choice: Choice, shortfall: Option<&str>) -> Result<(Mode, String), String> {
    match (choice, shortfall) {
        (Choice::Webhook, _) => Ok((Mode::Webhook, "configured explicitly".to_owned())),
        (Choice::Policy, None) => Ok((Mode::Policy, "configured explicitly".to_owned())),
        (Choice::Policy, Some(why)) => {
            Err(format!("injection by policies is configured, but {why}; choose \"webhook\" or \"auto\""))
        }
        (Choice::Auto, None) => Ok((Mode::Policy, "the API server supports it".to_owned())),
        (Choice::Auto, Some(why)) => Ok((Mode::Webhook, why.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_selects_policies_if_the_api_server_supports_them_and_otherwise_the_webhook() {
        assert_eq!(mode(Choice::Auto, None).unwrap().0, Mode::Policy);
        let (mode, why) = mode(Choice::Auto, Some("it is old")).unwrap();
        assert_eq!((mode, why.as_str()), (Mode::Webhook, "it is old"));
    }

    #[test]
    fn the_configured_mode_is_used_or_rejected() {
        for shortfall in [None, Some("it is old")] {
            assert_eq!(mode(Choice::Webhook, shortfall).unwrap().0, Mode::Webhook);
        }
        assert_eq!(mode(Choice::Policy, None).unwrap().0, Mode::Policy);
        let error = mode(Choice::Policy, Some("it is old")).unwrap_err();
        assert!(error.contains("it is old") && error.contains("\"auto\""), "{error}");
    }
}
