//! The one TLS provider of the process.

/// Makes aws-lc-rs the process-wide TLS provider. Call it first thing; a second call changes nothing.
pub fn install_provider() {
    // An error only says that a provider is installed already, and there is only one to install.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
