//! A program without a secret: it requests an Azure token from Entra with nothing but what its pod was given.
//!
//! Nothing here depends on Ensign. `WorkloadIdentityCredential` reads `AZURE_CLIENT_ID`, `AZURE_TENANT_ID`,
//! `AZURE_FEDERATED_TOKEN_FILE` and `AZURE_AUTHORITY_HOST`, sends the pod's own service account token to Entra and
//! gets an Azure token back. A real application would hand the credential to a client of Azure Storage or Key Vault;
//! this one prints the claims of the token, never the token. Given the URL of a blob, it also reads or writes the blob
//! and prints the response of Azure Storage: authentication and authorization are two different things.

// An example's output is its purpose, and a reader should not need a logging set-up to follow it.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use azure_core::base64;
use azure_core::credentials::{AccessToken, TokenCredential};
use azure_core::http::{ClientOptions, ExponentialRetryOptions, Method, Request, RetryOptions, Url, new_http_client};
use azure_identity::{ClientAssertionCredentialOptions, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions};
use serde_json::{Map, Value, json};

const SCOPE: &str = "https://management.azure.com/.default";
const STORAGE_SCOPE: &str = "https://storage.azure.com/.default";
const STORAGE_VERSION: &str = "2023-11-03";
const STORAGE_TIMEOUT: Duration = Duration::from_secs(30);
const USAGE: &str = "usage: secretless-app [read|write BLOB-URL] [-o text|json]";
/// The SDK's own default is 8, which lets an unreachable authority take more than a minute to be reported.
const MAX_RETRIES: u32 = 2;

#[derive(Clone, Copy)]
enum Format {
    Text,
    Json,
}

/// What to do with a blob.
struct Blob {
    method: Method,
    url: Url,
}

/// The responses of Entra and Azure Storage.
struct Answer {
    claims: Map<String, Value>,
    /// The HTTP status of Azure Storage and its error code, if a blob was requested.
    storage: Option<(u16, Option<String>)>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((blob, format)) = parse(&arguments) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    // Two TLS providers can end up in one program, so rustls has to know which one to use.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();

    match ask(blob).await {
        Ok(answer) => {
            show(format, &answer);
            if answer.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            refuse(format, error.as_ref());
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Option<(Option<Blob>, Format)> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (blob, rest) = match words[..] {
        ["read", url, ref rest @ ..] => (Some(Blob { method: Method::Get, url: url.parse().ok()? }), rest),
        ["write", url, ref rest @ ..] => (Some(Blob { method: Method::Put, url: url.parse().ok()? }), rest),
        ref rest => (None, rest),
    };
    match rest {
        [] | ["-o", "text"] => Some((blob, Format::Text)),
        ["-o", "json"] => Some((blob, Format::Json)),
        _ => None,
    }
}

async fn ask(blob: Option<Blob>) -> Result<Answer, Box<dyn Error>> {
    let retry = ExponentialRetryOptions { max_retries: MAX_RETRIES, ..Default::default() };
    let client_options = ClientOptions { retry: RetryOptions::exponential(retry), ..Default::default() };
    let credential = WorkloadIdentityCredential::new(Some(WorkloadIdentityCredentialOptions {
        credential_options: ClientAssertionCredentialOptions { client_options },
        ..Default::default()
    }))?;
    let scope = if blob.is_some() { STORAGE_SCOPE } else { SCOPE };
    let token = credential.get_token(&[scope], None).await?;
    let storage = match blob {
        Some(blob) => Some(tokio::time::timeout(STORAGE_TIMEOUT, blob.ask(&token)).await??),
        None => None,
    };
    Ok(Answer { claims: claims(token.token.secret())?, storage })
}

impl Blob {
    /// The status and the error code of Azure Storage's response. A real application would use its SDK.
    async fn ask(self, token: &AccessToken) -> Result<(u16, Option<String>), Box<dyn Error>> {
        let mut request = Request::new(self.url, self.method);
        request.insert_header("authorization", format!("Bearer {}", token.token.secret()));
        request.insert_header("x-ms-version", STORAGE_VERSION);
        if self.method == Method::Put {
            request.insert_header("x-ms-blob-type", "BlockBlob");
            request.set_body("written without a secret\n");
        }
        let response = new_http_client(None).execute_request(&request).await?;
        let code = response.headers().get_optional_string(&"x-ms-error-code".into());
        Ok((u16::from(response.status()), code))
    }
}

impl Answer {
    fn is_good(&self) -> bool {
        self.storage.as_ref().is_none_or(|(status, _)| (200..300).contains(status))
    }
}

/// The claims of a token, unverified: only the service that the token is for can and has to verify them.
fn claims(token: &str) -> Result<Map<String, Value>, Box<dyn Error>> {
    let payload = token.split('.').nth(1).ok_or("Entra's answer is not a JWT")?;
    Ok(serde_json::from_slice(&base64::decode_url_safe(payload)?)?)
}

fn show(format: Format, answer: &Answer) {
    let claims = &answer.claims;
    match format {
        Format::Json => {
            let mut shown = json!({"ok": answer.is_good(), "sdk": "azure_identity for Rust", "claims": claims});
            if let Some((status, code)) = &answer.storage {
                shown["storage"] = json!({"status": status, "code": code});
            }
            println!("{shown}");
        }
        Format::Text => {
            println!("Entra exchanged my service account token for an Azure token. Its claims:");
            for (name, value) in claims {
                println!("  {name}: {value}");
            }
            if let Some((status, code)) = &answer.storage {
                println!("Azure Storage responds {status} {}", code.as_deref().unwrap_or_default());
            }
        }
    }
}

fn refuse(format: Format, error: &dyn Error) {
    // The SDK's errors already contain the text of their sources.
    match format {
        Format::Json => {
            println!("{}", json!({"ok": false, "sdk": "azure_identity for Rust", "error": error.to_string()}));
        }
        Format::Text => eprintln!("no token: {error}"),
    }
}
