//! The API server's audit log: what it recorded of the requests to it.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Mutex;

use serde_json::Value;

/// A log that grows and is rotated, of which each line is read once.
///
/// It has to be read so often that the API server rotates it at most once between two reads.
pub struct LogTail {
    path: PathBuf,
    file: File,
    inode: u64,
    /// A line that is still being written has no end yet.
    partial: Vec<u8>,
}

impl LogTail {
    pub fn new(path: PathBuf) -> Self {
        let (file, inode) = open(&path);
        Self { path, file, inode, partial: Vec::new() }
    }

    /// The lines that were written since the last read.
    pub fn read(&mut self) -> String {
        let mut lines = String::new();
        self.read_file(&mut lines);
        let (file, inode) = open(&self.path);
        if inode != self.inode {
            // The API server has renamed the log and continues in a new one.
            self.read_file(&mut lines);
            (self.file, self.inode) = (file, inode);
            self.partial.clear();
            self.read_file(&mut lines);
        }
        lines
    }

    fn read_file(&mut self, lines: &mut String) {
        self.file.read_to_end(&mut self.partial).expect("read the audit log");
        let complete = self.partial.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let partial = self.partial.split_off(complete);
        let complete = std::mem::replace(&mut self.partial, partial);
        lines.push_str(std::str::from_utf8(&complete).expect("the audit log is text"));
    }
}

fn open(path: &PathBuf) -> (File, u64) {
    let file = File::open(path).expect("open the audit log");
    let inode = file.metadata().expect("stat the audit log").ino();
    (file, inode)
}

/// The audit log of a control plane, searched for texts: for each text, every line is read once.
pub struct AuditLog {
    path: PathBuf,
    searches: Mutex<HashMap<String, Search>>,
}

struct Search {
    log: LogTail,
    found: Vec<Value>,
}

impl AuditLog {
    pub fn new(path: PathBuf) -> Self {
        Self { path, searches: Mutex::default() }
    }

    /// The events so far whose JSON contains this text, as events of `audit.k8s.io/v1`.
    pub fn events_with(&self, text: &str) -> Vec<Value> {
        let mut searches = self.searches.lock().expect("no search panicked");
        let search = searches
            .entry(text.to_owned())
            .or_insert_with(|| Search { log: LogTail::new(self.path.clone()), found: Vec::new() });
        let lines = search.log.read();
        let events = lines.lines().filter(|line| line.contains(text));
        search.found.extend(events.map(|line| serde_json::from_str::<Value>(line).expect("an audit event")));
        search.found.clone()
    }
}

#[test]
fn every_line_is_read_once_across_a_rotation() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.log");
    std::fs::write(&path, "one\ntw").expect("write");
    let mut tail = LogTail::new(path.clone());
    assert_eq!(tail.read(), "one\n");
    std::fs::write(&path, "one\ntwo\n").expect("write");
    std::fs::rename(&path, folder.path().join("audit-1.log")).expect("rotate");
    std::fs::write(&path, "three\n").expect("write");
    assert_eq!(tail.read(), "two\nthree\n");
    assert_eq!(tail.read(), "");
}
