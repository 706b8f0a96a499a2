//! How everything of a kind is listed and watched.

use kube::runtime::watcher;

/// A page of a list is in memory whole, as text and as objects, before anything of it is taken in: its size decides how
/// much more than the cache itself is needed. Five times as many requests as with the usual 500 cost less than a second for
/// ten thousand objects.
const PAGE: u32 = 100;

/// Lists in small pages, then watches.
pub fn in_small_pages() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}
