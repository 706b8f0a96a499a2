//! `ensign check --exchange`: whether Entra exchanges a token of a binding's service account, and if not, why.
//!
//! Resource Manager and Entra are two systems: a credential that the first one has may take minutes to reach the second one, and
//! in rare cases never does, until it is deleted and created again (Azure/azure-workload-identity issue 1200).

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::check::Check;
use super::entra_codes::{self, Meaning};
use crate::credentials::ownership::Credential;
use crate::credentials::plan::{az_create, az_delete};
use ensign_api::{ArmId, CredentialOrigin, NamespacedName};

const CHECK: &str = "exchange";
/// A credential that Entra does not know after this time is not on its way any more. The first one of an identity takes up to
/// two minutes, and others seconds.
const PROPAGATES_WITHIN: Duration = Duration::from_secs(10 * 60);

/// What Entra answered to an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exchanged {
    /// A token, which is not kept.
    Token,
    /// An error.
    Refused {
        /// Its code, if it has one.
        code: Option<u32>,
        /// Its text, without what changes from one response to the next.
        text: String,
    },
    /// There was no answer of Entra.
    NoAnswer(String),
}

impl Exchanged {
    /// Whether Entra knows no credential for the token. Some of two percent of exchanges fail like this although it does
    /// (kedacore/keda issue 8152), so one such answer says little.
    pub fn is_no_trust(&self) -> bool {
        let Self::Refused { code: Some(number), .. } = self else { return false };
        entra_codes::find(*number).is_some_and(|code| code.meaning == Meaning::NoTrust)
    }
}

/// What was tried.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The binding.
    pub binding: &'a NamespacedName,
    /// The identity's client ID.
    pub client_id: &'a str,
    /// Issuer, subject and audience of the token. The name is that in the binding's status, if there is one.
    pub wanted: &'a Credential,
    /// Who created the credential in the binding's status, and since when Azure is known to have it.
    pub recorded: Option<(CredentialOrigin, Timestamp)>,
    /// The identity in Azure, if it is known.
    pub identity: Option<&'a ArmId>,
}

/// Judges an exchange. `in_arm` is what Resource Manager lists under the identity, or why it can't be listed; it is only needed
/// if Entra knows no credential.
pub fn judge(
    attempt: &Attempt<'_>,
    answer: &Exchanged,
    in_arm: Option<&Result<Vec<Credential>, String>>,
    now: Timestamp,
) -> Check {
    let Attempt { binding, client_id, wanted, .. } = attempt;
    let (number, text) = match answer {
        Exchanged::Token => {
            return Check::ok(CHECK, format!("{binding}: Entra issues a token of {client_id} to {}", wanted.subject));
        }
        Exchanged::NoAnswer(problem) => {
            let said = format!("{binding}: no answer of Entra: {problem}");
            return Check::fail(CHECK, said, "check egress, --https-proxy, --azure-ca-file and --azure-cloud");
        }
        Exchanged::Refused { code, text } => (*code, text),
    };
    let Some(code) = number.and_then(entra_codes::find) else {
        let cure = "see docs/troubleshooting.md, and https://login.microsoftonline.com/error for the code";
        return Check::fail(CHECK, format!("{binding}: Entra issues no token: {text}"), cure);
    };
    if code.meaning == Meaning::NoTrust {
        return no_trust(attempt, text, in_arm, now);
    }
    Check::fail(CHECK, format!("{binding}: {} ({text})", code.says), code.cure)
}

fn no_trust(
    attempt: &Attempt<'_>,
    text: &str,
    in_arm: Option<&Result<Vec<Credential>, String>>,
    now: Timestamp,
) -> Check {
    let Attempt { binding, wanted, identity, .. } = attempt;
    let (Some(id), Some(Ok(listed))) = (identity, in_arm) else {
        let problem = match in_arm {
            Some(Err(problem)) => problem.as_str(),
            _ => "the identity is not known",
        };
        let said = format!(
            "{binding}: Entra knows no such credential ({text}); whether Azure has it can't be read from here: {problem}"
        );
        let cure = "run this with permission to read the identity's credentials, or compare them with `az identity federated-credential list`";
        return Check::fail(CHECK, said, cure);
    };
    let matches = |one: &&Credential| {
        (&one.issuer, &one.subject, &one.audiences) == (&wanted.issuer, &wanted.subject, &wanted.audiences)
    };
    match listed.iter().find(matches) {
        Some(found) => unknown_to_entra(attempt, id, found, text, now),
        None => Check::fail(
            CHECK,
            format!(
                "{binding}: no credential of {id} trusts {} of issuer {} for {} ({text}){}",
                wanted.subject,
                wanted.issuer,
                wanted.audiences.join(", "),
                nearest(wanted, listed)
            ),
            format!(
                "see the condition CredentialReady of the binding: `kubectl describe managedidentitybinding {} --namespace {}`",
                binding.name, binding.namespace
            ),
        ),
    }
}

