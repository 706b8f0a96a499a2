//! `ensign crds`: the CRDs, generated from the types that the controller uses.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::cli::Failure;
use ensign_api::{crds, reference};

/// Print the CRDs as YAML, write them to a folder, or compare them with a folder.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write one file for each CRD into this folder
    #[arg(long, value_name = "DIR", conflicts_with = "check")]
    write: Option<PathBuf>,
    /// Fail if a file in this folder is not up to date
    #[arg(long, value_name = "DIR")]
    check: Option<PathBuf>,
    /// Print the API reference in Markdown instead of the CRDs
    #[arg(long)]
    reference: bool,
}

pub(in crate::cli) fn run(args: &Args) -> Result<(), Failure> {
    let files = if args.reference { reference::pages() } else { crd_files()? };
    if let Some(folder) = &args.write {
        fs::create_dir_all(folder).map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
        for (name, text) in &files {
            let path = folder.join(name);
            fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        return Ok(());
    }
    if let Some(folder) = &args.check {
        return check(folder, &files, if args.reference { "crds --reference" } else { "crds" });
    }
    let mut out = std::io::stdout().lock();
    let between = if args.reference { "" } else { "---\n" };
    for (_, text) in &files {
        write!(out, "{between}{text}")?;
    }
    Ok(())
}

fn crd_files() -> Result<Vec<(String, String)>, Failure> {
    Ok(crds::all_as_yaml()?.into_iter().map(|(name, text)| (name.to_owned(), text)).collect())
}

fn check(folder: &Path, files: &[(String, String)], command: &str) -> Result<(), Failure> {
    let stale: Vec<_> = files
        .iter()
        .filter(|(name, text)| fs::read_to_string(folder.join(name)).ok().as_ref() != Some(text))
        .map(|(name, _)| name.as_str())
        .collect();
    if stale.is_empty() {
        return Ok(());
    }
    let folder = folder.display();
    Err(format!("{folder} is out of date: {}; run `ensign {command} --write {folder}`", stale.join(", ")).into())
}
