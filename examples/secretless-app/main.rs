//! A program that has no secret: it asks Entra for an Azure token with nothing but what its pod was given.
//!
//! Nothing here knows of Ensign. `WorkloadIdentityCredential` reads `AZURE_CLIENT_ID`, `AZURE_TENANT_ID`,
//! `AZURE_FEDERATED_TOKEN_FILE` and `AZURE_AUTHORITY_HOST`, sends the pod's own service account token to Entra and
//! gets an Azure token back. A real application would hand the credential to a client of Azure Storage or Key Vault;
//! this one prints what Entra says it is: the claims of the token, never the token.

// An example's output is its purpose, and a reader should not need a logging set-up to follow it.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::error::Error;
use std::process::ExitCode;

use azure_core::base64;
use azure_core::credentials::TokenCredential;
use azure_core::http::{ClientOptions, ExponentialRetryOptions, RetryOptions};
use azure_identity::{ClientAssertionCredentialOptions, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions};
use serde_json::{Map, Value, json};

const SCOPE: &str = "https://management.azure.com/.default";
const USAGE: &str = "usage: secretless-app [-o text|json]";
/// The SDK's own default is 8, which lets an unreachable authority take more than a minute to be reported.
const MAX_RETRIES: u32 = 2;

#[derive(Clone, Copy)]
enum Format {
    Text,
    Json,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(format) = parse(&arguments) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    // Two TLS providers can end up in one program; rustls wants to be told which one to use.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();

    match claims_of_my_token().await {
        Ok(claims) => {
            show(format, &claims);
            ExitCode::SUCCESS
        }
        Err(error) => {
            refuse(format, error.as_ref());
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Option<Format> {
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["-o", "text"] => Some(Format::Text),
        ["-o", "json"] => Some(Format::Json),
        _ => None,
    }
}

async fn claims_of_my_token() -> Result<Map<String, Value>, Box<dyn Error>> {
    let retry = ExponentialRetryOptions { max_retries: MAX_RETRIES, ..Default::default() };
    let client_options = ClientOptions { retry: RetryOptions::exponential(retry), ..Default::default() };
    let credential = WorkloadIdentityCredential::new(Some(WorkloadIdentityCredentialOptions {
        credential_options: ClientAssertionCredentialOptions { client_options },
        ..Default::default()
    }))?;
    let token = credential.get_token(&[SCOPE], None).await?;
    claims(token.token.secret())
}

/// The claims of a token, unverified: only the service that the token is for can and has to verify them.
fn claims(token: &str) -> Result<Map<String, Value>, Box<dyn Error>> {
    let payload = token.split('.').nth(1).ok_or("Entra's answer is not a JWT")?;
    Ok(serde_json::from_slice(&base64::decode_url_safe(payload)?)?)
}

fn show(format: Format, claims: &Map<String, Value>) {
    match format {
        Format::Json => println!("{}", json!({"ok": true, "sdk": "azure_identity for Rust", "claims": claims})),
        Format::Text => {
            println!("Entra gave me a token, for nothing but my service account's. It says:");
            for (name, value) in claims {
                println!("  {name}: {value}");
            }
        }
    }
}

fn refuse(format: Format, error: &dyn Error) {
    // The SDK's errors carry their sources' text already.
    match format {
        Format::Json => {
            println!("{}", json!({"ok": false, "sdk": "azure_identity for Rust", "error": error.to_string()}));
        }
        Format::Text => eprintln!("no token: {error}"),
    }
}
