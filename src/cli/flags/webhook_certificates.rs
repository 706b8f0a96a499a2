//! Flags that say where the webhook's certificates come from.

use std::path::PathBuf;
use std::time::Duration;

use ensign_webhook::certificates::{Certificates, SharedSecret};

/// An API server acts on a changed registration within seconds; an hour is for those that are cut off.
const PROPAGATION_SECONDS: std::ops::RangeInclusive<u64> = 1..=3_600;

/// Where certificates come from. Each flag is also an environment variable.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct CertificateArgs {
    /// Secret in that namespace that the webhook fills with its certificates; it has to exist
    #[arg(long, env = "ENSIGN_TLS_SECRET", default_value = "ensign-webhook-tls", value_name = "NAME")]
    tls_secret: String,
    /// Directory with tls.crt, tls.key and ca.crt that somebody else keeps, instead of that Secret
    #[arg(long, env = "ENSIGN_TLS_CERT_DIR", value_name = "DIRECTORY")]
    tls_cert_dir: Option<PathBuf>,
    /// Name of the MutatingWebhookConfiguration that says whom API servers trust
    #[arg(long, env = "ENSIGN_WEBHOOK_CONFIGURATION", default_value = "ensign", value_name = "NAME")]
    webhook_configuration: String,
    /// Seconds that a new certificate authority has to be registered before it signs
    #[arg(long, env = "ENSIGN_CA_PROPAGATION_SECONDS", default_value_t = 300, value_name = "SECONDS")]
    ca_propagation_seconds: u64,
}

impl CertificateArgs {
    /// What is wrong with the flags.
    pub(in crate::cli) fn problems(&self) -> Vec<String> {
        let (least, most) = (PROPAGATION_SECONDS.start(), PROPAGATION_SECONDS.end());
        let unusable = !PROPAGATION_SECONDS.contains(&self.ca_propagation_seconds);
        unusable.then(|| format!("--ca-propagation-seconds must be {least} to {most}")).into_iter().collect()
    }

    /// Names of Kubernetes objects among the flags.
    pub(in crate::cli) fn names(&self) -> [(&'static str, &str); 2] {
        [("--tls-secret", &self.tls_secret), ("--webhook-configuration", &self.webhook_configuration)]
    }

    /// Flags to meaning.
    pub(in crate::cli) fn certificates(&self, namespace: &str) -> Certificates {
        match &self.tls_cert_dir {
            Some(path) => Certificates::Directory(path.clone()),
            None => Certificates::Shared(SharedSecret {
                namespace: namespace.to_owned(),
                name: self.tls_secret.clone(),
                registration: self.webhook_configuration.clone(),
                propagation: Duration::from_secs(self.ca_propagation_seconds),
            }),
        }
    }
}
