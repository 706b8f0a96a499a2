//! The TLS provider of the process.

/// Makes aws-lc-rs the TLS provider of the process. Call it before anything uses TLS; a second call changes nothing.
pub fn install_provider() {
    // It fails only if a provider is installed already, and there is only one to install.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
