//! How often the API server was asked for what, by whom: counted from its audit log as that grows.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde::Deserialize;

/// Requests by kind, such as `patch managedidentitybindings/status`.
pub type Counts = BTreeMap<String, u64>;

/// The audit log, read on with each look. Looks have to be so frequent that no more than one log is left between two.
pub struct Audit {
    path: PathBuf,
    file: File,
    inode: u64,
    /// A line that is being written has no end yet.
    begun: Vec<u8>,
    users: BTreeMap<String, Counts>,
}

#[derive(Deserialize)]
struct Event {
    user: User,
    verb: String,
    #[serde(rename = "objectRef")]
    object: Option<Object>,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize)]
struct Object {
    resource: Option<String>,
    subresource: Option<String>,
}

impl Audit {
    pub fn new(path: PathBuf) -> Self {
        let file = File::open(&path).expect("open the audit log");
        let inode = file.metadata().expect("look at the audit log").ino();
        Self { path, file, inode, begun: Vec::new(), users: BTreeMap::new() }
    }

    /// Everything that a service account of Ensign's has asked for so far.
    pub fn of(&mut self, account: &str) -> Counts {
        self.read_on();
        let user = format!("system:serviceaccount:{}:{account}", crate::process::SYSTEM);
        self.users.get(&user).cloned().unwrap_or_default()
    }

    fn read_on(&mut self) {
        self.take_in();
        // Once the log has become too long, the API server goes on in a new one of the same name.
        let current = File::open(&self.path).expect("open the audit log");
        let inode = current.metadata().expect("look at the audit log").ino();
        if inode != self.inode {
            self.take_in();
            (self.file, self.inode) = (current, inode);
            self.begun.clear();
            self.take_in();
        }
    }

    fn take_in(&mut self) {
        self.file.read_to_end(&mut self.begun).expect("read the audit log");
        let whole = self.begun.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let rest = self.begun.split_off(whole);
        let lines = std::mem::replace(&mut self.begun, rest);
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let event: Event = serde_json::from_slice(line).expect("an audit event");
            let object = event.object.map_or_else(String::new, |object| {
                let parts = [object.resource, object.subresource].into_iter().flatten();
                format!(" {}", parts.collect::<Vec<_>>().join("/"))
            });
            let counts = self.users.entry(event.user.username).or_default();
            *counts.entry(format!("{}{object}", event.verb)).or_default() += 1;
        }
    }
}

/// What came between two looks.
pub fn between(before: &Counts, after: &Counts) -> Counts {
    let more = |(kind, count): (&String, &u64)| {
        let more = count - before.get(kind).copied().unwrap_or_default();
        (more > 0).then(|| (kind.clone(), more))
    };
    after.iter().filter_map(more).collect()
}

/// Writes but those of the Lease.
pub fn writes(counts: &Counts) -> u64 {
    let verbs = ["create ", "update ", "patch ", "delete ", "deletecollection "];
    let is_write = |kind: &str| verbs.iter().any(|verb| kind.starts_with(verb)) && !kind.ends_with(" leases");
    counts.iter().filter(|(kind, _)| is_write(kind)).map(|(_, count)| count).sum()
}
