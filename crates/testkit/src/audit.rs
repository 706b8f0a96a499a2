//! What the API server recorded of the requests to it.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Mutex;

use serde_json::Value;

/// The API server's audit log, of which each byte is read once for each text that is looked for in it.
pub struct AuditLog {
    path: PathBuf,
    searches: Mutex<HashMap<String, Search>>,
}

impl AuditLog {
    pub fn new(path: PathBuf) -> Self {
        Self { path, searches: Mutex::default() }
    }

    /// The events so far whose JSON has this text in it, as events of `audit.k8s.io/v1`.
    pub fn events_with(&self, text: &str) -> Vec<Value> {
        let mut searches = self.searches.lock().expect("no search panicked");
        let search = searches.entry(text.to_owned()).or_insert_with(|| Search::new(self.open()));
        search.go_on(text);
        // Once the log has become too long, the API server goes on in a new one of the same name.
        let current = self.open();
        if current.metadata().expect("look at the audit log").ino() != search.inode {
            search.go_on(text);
            search.turn_to(current);
            search.go_on(text);
        }
        search.found.clone()
    }

    fn open(&self) -> File {
        File::open(&self.path).expect("open the audit log")
    }
}

struct Search {
    file: File,
    inode: u64,
    /// A line that is being written has no end yet.
    begun: Vec<u8>,
    found: Vec<Value>,
}

impl Search {
    fn new(file: File) -> Self {
        let inode = file.metadata().expect("look at the audit log").ino();
        Self { file, inode, begun: Vec::new(), found: Vec::new() }
    }

    fn turn_to(&mut self, file: File) {
        *self = Self { found: std::mem::take(&mut self.found), ..Self::new(file) };
    }

    fn go_on(&mut self, text: &str) {
        self.file.read_to_end(&mut self.begun).expect("read the audit log");
        let whole = self.begun.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let rest = self.begun.split_off(whole);
        let lines = std::mem::replace(&mut self.begun, rest);
        let lines = std::str::from_utf8(&lines).expect("the audit log is text");
        let events = lines.lines().filter(|line| line.contains(text));
        self.found.extend(events.map(|line| serde_json::from_str::<Value>(line).expect("an audit event")));
    }
}
