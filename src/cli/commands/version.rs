//! `ensign version`.

use serde::Serialize;

use crate::cli::Failure;
use crate::cli::output::{Output, print};

/// Print the version of this build.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Output format
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

/// Information about the build; it does not depend on where or when it was built.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Build {
    version: &'static str,
    api_version: String,
    target: String,
    debug: bool,
}

impl Build {
    fn current() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            api_version: format!("{}/{}", ensign_api::GROUP, ensign_api::VERSION),
            target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
            debug: cfg!(debug_assertions),
        }
    }
}

pub(in crate::cli) fn run(args: &Args) -> Result<(), Failure> {
    let build = Build::current();
    print(args.output, &build, || format!("ensign {}\n", build.version))
}
