//! The API server's client for all subcommands.

use std::time::Duration;

use kube::{Client, Config};

use super::Failure;

/// Longer than the API server keeps any watch open, so that only a dead connection reaches it.
const READ_TIMEOUT: Duration = Duration::from_secs(310);

/// A client for the cluster of the pod, or of the kubeconfig. A watch whose connection dies silently times out.
pub(super) async fn client() -> Result<Client, Failure> {
    let mut config = config().await?;
    config.read_timeout.get_or_insert(READ_TIMEOUT);
    connect(config)
}

/// A client that does not retry requests: its caller decides when to.
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
