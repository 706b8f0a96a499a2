//! The volume with the token, and where it is mounted.

use super::Config;
use super::azure_workload_identity::VOLUME_PREFIX;
use super::denial::{self, Denial};
use super::inject::Injection;
use super::json_patch::Content;
use super::pod::{Container, TokenSource, Volume, VolumeMount};
use ensign_api::keys::{TOKEN_MOUNT_PATH, TOKEN_PATH, TOKEN_VOLUME};

/// The token volume of a pod.
pub(super) struct Token<'v> {
    /// Its name, if it has to be added.
    fresh: &'v str,
    /// Those that the pod brings along: a copy of an injected pod has one, also one that azure-workload-identity injected.
    brought: Vec<(&'v str, &'v TokenSource<'v>)>,
    /// Whether there are volumes at all.
    beside_others: bool,
    /// Whether the name for a fresh one is taken by something else.
    taken: bool,
}

impl<'v> Token<'v> {
    /// Looks for the token volume; one that has to be added is called `fresh`.
    pub(super) fn of(volumes: Option<&'v [Volume<'v>]>, fresh: &'v str, config: &Config) -> Self {
        let listed = volumes.unwrap_or_default();
        let brought: Vec<_> = listed
            .iter()
            .filter(|volume| &*volume.name == TOKEN_VOLUME || volume.name.starts_with(VOLUME_PREFIX))
            .filter_map(|volume| Some((&*volume.name, source(volume, config)?)))
            .collect();
        let taken = brought.is_empty() && listed.iter().any(|volume| &*volume.name == fresh);
        Self { fresh, brought, beside_others: volumes.is_some(), taken }
    }

    fn name(&self) -> &'v str {
        self.brought.first().map_or(self.fresh, |(name, _)| name)
    }

    /// Mounts the token in a container, unless it is.
    pub(super) fn mount(
        &self,
        injection: &mut Injection,
        place: [&str; 3],
        container: &Container<'_>,
    ) -> Result<(), Denial> {
        let [spec, list, index] = place;
        let mounts = container.volume_mounts.as_deref();
        let there = mounts.unwrap_or_default().iter().filter(|mount| is_within_token_path(&mount.mount_path));
        let mut is_mounted = false;
        for mount in there {
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
        let whole = |path: &Option<super::Text<'_>>| path.as_deref().is_none_or(str::is_empty);
        (&*mount.name == self.name() || self.brought.iter().any(|(name, _)| *name == &*mount.name))
            && mount.mount_path.trim_end_matches('/') == TOKEN_MOUNT_PATH
            && mount.read_only == Some(true)
            && whole(&mount.sub_path)
            && whole(&mount.sub_path_expr)
    }

    /// Adds the volume, unless it is there.
    pub(super) fn add(&self, injection: &mut Injection, seconds: u32, config: &Config) -> Result<(), Denial> {
        if self.taken {
            return Err(denial::volume_clash(self.fresh));
        }
        for (name, token) in &self.brought {
            if let Some(kept) = token.expiration_seconds.filter(|kept| *kept != i64::from(seconds)) {
                injection
                    .warnings
                    .push(format!("volume {name:?}: a token lifetime of {kept} seconds is kept, not set to {seconds}"));
            }
        }
        if self.brought.is_empty() {
            let volume = Content::volume(self.fresh, &config.audience, seconds);
            injection.append(&["spec", "volumes"], self.beside_others, vec![volume]);
        }
        Ok(())
    }
}

/// The token of a volume, if it is all that the volume has, and as it has to be.
fn source<'v>(volume: &'v Volume<'v>, config: &Config) -> Option<&'v TokenSource<'v>> {
    let [source] = volume.projected.as_ref()?.sources.as_deref()? else { return None };
    source.service_account_token.as_ref().filter(|token| {
        token.path.as_deref() == Some(TOKEN_PATH) && token.audience.as_deref() == Some(&config.audience)
    })
}

/// Whether a path is the token's mount path or below it, where a mount would hide the token or fail.
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
    token.enumerate().all(|(at, wanted)| components.get(at) == Some(&wanted))
}
