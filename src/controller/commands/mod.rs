//! Commands that operators run against a cluster: `ensign check`, `ensign orphans`, `ensign teardown`.

pub(crate) mod check;
pub(crate) mod exchange;
pub(crate) mod orphans;
pub(crate) mod teardown;
