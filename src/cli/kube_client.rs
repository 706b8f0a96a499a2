//! The client of the API server that long-running subcommands share.

use std::time::Duration;

use kube::{Client, Config};

use super::Failure;

/// Longer than any watch that the API server lets stand, so that only a connection that died counts as silent.
const READ_TIMEOUT: Duration = Duration::from_secs(310);

/// A client for the cluster that the pod is in, or that the kubeconfig names. A watch whose connection dies without a word
/// is noticed.
pub(super) async fn client() -> Result<Client, Failure> {
    let mut config = config().await?;
    config.read_timeout.get_or_insert(READ_TIMEOUT);
    connect(config)
}

/// A client whose requests are not repeated: when to ask again is its user's own decision.
pub(super) async fn client_without_retries() -> Result<Client, Failure> {
    let mut config = config().await?;
    config.default_retry = false;
    connect(config)
}

async fn config() -> Result<Config, Failure> {
    Config::infer().await.map_err(|error| format!("cannot reach a cluster: {error}").into())
}

fn connect(config: Config) -> Result<Client, Failure> {
    Client::try_from(config).map_err(|error| format!("cannot reach a cluster: {error}").into())
}
