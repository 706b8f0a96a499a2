//! The log of every request: what tests ask when they want to know what was done to Azure.

use std::collections::VecDeque;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The oldest entries go when there are more.
const MAX_ENTRIES: usize = 100_000;

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A GET of ARM.
    ArmRead,
    /// Everything else of ARM.
    ArmWrite,
    /// Entra's token endpoint.
    Token,
    /// Entra's metadata.
    Discovery,
    /// A protected resource.
    Data,
    /// The stand-in's own endpoints.
    Emulator,
}

/// One request. It holds no token and no assertion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Counts requests in the order of their arrival, from 1.
    pub seq: u64,
    /// When it arrived.
    pub time: Timestamp,
    /// When it was answered.
    pub finished: Timestamp,
    /// HTTP method.
    pub method: String,
    /// Path, as it was sent.
    pub path: String,
    /// Query, as it was sent.
    pub query: String,
    /// What it was about.
    pub kind: Kind,
    /// The status that was answered; absent when the connection was dropped instead.
    pub status: Option<u16>,
    /// ARM's error code, or `AADSTS…`.
    pub error_code: Option<String>,
    /// The ID that the answer carries.
    pub request_id: String,
    /// The ID that the client gave.
    pub client_request_id: Option<String>,
    /// The client's name.
    pub user_agent: Option<String>,
    /// The principal that asked ARM, or that a token was given to.
    pub principal_id: Option<String>,
    /// JSON sent to ARM; what may be shown of a token request.
    pub body: Option<Value>,
    /// The fault that was injected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// What would have been answered without the fault; absent when nothing was applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_status: Option<u16>,
}

/// Which entries are wanted; what is absent matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// This HTTP method.
    pub method: Option<String>,
    /// This kind, as it is written in JSON.
    pub kind: Option<String>,
    /// A part of the path, in any case.
    pub path: Option<String>,
    /// Later than this `seq`.
    pub since: Option<u64>,
}

impl LogFilter {
    fn takes(&self, entry: &LogEntry) -> bool {
        let kind = || serde_json::to_value(entry.kind).unwrap_or_default();
        let path = || entry.path.to_lowercase();
        self.method.as_ref().is_none_or(|method| entry.method.eq_ignore_ascii_case(method))
            && self.kind.as_ref().is_none_or(|wanted| kind() == wanted.as_str())
            && self.path.as_ref().is_none_or(|part| path().contains(&part.to_lowercase()))
            && self.since.is_none_or(|seq| entry.seq > seq)
    }
}

/// The requests so far.
#[derive(Debug, Default)]
pub(crate) struct RequestLog {
    arrived: u64,
    kept: u64,
    entries: VecDeque<LogEntry>,
}

impl RequestLog {
    /// The number of a request that arrives now.
    pub(super) fn arrive(&mut self) -> u64 {
        self.arrived += 1;
        self.arrived
    }

    /// Keeps an answered request. Requests overlap, so that a later one can be kept first.
    pub(super) fn keep(&mut self, entry: LogEntry) {
        self.kept += 1;
        let at = self.entries.partition_point(|kept| kept.seq < entry.seq);
        self.entries.insert(at, entry);
        if self.entries.len() > MAX_ENTRIES {
            self.entries.pop_front();
        }
    }

    /// How many have arrived, and how many of them are over.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.arrived, self.kept)
    }

    pub(crate) fn list(&self, filter: &LogFilter) -> Vec<LogEntry> {
        self.entries.iter().filter(|entry| filter.takes(entry)).cloned().collect()
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }
}
