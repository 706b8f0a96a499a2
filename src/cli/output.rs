//! What the commands of operators print, and how they ask.

use std::io::{BufRead, IsTerminal, Write};

use serde::Serialize;

use super::{Failure, Usage};

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    /// For people
    #[default]
    Table,
    /// One JSON object
    Json,
}

/// Prints a result as JSON, or in the words of `text`.
pub(super) fn print<T: Serialize>(output: Output, result: &T, text: impl FnOnce() -> String) -> Result<(), Failure> {
    let text = match output {
        Output::Json => format!("{}\n", serde_json::to_string_pretty(result)?),
        Output::Table => text(),
    };
    write!(std::io::stdout().lock(), "{text}")?;
    Ok(())
}

/// Says how far it is, to whoever waits; results go to standard output.
pub(super) fn progress(text: &str) {
    // Nobody is left to tell when stderr is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Goes on only when somebody said yes: with a flag, or at the terminal. A script that says nothing is refused.
pub(super) fn confirm(yes: bool, question: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Usage(format!("{question}: nobody is there to ask, so say --yes")).into());
    }
    let mut err = std::io::stderr();
    write!(err, "{question}. Type yes to go on: ")?;
    err.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if answer.trim() == "yes" { Ok(()) } else { Err("nothing was done".into()) }
}
