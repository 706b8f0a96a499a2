//! Durations on the command line, written as Kubernetes writes them: `15s`, `1h30m`, `500ms`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use k8s_openapi::jiff::fmt::friendly::{Spacing, SpanParser, SpanPrinter};

/// A duration as the value of a flag. It is parsed from, and shown in, the same format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DurationArg(Duration);

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a duration with units, such as 15s, 15m, 1h30m or 500ms")]
pub struct InvalidDuration;

impl DurationArg {
    /// A duration of whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// A duration of whole milliseconds.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }

    /// The duration.
    pub const fn get(self) -> Duration {
        self.0
    }

    /// The duration in seconds, unless it has a fraction of one.
    pub fn whole_seconds(self) -> Option<u64> {
        (self.0.subsec_nanos() == 0).then_some(self.0.as_secs())
    }
}

impl FromStr for DurationArg {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // jiff also reads "1 hour, 30 minutes", "1:30:00" and signs.
        if !text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'.') {
            return Err(InvalidDuration);
        }
        SpanParser::new().parse_unsigned_duration(text).map(Self).map_err(|_| InvalidDuration)
    }
}

impl fmt::Display for DurationArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let printer = SpanPrinter::new().spacing(Spacing::None);
        f.write_str(&printer.unsigned_duration_to_string(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Duration, InvalidDuration> {
        text.parse().map(DurationArg::get)
    }

    #[test]
    fn durations_are_read_as_in_kubernetes() {
        for (text, milliseconds) in [
            ("0s", 0),
            ("500ms", 500),
            ("15s", 15_000),
            ("15m", 900_000),
            ("90m", 5_400_000),
            ("1h30m", 5_400_000),
            ("1h30m15s500ms", 5_415_500),
            ("1.5h", 5_400_000),
            ("24h", 86_400_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_rejected_with_what_is_expected() {
        for text in [
            "",
            " ",
            "15",
            "0",
            "s",
            "-15s",
            "+15s",
            "15 s",
            " 15s",
            "15s ",
            "1h 30m",
            "1h,30m",
            "1:30:00",
            "15sec ago",
            "15x",
            "1d",
            "1w",
            "1mo",
            "1y",
            "30m1h",
            "15s15s",
            ".s",
            "1..5s",
            "9999999999999999999999s",
            "PT15S",
            "15µs",
        ] {
            assert_eq!(parse(text), Err(InvalidDuration), "{text:?}");
        }
        assert!(InvalidDuration.to_string().contains("1h30m"));
    }

    #[test]
    fn durations_are_shown_as_people_write_them() {
        for text in ["0s", "500ms", "15s", "1m30s", "15m", "1h30m", "24h"] {
            assert_eq!(text.parse::<DurationArg>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_fraction_of_a_second_is_not_whole_seconds() {
        assert_eq!(DurationArg::from_secs(90).whole_seconds(), Some(90));
        assert_eq!(DurationArg::from_millis(1_500).whole_seconds(), None);
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(milliseconds in 0..=u64::from(u32::MAX)) {
            let duration = DurationArg::from_millis(milliseconds);
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }
    }
}
