//! How often each service account sent which request to the API server, counted from its audit log.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ensign_testkit::audit::LogTail;
use ensign_testkit::service_account::user;
use serde::Deserialize;

/// Requests by kind, such as `patch managedidentitybindings/status`.
pub type Counts = BTreeMap<String, u64>;

/// The requests in the audit log so far.
pub struct Audit {
    log: LogTail,
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
        Self { log: LogTail::new(path), users: BTreeMap::new() }
    }

    /// All requests of a service account of Ensign so far.
    pub fn of(&mut self, account: &str) -> Counts {
        for line in self.log.read().lines().filter(|line| !line.is_empty()) {
            let event: Event = serde_json::from_str(line).expect("an audit event");
            let object = event.object.map_or_else(String::new, |object| {
                let parts = [object.resource, object.subresource].into_iter().flatten();
                format!(" {}", parts.collect::<Vec<_>>().join("/"))
            });
            let counts = self.users.entry(event.user.username).or_default();
            *counts.entry(format!("{}{object}", event.verb)).or_default() += 1;
        }
        self.users.get(&user(account)).cloned().unwrap_or_default()
    }
}

/// The requests between two counts.
pub fn between(before: &Counts, after: &Counts) -> Counts {
    let more = |(kind, count): (&String, &u64)| {
        let more = count - before.get(kind).copied().unwrap_or_default();
        (more > 0).then(|| (kind.clone(), more))
    };
    after.iter().filter_map(more).collect()
}

/// Writes other than those of the Lease.
pub fn writes(counts: &Counts) -> u64 {
    let verbs = ["create ", "update ", "patch ", "delete ", "deletecollection "];
    let is_write = |kind: &str| verbs.iter().any(|verb| kind.starts_with(verb)) && !kind.ends_with(" leases");
    counts.iter().filter(|(kind, _)| is_write(kind)).map(|(_, count)| count).sum()
}
