//! Who injects: the API server by itself, or the webhook.

/// What the operator asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Policies, or no start at all.
    Policy,
    /// The webhook.
    Webhook,
    /// Policies where they can do all that is asked for, else the webhook.
    #[default]
    Auto,
}

/// Who injects.
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

/// Who injects, and why, or why what was asked for can't be. `shortfall` says why policies can't do it here, if so.
pub fn mode(choice: Choice, shortfall: Option<&str>) -> Result<(Mode, String), String> {
    match (choice, shortfall) {
        (Choice::Webhook, _) => Ok((Mode::Webhook, "it was asked for".to_owned())),
        (Choice::Policy, None) => Ok((Mode::Policy, "it was asked for".to_owned())),
        (Choice::Policy, Some(why)) => {
            Err(format!("injection by policies was asked for, but {why}; choose \"webhook\" or \"auto\""))
        }
        (Choice::Auto, None) => Ok((Mode::Policy, "the API server can inject by itself".to_owned())),
        (Choice::Auto, Some(why)) => Ok((Mode::Webhook, why.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_server_injects_where_it_can_and_the_webhook_where_not() {
        assert_eq!(mode(Choice::Auto, None).unwrap().0, Mode::Policy);
        let (mode, why) = mode(Choice::Auto, Some("it is old")).unwrap();
        assert_eq!((mode, why.as_str()), (Mode::Webhook, "it is old"));
    }

    #[test]
    fn what_was_asked_for_is_done_or_refused() {
        for shortfall in [None, Some("it is old")] {
            assert_eq!(mode(Choice::Webhook, shortfall).unwrap().0, Mode::Webhook);
        }
        assert_eq!(mode(Choice::Policy, None).unwrap().0, Mode::Policy);
        let refusal = mode(Choice::Policy, Some("it is old")).unwrap_err();
        assert!(refusal.contains("it is old") && refusal.contains("\"auto\""), "{refusal}");
    }
}
