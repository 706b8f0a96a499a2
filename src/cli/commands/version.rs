//! `ensign version`.

use serde::Serialize;

use crate::cli::Failure;
use crate::cli::output::{Output, print};

/// Print the version, and what this build can do.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to print
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

/// What a build says of itself. Nothing in it depends on where or when it was built.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Build {
    version: &'static str,
    api_version: String,
    target: String,
    debug: bool,
}

impl Build {
    fn own() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            api_version: format!("{}/{}", ensign_api::GROUP, ensign_api::VERSION),
            target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
            debug: cfg!(debug_assertions),
        }
    }
}

pub(in crate::cli) fn run(args: &Args) -> Result<(), Failure> {
    let build = Build::own();
    print(args.output, &build, || format!("ensign {}\n", build.version))
}
