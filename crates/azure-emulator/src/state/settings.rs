//! The settings in a state document.

use super::directory::DirectorySettings;
use super::document::{InvalidDocument, StateDocument};
use super::model::Settings;
use super::reads::ReadSettings;
use super::roles::RoleSettings;
use super::text::normalize_location;

impl StateDocument {
    /// The settings, with those of `fallback` for everything that the document omits.
    pub(super) fn settings(&self, fallback: &Settings) -> Result<Settings, InvalidDocument> {
        let settings = Settings {
            propagation_seconds: self.propagation_seconds.unwrap_or(fallback.propagation_seconds),
            token_lifetime_seconds: self.token_lifetime_seconds.unwrap_or(fallback.token_lifetime_seconds),
            write_latency_ms: self.write_latency_ms.unwrap_or(fallback.write_latency_ms),
            credential_page_size: self.credential_page_size.unwrap_or(fallback.credential_page_size).max(1),
            identity_page_size: self.identity_page_size.unwrap_or(fallback.identity_page_size).max(1),
            regions_without_credentials: self.regions_without_credentials.as_ref().map_or_else(
                || fallback.regions_without_credentials.clone(),
                |regions| regions.iter().map(|region| normalize_location(region)).collect(),
            ),
            roles: RoleSettings {
                principal_replication_seconds: self
                    .principal_replication_seconds
                    .unwrap_or(fallback.roles.principal_replication_seconds),
                propagation_seconds: self.role_propagation_seconds.unwrap_or(fallback.roles.propagation_seconds),
                limit: self.role_assignment_limit.unwrap_or(fallback.roles.limit),
                page_size: self.role_assignment_page_size.unwrap_or(fallback.roles.page_size).max(1),
            },
            directory: DirectorySettings {
                graph_replication_seconds: self
                    .graph_replication_seconds
                    .unwrap_or(fallback.directory.graph_replication_seconds),
                graph_replication_status: self
                    .graph_replication_status
                    .unwrap_or(fallback.directory.graph_replication_status),
                spurious_mismatch_percent: self
                    .spurious_mismatch_percent
                    .unwrap_or(fallback.directory.spurious_mismatch_percent),
                resources: self.resources.clone().unwrap_or_else(|| fallback.directory.resources.clone()),
                identity_quota: self.identity_quota.or(fallback.directory.identity_quota),
            },
            reads: ReadSettings {
                lag_seconds: self.read_lag_seconds.unwrap_or(fallback.reads.lag_seconds),
                replicas: self.read_replicas.unwrap_or(fallback.reads.replicas),
                seed: self.read_seed.unwrap_or(fallback.reads.seed),
            },
        };
        match settings.directory.graph_replication_status {
            400 | 404 => Ok(settings),
            other => Err(InvalidDocument(format!("graphReplicationStatus must be 400 or 404, not {other}"))),
        }
    }

    /// A document with only the settings.
    pub(super) fn of_settings(settings: &Settings) -> Self {
        Self {
            propagation_seconds: Some(settings.propagation_seconds),
            token_lifetime_seconds: Some(settings.token_lifetime_seconds),
            write_latency_ms: Some(settings.write_latency_ms),
            credential_page_size: Some(settings.credential_page_size),
            identity_page_size: Some(settings.identity_page_size),
            regions_without_credentials: Some(settings.regions_without_credentials.clone()),
            principal_replication_seconds: Some(settings.roles.principal_replication_seconds),
            role_propagation_seconds: Some(settings.roles.propagation_seconds),
            role_assignment_limit: Some(settings.roles.limit),
            role_assignment_page_size: Some(settings.roles.page_size),
            graph_replication_seconds: Some(settings.directory.graph_replication_seconds),
            graph_replication_status: Some(settings.directory.graph_replication_status),
            spurious_mismatch_percent: Some(settings.directory.spurious_mismatch_percent),
            resources: Some(settings.directory.resources.clone()),
            identity_quota: settings.directory.identity_quota,
            read_lag_seconds: Some(settings.reads.lag_seconds),
            read_replicas: Some(settings.reads.replicas),
            read_seed: Some(settings.reads.seed),
            ..Self::default()
        }
    }
}