/// Azure has the credential, and Entra does not know it.
fn unknown_to_entra(attempt: &Attempt<'_>, id: &ArmId, found: &Credential, text: &str, now: Timestamp) -> Check {
    let Attempt { binding, recorded, .. } = attempt;
    let name = &found.name;
    let age = recorded.map(|(_, since)| Duration::try_from(now.duration_since(since)).unwrap_or_default());
    if let Some(age) = age.filter(|age| *age < PROPAGATES_WITHIN) {
        let left = PROPAGATES_WITHIN.saturating_sub(age).as_secs().div_ceil(60);
        return Check::warn(
            CHECK,
            format!(
                "{binding}: Azure has credential {name} since {} s, and Entra does not know it yet ({text})",
                age.as_secs()
            ),
            format!("wait, and run this again; if it is still so in {left} min, the result will say what to do"),
        );
    }
    let since = age.map_or_else(|| "for an unknown time".to_owned(), |age| format!("for {} min", age.as_secs() / 60));
    let created = matches!(recorded, Some((CredentialOrigin::Created, _)));
    let again = if created {
        "which Ensign then creates again, at the next drift check or after `kubectl rollout restart deployment/ensign-controller --namespace ensign-system`".to_owned()
    } else {
        format!("and then {}", az_create(id, found))
    };
    Check::fail(
        CHECK,
        format!("{binding}: Azure has credential {name} {since}, and Entra does not know it ({text})"),
        format!(
            "Entra learns of it only if it is deleted and created again: an Azure administrator runs {}, {again}",
            az_delete(id, name)
        ),
    )
}

