//! Durations and sizes as they are written: `1h30m`, `64KiB`. A bare number is never one.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `format` of a duration in the schema.
pub(crate) const DURATION: &str = "duration-with-unit";
/// `format` of a size in the schema.
pub(crate) const SIZE: &str = "size-with-unit";

const DURATION_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A [`Duration`] in the file, digits and a unit (`ms`, `s`, `m`, `h`, `d`), once or several times: the field has
/// `#[serde(with = "DurationText")]`.
pub(crate) struct DurationText;

/// The same where null is a value.
pub(crate) struct OptionalDurationText;

/// Bytes a second where null is a value: a size, or a number of bytes.
pub(crate) struct OptionalByteRate;

/// A number of bytes: digits and a unit (`B`, `KiB`, `MiB`, `GiB`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut millis: u64 = 0;
    while !rest.is_empty() {
        let (digits, tail) = rest.split_at_checked(rest.find(|c: char| !c.is_ascii_digit())?)?;
        let (unit, tail) =
            tail.split_at_checked(tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len()))?;
        millis = millis.checked_add(in_base_unit(digits, unit, &DURATION_UNITS)?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(Duration::from_millis(millis))
}

/// In the largest unit that takes it whole: 75s, 90m, 24h, but 7d.
pub(crate) fn duration_text(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let is_written = |unit: &str, factor: u64| millis.is_multiple_of(factor) && (unit != "d" || millis > factor);
    let whole = DURATION_UNITS.into_iter().find(|(unit, factor)| is_written(unit, *factor));
    let (unit, factor) = whole.unwrap_or(("ms", 1));
    format!("{}{unit}", millis / factor)
}

fn in_base_unit(digits: &str, unit: &str, units: &[(&str, u64)]) -> Option<u64> {
    let factor = units.iter().find(|(name, _)| *name == unit)?.1;
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

impl Size {
    /// For what is held in memory.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (digits, unit) = text.split_at_checked(text.find(|c: char| !c.is_ascii_digit())?)?;
        in_base_unit(digits, unit, &SIZE_UNITS).map(Self)
    }

    pub(crate) fn text(self) -> String {
        let whole = SIZE_UNITS.into_iter().find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor));
        let (unit, factor) = whole.unwrap_or(("B", 1));
        format!("{}{unit}", self.0 / factor)
    }
}

impl DurationText {
    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&duration_text(*duration))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        parse_duration(&String::deserialize(deserializer)?).ok_or_else(|| D::Error::custom("not a duration"))
    }
}

impl JsonSchema for DurationText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": DURATION, "pattern": "^([0-9]+(ms|s|m|h|d))+$" })
    }
}

impl OptionalDurationText {
    #[expect(clippy::ref_option, reason = "the signature that serde asks for")]
    pub(crate) fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        duration.map(duration_text).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        parse_duration(&text).map(Some).ok_or_else(|| D::Error::custom("not a duration"))
    }
}

impl JsonSchema for OptionalDurationText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "OptionalDuration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "null"], "format": DURATION, "pattern": "^([0-9]+(ms|s|m|h|d))+$" })
    }
}

impl OptionalByteRate {
    #[expect(clippy::ref_option, reason = "the signature that serde asks for")]
    pub(crate) fn serialize<S: Serializer>(rate: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        rate.map(Size).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Bytes(u64),
            Size(Size),
        }
        let written = Option::<Written>::deserialize(deserializer)?;
        Ok(written.map(|written| match written {
            Written::Bytes(bytes) | Written::Size(Size(bytes)) => bytes,
        }))
    }
}

impl JsonSchema for OptionalByteRate {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "OptionalByteRate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "string", "format": SIZE, "pattern": "^[0-9]+(B|KiB|MiB|GiB)$", "x-minimum": "1B", "x-maximum": "1GiB" },
            { "type": "integer", "minimum": 1, "maximum": 1 << 30 },
            { "type": "null" },
        ] })
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).ok_or_else(|| D::Error::custom("not a size"))
    }
}

impl JsonSchema for Size {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": SIZE, "pattern": "^[0-9]+(B|KiB|MiB|GiB)$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_need_units_and_may_have_several() {
        for (text, millis) in
            [("250ms", 250), ("30s", 30_000), ("1h30m", 5_400_000), ("0s", 0), ("400d", 34_560_000_000)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["", "30", "s", "1.5h", "-1s", "1 s", "1S", "1min", "1h30", "99999999999999999999s", "9999999999999999d"]
        {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_need_units() {
        for (text, bytes) in [("512B", 512), ("64KiB", 65_536), ("8MiB", 8 << 20), ("0B", 0)] {
            assert_eq!(Size::parse(text), Some(Size(bytes)), "{text}");
        }
        for text in ["", "512", "64K", "64KB", "64kib", "1.5MiB", "99999999999GiB", "1MiB1KiB"] {
            assert_eq!(Size::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(millis in 0u64..=400 * 86_400_000, bytes: u64) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&duration_text(duration)), Some(duration));
            prop_assert_eq!(Size::parse(&Size(bytes).text()), Some(Size(bytes)));
        }
    }
}
