//! `ensign policies`: the admission policies, as whoever installs makes them.

use std::io::Write;
use std::path::PathBuf;

use super::Failure;
use crate::decide::policy;

/// Print the admission policies and their bindings as YAML, or check a file against them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Fail when this file differs from the policies
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let text = text()?;
    if let Some(file) = &args.check {
        let current =
            std::fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        if current != text {
            let file = file.display();
            return Err(format!("{file} is not current; run `ensign policies > {file}`").into());
        }
        return Ok(());
    }
    write!(std::io::stdout().lock(), "{text}")?;
    Ok(())
}

fn text() -> Result<String, Failure> {
    let mut text = String::from(
        "# Made by `ensign policies`. They match nothing: the controller fills them in where the API server is to inject by\n\
         # itself. Make them once; applying them again would empty them until the controller sees it.\n",
    );
    for object in policy::manifest() {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&object).map_err(|error| format!("cannot write YAML: {error}"))?);
    }
    Ok(text)
}
