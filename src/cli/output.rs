//! Output and confirmation prompts of the operators' commands.

use std::io::{BufRead, IsTerminal, Write};

use serde::Serialize;

use super::{Failure, Usage};

/// Output formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    /// Human-readable
    #[default]
    Table,
    /// One JSON object
    Json,
}

/// Prints a result as JSON, or as the text that `text` returns.
pub(super) fn print<T: Serialize>(output: Output, result: &T, text: impl FnOnce() -> String) -> Result<(), Failure> {
    let text = match output {
        Output::Json => format!("{}\n", serde_json::to_string_pretty(result)?),
        Output::Table => text(),
    };
    write!(std::io::stdout().lock(), "{text}")?;
    Ok(())
}

/// Prints progress to standard error; results go to standard output.
pub(super) fn progress(text: &str) {
    // There is no one to report to once stderr is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Asks for confirmation at the terminal, unless `yes` is set. Without a terminal, that flag is required.
pub(super) fn confirm(yes: bool, question: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Usage(format!("{question}: stdin is not a terminal; pass --yes to confirm")).into());
    }
    let mut err = std::io::stderr();
    write!(err, "{question}. Type yes to continue: ")?;
    err.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if answer.trim() == "yes" { Ok(()) } else { Err("not confirmed; nothing was done".into()) }
}
