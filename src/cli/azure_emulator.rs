//! `ensign azure-emulator`.

use super::Failure;

/// Flags of the subcommand.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(super) fn run(_args: Args) -> Result<(), Failure> {
    Err("not built yet".into())
}
