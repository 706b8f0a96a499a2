//! The token volume, and where it is mounted.

use super::config::Config;
use super::denial::{self, Denial};
use super::injection::Injection;
use super::json_patch::Content;
use super::pod::{Container, Text, TokenSource, Volume, VolumeMount};
use super::upstream_keys::VOLUME_PREFIX;
use ensign_api::keys::{TOKEN_MOUNT_PATH, TOKEN_PATH, TOKEN_VOLUME};

/// The token volume of a pod.
pub(super) struct Token<'v> {
    /// Name of a volume that has to be added.
    new_name: &'v str,
    /// Token volumes that the pod has already, as a copy of an injected pod does, by Ensign or by azure-workload-identity.
    existing: Vec<(&'v str, &'v TokenSource<'v>)>,
    /// Whether the pod's list of volumes exists.
    has_volumes: bool,
    /// Whether another volume has the name of the one to add.
    name_taken: bool,
}

impl<'v> Token<'v> {
    /// Finds the token volume; if one has to be added, its name is `new_name`.
    pub(super) fn of(volumes: Option<&'v [Volume<'v>]>, new_name: &'v str, config: &Config) -> Self {
        let listed = volumes.unwrap_or_default();
        let existing: Vec<_> = listed
            .iter()
            .filter(|volume| &*volume.name == TOKEN_VOLUME || volume.name.starts_with(VOLUME_PREFIX))
            .filter_map(|volume| Some((&*volume.name, source(volume, config)?)))
            .collect();
        let name_taken = existing.is_empty() && listed.iter().any(|volume| &*volume.name == new_name);
        Self { new_name, existing, has_volumes: volumes.is_some(), name_taken }
    }

    fn name(&self) -> &'v str {
        self.existing.first().map_or(self.new_name, |(name, _)| name)
    }

    /// Mounts the token in the container at `path`, unless it is mounted already.
    pub(super) fn mount(
        &self,
        injection: &mut Injection,
        path: [&str; 3],
        container: &Container<'_>,
    ) -> Result<(), Denial> {
        let [spec, list, index] = path;
        let mounts = container.volume_mounts.as_deref();
        let at_token = mounts.unwrap_or_default().iter().filter(|mount| is_within_token_path(&mount.mount_path));
        let mut is_mounted = false;
        for mount in at_token {
            if !self.is_mounted_by(mount) {
                return Err(denial::mount_clash(&container.name, &mount.name, &mount.mount_path, self.name()));
            }
            is_mounted = true;
        }
        if !is_mounted {
            let mount = Content::mount(self.name());
            injection.append(&[spec, list, index, "volumeMounts"], mounts.is_some(), vec![mount]);
        }
        Ok(())
    }

    fn is_mounted_by(&self, mount: &VolumeMount<'_>) -> bool {
        let is_unset = |path: &Option<Text<'_>>| path.as_deref().is_none_or(str::is_empty);
        (&*mount.name == self.name() || self.existing.iter().any(|(name, _)| *name == &*mount.name))
            && mount.mount_path.trim_end_matches('/') == TOKEN_MOUNT_PATH
            && mount.read_only == Some(true)
            && is_unset(&mount.sub_path)
            && is_unset(&mount.sub_path_expr)
    }

    /// Adds the volume, unless it exists. `seconds` is the lifetime of its token.
    pub(super) fn add(&self, injection: &mut Injection, seconds: u32, config: &Config) -> Result<(), Denial> {
        if self.name_taken {
            return Err(denial::volume_clash(self.new_name));
        }
        for (name, token) in &self.existing {
            if let Some(kept) = token.expiration_seconds.filter(|kept| *kept != i64::from(seconds)) {
                injection.warnings.push(format!(
                    "volume {name:?} keeps its token lifetime of {kept} seconds; Ensign would have set {seconds}"
                ));
            }
        }
        if self.existing.is_empty() {
            let volume = Content::volume(self.new_name, &config.audience, seconds);
            injection.append(&["spec", "volumes"], self.has_volumes, vec![volume]);
        }
        Ok(())
    }
}

/// The token of a volume, if it is the volume's only source and has the expected path and audience.
fn source<'v>(volume: &'v Volume<'v>, config: &Config) -> Option<&'v TokenSource<'v>> {
    let [source] = volume.projected.as_ref()?.sources.as_deref()? else { return None };
    source.service_account_token.as_ref().filter(|token| {
        token.path.as_deref() == Some(TOKEN_PATH) && token.audience.as_deref() == Some(&config.audience)
    })
}

/// Whether a path is at or below the token's mount path, where a mount would hide the token or fail.
fn is_within_token_path(path: &str) -> bool {
    let mut components: Vec<&str> = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                components.pop();
            }
            name => components.push(name),
        }
    }
    let token = TOKEN_MOUNT_PATH.split('/').filter(|component| !component.is_empty());
    token.enumerate().all(|(index, expected)| components.get(index) == Some(&expected))
}
