//! `ensign completion`.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::{Cli, Failure};

const EXAMPLES: &str = "\
Examples:
  bash:  source <(ensign completion bash)
  zsh:   ensign completion zsh > \"${fpath[1]}/_ensign\"
  fish:  ensign completion fish > ~/.config/fish/completions/ensign.fish";

/// Print a shell completion script.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Shell to complete in
    #[arg(value_enum)]
    shell: Shell,
}

pub(in crate::cli) fn run(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ensign", &mut script);
    std::io::Write::write_all(&mut std::io::stdout().lock(), &script)?;
    Ok(())
}
