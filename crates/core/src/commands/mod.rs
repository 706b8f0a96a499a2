//! Decisions of the operators' commands: `ensign check`, `ensign teardown`, `ensign orphans`.

pub mod check;
pub mod entra_codes;
pub mod exchange;
pub mod orphans;
pub mod teardown;
