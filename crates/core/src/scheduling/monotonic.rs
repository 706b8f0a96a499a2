//! Monotonic time, which every decision here is given as an argument.

use std::time::Duration;

/// A point in monotonic time, as the duration since an arbitrary origin of the process.
pub type Moment = Duration;
