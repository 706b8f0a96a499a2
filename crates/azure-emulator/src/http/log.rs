//! The log of every request, from which tests learn what was done in Azure.

use std::collections::VecDeque;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Beyond this number, the oldest entries are dropped.
const MAX_ENTRIES: usize = 100_000;

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogKind {
    /// A GET or HEAD request to ARM.
    ArmRead,
    /// Any other request to ARM.
    ArmWrite,
    /// Entra's token endpoint.
    Token,
    /// Entra's metadata.
    Discovery,
    /// Microsoft Graph.
    Graph,
    /// A protected resource.
    Data,
    /// The emulator's own endpoints.
    Emulator,
}

/// One request, without tokens and assertions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Number of the request in order of arrival, from 1.
    pub seq: u64,
    /// When it arrived.
    pub time: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// HTTP method.
    pub method: String,
    /// Path, as it was sent.
    pub path: String,
    /// Query, as it was sent.
    pub query: String,
    /// What it was about.
    pub kind: LogKind,
    /// The status of the response; absent if the connection was dropped.
    pub status: Option<u16>,
    /// ARM's error code, or `AADSTS…`.
    pub error_code: Option<String>,
    /// The ID in the response.
    pub request_id: String,
    /// The ID that the client sent.
    pub client_request_id: Option<String>,
    /// The client's user agent.
    pub user_agent: Option<String>,
    /// The principal that called ARM, or that a token was issued to.
    pub principal_id: Option<String>,
    /// JSON sent to ARM, or what may be shown of a token request.
    pub body: Option<Value>,
    /// The fault that was injected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// The status without the fault; absent if nothing was applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_status: Option<u16>,
}

/// Which entries to list; what is absent matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// This HTTP method.
    pub method: Option<String>,
    /// This kind, as in JSON.
    pub kind: Option<String>,
    /// A part of the path, case-insensitive.
    pub path: Option<String>,
    /// Later than this `seq`.
    pub since: Option<u64>,
}

impl LogFilter {
    fn matches(&self, entry: &LogEntry) -> bool {
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
    ended: u64,
    entries: VecDeque<LogEntry>,
}

impl RequestLog {
    /// Counts a request that arrives; returns its number.
    pub(super) fn arrive(&mut self) -> u64 {
        self.arrived += 1;
        self.arrived
    }

    /// Adds a request that has ended. Requests overlap, so a later one may end first.
    pub(super) fn add(&mut self, entry: LogEntry) {
        self.ended += 1;
        let at = self.entries.partition_point(|other| other.seq < entry.seq);
        self.entries.insert(at, entry);
        if self.entries.len() > MAX_ENTRIES {
            self.entries.pop_front();
        }
    }

    /// How many requests have arrived, and how many of them have ended.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.arrived, self.ended)
    }

    pub(crate) fn list(&self, filter: &LogFilter) -> Vec<LogEntry> {
        self.entries.iter().filter(|entry| filter.matches(entry)).cloned().collect()
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }
}
