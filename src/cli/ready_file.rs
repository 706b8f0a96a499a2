//! A file that is written once the process is ready, for the program that started it.

use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Failure;
use ensign_runtime::health::Readiness;

/// How often readiness is polled.
const POLL: Duration = Duration::from_millis(20);

/// Writes `content` to `path` once the process is ready; does nothing without a path.
pub(super) async fn announce(
    path: Option<PathBuf>,
    readiness: Readiness,
    stop: CancellationToken,
    content: impl Fn() -> serde_json::Value,
) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    while !readiness.get() {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(POLL) => {}
        }
    }
    // A reader must never see a partial file.
    let partial = path.with_extension("partial");
    let written = tokio::fs::write(&partial, content().to_string()).await;
    let renamed = match written {
        Ok(()) => tokio::fs::rename(&partial, &path).await,
        Err(error) => Err(error),
    };
    renamed.map_err(|error| format!("cannot write --ready-file {}: {error}", path.display()).into())
}
