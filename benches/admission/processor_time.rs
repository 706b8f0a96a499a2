//! Processor time that a process has used, by the kernel's own account.

use std::path::Path;
use std::time::Duration;

use crate::Failure;

/// Of all threads of a process that live.
pub fn of(pid: u32) -> Result<Duration, Failure> {
    let mut total = Duration::ZERO;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        total += of_thread(&thread?.path())?;
    }
    Ok(total)
}

/// The first field of `schedstat`: nanoseconds on a processor.
fn of_thread(folder: &Path) -> Result<Duration, Failure> {
    let text = std::fs::read_to_string(folder.join("schedstat"))?;
    let first = text.split_whitespace().next().ok_or("an empty schedstat")?;
    Ok(Duration::from_nanos(first.parse()?))
}
