//! Processor time of processes, from `/proc`.

use std::fs;
use std::io::{Error, ErrorKind, Result};
use std::path::Path;
use std::time::Duration;

/// The kernel counts processor time in hundredths of a second on every machine that this runs on.
const TICK: Duration = Duration::from_millis(10);

/// What a process has used, with its threads that have ended, in steps of 10 ms.
pub fn of_process(pid: u32) -> Result<Duration> {
    of_folder(&Path::new("/proc").join(pid.to_string()))
}

/// What the processes that work in a folder have used; zero if there is none.
pub fn of_processes_in(folder: &Path) -> Duration {
    let processes = fs::read_dir("/proc").expect("list the processes").filter_map(|entry| Some(entry.ok()?.path()));
    let works_there = |process: &Path| fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == folder);
    // One that has ended meanwhile has no more to count.
    processes.filter(|process| works_there(process)).map(|process| of_folder(&process).unwrap_or_default()).sum()
}

/// What the threads of a process that are alive have used, to the nanosecond.
pub fn of_live_threads(pid: u32) -> Result<Duration> {
    let mut total = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        let nanoseconds = text.split_whitespace().next().and_then(|first| first.parse().ok());
        total += Duration::from_nanos(nanoseconds.ok_or_else(|| invalid("schedstat"))?);
    }
    Ok(total)
}

fn of_folder(process: &Path) -> Result<Duration> {
    let stat = fs::read_to_string(process.join("stat"))?;
    // The second field is the command in parentheses and may contain anything, so count from its end.
    let (_, fields) = stat.rsplit_once(") ").ok_or_else(|| invalid("stat"))?;
    let ticks: u32 = fields.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<u32>().ok()).sum();
    Ok(TICK * ticks)
}

fn invalid(file: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("/proc/…/{file} has an unknown format"))
}

#[test]
fn a_process_that_works_uses_processor_time() {
    let before = of_live_threads(std::process::id()).expect("this process");
    let text: String = (0..100_000).map(|number: u32| number.to_string()).collect();
    assert!(text.len() > 100_000);
    assert!(of_live_threads(std::process::id()).expect("this process") > before);
    assert!(of_process(std::process::id()).is_ok());
    assert!(of_process(u32::MAX).is_err());
}
