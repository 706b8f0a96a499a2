//! Where a test finds the programs under test, the repository and a folder for its files.

use std::fs;
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

/// A folder for the files of the running test program: `target/tmp/<program>`. Test programs run side by side, so each has
/// its own. The files are kept, to look into a failure.
pub fn scratch() -> PathBuf {
    let target = profile().parent().map(Path::to_path_buf).expect("a profile is in target");
    let folder = target.join("tmp").join(program_name(&current_exe()));
    fs::create_dir_all(&folder).expect("create the folder for test files");
    folder
}

/// An empty folder in [`scratch`]: what an earlier run left there belongs to another cluster.
pub fn empty_scratch(name: &str) -> PathBuf {
    let folder = scratch().join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("create a folder for test files");
    folder
}

/// The name of a test program without the hash that cargo appends.
fn program_name(program: &Path) -> String {
    let stem = program.file_stem().expect("a program has a name").to_string_lossy().into_owned();
    let is_hash = |text: &str| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match stem.rsplit_once('-') {
        Some((name, hash)) if is_hash(hash) => name.to_owned(),
        _ => stem,
    }
}

/// `target/<profile>`: test programs are in `deps` below it.
fn profile() -> PathBuf {
    let test = current_exe();
    let folder = test.parent().expect("a program is in a folder");
    if folder.ends_with("deps") {
        folder.parent().map(Path::to_path_buf).expect("deps is in a profile")
    } else {
        folder.to_path_buf()
    }
}

fn current_exe() -> PathBuf {
    std::env::current_exe().expect("the path of this program")
}

#[test]
fn a_test_program_is_named_without_its_hash() {
    for (path, name) in [
        ("/target/debug/deps/integration-0123456789abcdef", "integration"),
        ("/target/debug/deps/cluster_wide-fedcba9876543210", "cluster_wide"),
        ("/target/debug/faults", "faults"),
        ("/somewhere/half-done", "half-done"),
    ] {
        assert_eq!(program_name(Path::new(path)), name);
    }
}
