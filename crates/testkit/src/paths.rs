//! Where a test finds the programs under test, the repository and a place for its files.

use std::path::{Path, PathBuf};

/// The root of the repository.
pub const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// A program of the workspace, as cargo built it beside the running test.
pub fn program(name: &str) -> PathBuf {
    let path = profile().join(name);
    assert!(path.exists(), "{} is missing: build it with `cargo build --workspace --bins`", path.display());
    path
}

/// The program under test.
pub fn ensign() -> PathBuf {
    program("ensign")
}

/// A folder for what tests write; it survives them, so that a failure can be looked into.
pub fn scratch() -> PathBuf {
    let folder = profile().parent().expect("target has profiles in it").join("tmp");
    std::fs::create_dir_all(&folder).expect("create the folder for test files");
    folder
}

/// `target/<profile>`: test programs lie in `deps` below it.
fn profile() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this program");
    let folder = test.parent().expect("a program lies in a folder");
    if folder.ends_with("deps") {
        folder.parent().map(Path::to_path_buf).expect("deps lies in a profile")
    } else {
        folder.to_path_buf()
    }
}
