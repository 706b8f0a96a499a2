//! `ensign version`.

use serde::Serialize;

use super::Failure;
use super::output::{Output, print};

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
    features: Vec<&'static str>,
    debug: bool,
}

impl Build {
    fn own() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            api_version: format!("{}/{}", crate::api::GROUP, crate::api::VERSION),
            target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
            features: [("emulator", cfg!(feature = "emulator"))]
                .into_iter()
                .filter_map(|(name, built)| built.then_some(name))
                .collect(),
            debug: cfg!(debug_assertions),
        }
    }
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let build = Build::own();
    print(args.output, &build, || format!("ensign {}\n", build.version))
}
