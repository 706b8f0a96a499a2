//! `ensign policies`: the admission policies, as whoever installs makes them.

use std::io::Write;
use std::path::PathBuf;

use serde_json::Value;

use crate::cli::Failure;
use ensign_core::cel;

/// Print the admission policies as YAML, where the controller is not to make them by itself; with --bindings, the policy
/// bindings, which the chart has.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print the policy bindings instead
    #[arg(long)]
    bindings: bool,
    /// Fail when this file differs
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

pub(in crate::cli) fn run(args: &Args) -> Result<(), Failure> {
    let text = if args.bindings { bindings()? } else { policies()? };
    if let Some(file) = &args.check {
        let current =
            std::fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        if current != text {
            let command = if args.bindings { "ensign policies --bindings" } else { "ensign policies" };
            let file = file.display();
            return Err(format!("{file} is not current; run `{command} > {file}`").into());
        }
        return Ok(());
    }
    write!(std::io::stdout().lock(), "{text}")?;
    Ok(())
}

fn policies() -> Result<String, Failure> {
    let about = "# Made by `ensign policies`. They match nothing: the controller fills them in where the API server is to inject by\n\
                 # itself. Create them once; applying them again would empty them until the controller sees it.\n";
    yaml(about, &cel::inert())
}

fn bindings() -> Result<String, Failure> {
    let about = "# Made by `ensign policies --bindings`. They let the admission policies of these names take effect, which the\n\
                 # controller makes and fills in where the API server is to inject by itself. They never change.\n";
    yaml(about, &cel::bindings())
}

fn yaml(about: &str, objects: &[Value]) -> Result<String, Failure> {
    let mut text = about.to_owned();
    for object in objects {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(object).map_err(|error| format!("cannot write YAML: {error}"))?);
    }
    Ok(text)
}
