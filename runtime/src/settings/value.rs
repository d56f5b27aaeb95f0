//! One value as the user wrote it, and its units.

use std::ops::RangeInclusive;
use std::time::Duration;

const SIZES: &[(&str, u64)] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const TIMES: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("min", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("s", 1_000_000_000),
];

/// The text of a value. A failure says what would be right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'a>(pub(super) &'a str);

impl Value<'_> {
    /// `on` or `off`.
    pub(super) fn switch(self) -> Result<bool, String> {
        match self.0 {
            "on" | "true" => Ok(true),
            "off" | "false" => Ok(false),
            _ => Err("on or off".to_owned()),
        }
    }

    /// A whole number in a range.
    pub(super) fn number<T>(self, range: RangeInclusive<T>) -> Result<T, String>
    where
        T: Copy + PartialOrd + std::fmt::Display + std::str::FromStr,
    {
        let found: Option<T> = self.0.parse().ok();
        found
            .filter(|number| range.contains(number))
            .ok_or_else(|| format!("a whole number from {} to {}", range.start(), range.end()))
    }

    /// A power of two in a range.
    pub(super) fn power_of_two(self, range: RangeInclusive<u32>) -> Result<u32, String> {
        let wanted = || format!("a power of two from {} to {}", range.start(), range.end());
        let number = self.number(range.clone()).map_err(|_range| wanted())?;
        if number.is_power_of_two() { Ok(number) } else { Err(wanted()) }
    }

    /// Bytes, such as `64KiB`, in a range.
    pub(super) fn size(self, range: RangeInclusive<u32>) -> Result<u32, String> {
        let found = self.with_unit(SIZES, Some(1)).and_then(|bytes| u32::try_from(bytes).ok());
        found.filter(|bytes| range.contains(bytes)).ok_or_else(|| {
            format!(
                "a size from {} to {}, such as 64KiB",
                size_text(*range.start()),
                size_text(*range.end())
            )
        })
    }

    /// A time, such as `40ms`, in a range of nanoseconds.
    pub(super) fn time_ns(self, range: RangeInclusive<u64>) -> Result<u64, String> {
        let found = self.with_unit(TIMES, None);
        found.filter(|ns| range.contains(ns)).ok_or_else(|| {
            format!(
                "a time from {:?} to {:?} with its unit, such as 40ms",
                Duration::from_nanos(*range.start()),
                Duration::from_nanos(*range.end())
            )
        })
    }

    /// One of some words.
    pub(super) fn one_of<T: Copy>(self, words: &[(&str, T)]) -> Result<T, String> {
        let found = words.iter().find(|(word, _)| *word == self.0).map(|(_, meaning)| *meaning);
        found.ok_or_else(|| {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            words.join(" or ")
        })
    }

    /// A number with a unit; without one only if `plain` says what it counts.
    fn with_unit(self, units: &[(&str, u64)], plain: Option<u64>) -> Option<u64> {
        let split = self.0.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.0.len());
        let (number, unit) = self.0.split_at(split);
        let number: u64 = number.parse().ok()?;
        let factor = match unit.trim_start() {
            "" if number == 0 => 1,
            "" => plain?,
            unit => units.iter().find(|(name, _)| *name == unit)?.1,
        };
        number.checked_mul(factor)
    }
}

fn size_text(bytes: u32) -> String {
    let bytes = u64::from(bytes);
    let unit = SIZES.iter().find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor));
    unit.map_or_else(|| bytes.to_string(), |(name, factor)| format!("{}{name}", bytes / factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("4096", Some(4096)),
            ("64KiB", Some(65_536)),
            ("1 MiB", Some(1 << 20)),
            ("2GiB", Some(1 << 31)),
            ("4GiB", None),
            ("64K", None),
            ("64KB", None),
            ("-1", None),
            ("", None),
            ("99999999999999999999GiB", None),
        ] {
            assert_eq!(Value(text).size(0..=u32::MAX).ok(), bytes, "{text}");
        }
        let error = Value("0").size(1024..=1 << 30).unwrap_err();
        assert_eq!(error, "a size from 1KiB to 1GiB, such as 64KiB");
    }

    #[test]
    fn times_need_units() {
        for (text, ns) in [
            ("40ms", Some(40_000_000)),
            ("2min", Some(120_000_000_000)),
            ("3 s", Some(3_000_000_000)),
            ("1h", Some(3_600_000_000_000)),
            ("0", Some(0)),
            ("40", None),
            ("1.5s", None),
        ] {
            assert_eq!(Value(text).time_ns(0..=u64::MAX).ok(), ns, "{text}");
        }
        let error = Value("9s").time_ns(0..=500_000_000).unwrap_err();
        assert_eq!(error, "a time from 0ns to 500ms with its unit, such as 40ms");
    }
}
