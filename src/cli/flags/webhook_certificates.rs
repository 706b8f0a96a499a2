//! Flags of the webhook's certificates.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use crate::cli::usage_errors::Problems;
use ensign_runtime::duration_arg::DurationArg;
use ensign_webhook::certificates::{Certificates, SharedSecret};

/// An API server uses a changed webhook configuration within seconds; an hour is for one that was disconnected.
const CA_PROPAGATION_DELAY: RangeInclusive<DurationArg> = DurationArg::from_secs(1)..=DurationArg::from_secs(3_600);

/// Where certificates come from. Each flag is also an environment variable.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct CertificateArgs {
    /// Name of the Secret, in Ensign's namespace, where the webhook stores its certificates; it has to exist
    #[arg(long, env = "ENSIGN_TLS_SECRET", default_value = "ensign-webhook-tls", value_name = "NAME")]
    tls_secret: String,
    /// Directory with tls.crt, tls.key and ca.crt that another program manages, instead of that Secret
    #[arg(long, env = "ENSIGN_TLS_CERT_DIR", value_name = "DIRECTORY")]
    tls_cert_dir: Option<PathBuf>,
    /// Name of the MutatingWebhookConfiguration with the CA that API servers trust
    #[arg(long, env = "ENSIGN_WEBHOOK_CONFIGURATION", default_value = "ensign", value_name = "NAME")]
    webhook_configuration: String,
    /// How long a new CA is in the webhook configuration before it signs certificates, 1s to 1h
    #[arg(long, env = "ENSIGN_CA_PROPAGATION_DELAY", default_value_t = DurationArg::from_secs(300), value_name = "DURATION")]
    ca_propagation_delay: DurationArg,
}

impl CertificateArgs {
    /// Validates the flags.
    pub(in crate::cli) fn check(&self, problems: &mut Problems) {
        problems.dns_name("--tls-secret", &self.tls_secret);
        problems.dns_name("--webhook-configuration", &self.webhook_configuration);
        problems.within("--ca-propagation-delay", &self.ca_propagation_delay, &CA_PROPAGATION_DELAY);
    }

    /// Where the webhook gets its certificates.
    pub(in crate::cli) fn certificates(&self, namespace: &str) -> Certificates {
        match &self.tls_cert_dir {
            Some(path) => Certificates::Directory(path.clone()),
            None => Certificates::Shared(SharedSecret {
                namespace: namespace.to_owned(),
                name: self.tls_secret.clone(),
                registration: self.webhook_configuration.clone(),
                propagation: self.ca_propagation_delay.get(),
            }),
        }
    }
}