/// What comes closest among the credentials, and how it differs.
fn nearest(wanted: &Credential, listed: &[Credential]) -> String {
    let same_subject = listed.iter().find(|one| one.subject == wanted.subject);
    match same_subject {
        Some(one) if one.issuer != wanted.issuer => {
            format!("; {} trusts that subject of issuer {}", one.name, one.issuer)
        }
        Some(one) => format!("; {} trusts it for {}", one.name, one.audiences.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::SignedDuration;

    use super::*;
    use crate::commands::check::CheckResult;

    const ID: &str = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders";

    fn credential() -> Credential {
        Credential {
            name: "ensign-c".to_owned(),
            issuer: "https://i.example".to_owned(),
            subject: "system:serviceaccount:shop:app".to_owned(),
            audiences: vec!["api://AzureADTokenExchange".to_owned()],
        }
    }

    fn refused(number: u32) -> Exchanged {
        Exchanged::Refused { code: Some(number), text: format!("AADSTS{number}: no") }
    }

    /// The result for a credential that is known for some minutes, or not recorded.
    fn check(
        answer: &Exchanged,
        in_arm: Option<&Result<Vec<Credential>, String>>,
        recorded: Option<(CredentialOrigin, i64)>,
    ) -> (CheckResult, String) {
        let now = Timestamp::UNIX_EPOCH.saturating_add(SignedDuration::from_hours(24)).unwrap();
        let since = |minutes| now.saturating_sub(SignedDuration::from_mins(minutes)).unwrap();
        let (binding, id) = (NamespacedName::new("shop", "orders"), ID.parse().unwrap());
        let attempt = Attempt {
            binding: &binding,
            client_id: "c0ffee",
            wanted: &credential(),
            recorded: recorded.map(|(origin, minutes)| (origin, since(minutes))),
            identity: Some(&id),
        };
        let Check { outcome, said, cure, .. } = judge(&attempt, answer, in_arm, now);
        assert!(said.contains("shop/orders"), "{said}");
        assert_eq!(outcome == CheckResult::Ok, cure.is_none(), "whatever does not work has a cure");
        (outcome, format!("{said} -> {}", cure.unwrap_or_default()))
    }

    #[test]
    fn a_token_is_a_success() {
        let (outcome, said) = check(&Exchanged::Token, None, None);
        assert!(outcome == CheckResult::Ok && said.contains("c0ffee"), "{said}");
    }

    #[test]
    fn a_credential_that_entra_does_not_know_yet_is_waited_for() {
        for number in [70021, 70025, 700_211, 700_212, 700_213] {
            let listed = Ok(vec![credential()]);
            let (outcome, said) = check(&refused(number), Some(&listed), Some((CredentialOrigin::Created, 3)));
            assert_eq!(outcome, CheckResult::Warn, "{said}");
            assert!(said.contains("since 180 s") && said.contains("7 min"), "{said}");
            assert!(!said.contains("delete"), "{said}");
        }
    }

    #[test]
    fn a_credential_that_entra_never_learnt_is_deleted_and_created_again() {
        let listed = Ok(vec![credential()]);
        let delete = "`az identity federated-credential delete --subscription 00000000-0000-0000-0000-000000000001 --resource-group rg --identity-name orders --name ensign-c --yes`";
        let (outcome, said) = check(&refused(700_213), Some(&listed), Some((CredentialOrigin::Created, 90)));
        assert!(outcome == CheckResult::Fail && said.contains("for 90 min") && said.contains(delete), "{said}");
        assert!(said.contains("kubectl rollout restart deployment/ensign-controller"), "{said}");
        for recorded in [Some((CredentialOrigin::Adopted, 90)), None] {
            let (outcome, said) = check(&refused(700_213), Some(&listed), recorded);
            assert!(outcome == CheckResult::Fail && said.contains(delete), "{said}");
            assert!(said.contains("az identity federated-credential create"), "Ensign does not create it: {said}");
        }
    }

    #[test]
    fn a_credential_that_azure_does_not_have_is_not_entras_fault() {
        let other = Credential { issuer: "https://i.example/".to_owned(), ..credential() };
        let (outcome, said) = check(&refused(700_211), Some(&Ok(vec![other])), Some((CredentialOrigin::Created, 90)));
        assert!(outcome == CheckResult::Fail && said.contains("of issuer https://i.example/"), "{said}");
        assert!(said.contains("kubectl describe managedidentitybinding orders --namespace shop"), "{said}");
        let audience = Credential { audiences: vec!["other".to_owned()], ..credential() };
        let (_, said) = check(&refused(700_212), Some(&Ok(vec![audience])), None);
        assert!(said.contains("trusts it for other") && !said.contains("delete"), "{said}");
        assert_eq!(check(&refused(70025), Some(&Ok(Vec::new())), None).0, CheckResult::Fail);
    }

    #[test]
    fn without_a_look_at_azure_nobody_is_told_to_delete_anything() {
        for in_arm in [Some(Err("HTTP 403".to_owned())), None] {
            let (outcome, said) = check(&refused(700_213), in_arm.as_ref(), Some((CredentialOrigin::Created, 90)));
            assert!(outcome == CheckResult::Fail && !said.contains("delete"), "{said}");
        }
    }

    #[test]
    fn other_errors_say_what_they_mean() {
        for (answer, part) in [
            (refused(90061), "public https address"),
            (refused(50166), "public https address"),
            (refused(501_661), "public https address"),
            (refused(7_000_112), "disabled"),
            (refused(500_011), "--azure-cloud"),
            (refused(424_242), "docs/troubleshooting.md"),
            (Exchanged::Refused { code: None, text: "HTTP 503".to_owned() }, "HTTP 503"),
            (Exchanged::NoAnswer("timed out".to_owned()), "timed out"),
        ] {
            let (outcome, said) = check(&answer, None, None);
            assert!(outcome == CheckResult::Fail && said.contains(part), "{said}");
            assert!(!answer.is_no_trust());
        }
        assert!(refused(700_213).is_no_trust());
    }
}
