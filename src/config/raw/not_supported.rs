//! Keys of features that are not in this version: known, so that a typo near them gets a good hint, and taken only
//! with a value that switches them off. A key that was silently ignored would be a promise broken.

use std::borrow::Cow;

use schemars::JsonSchema;
use schemars::Schema;
use schemars::SchemaGenerator;
use schemars::json_schema;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::de::IgnoredAny;

/// The value of such a key: checked against the schema, then dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct NotSupported;

impl NotSupported {
    /// Such keys are never written.
    #[expect(clippy::trivially_copy_pass_by_ref, clippy::unused_self, reason = "the signature that serde asks for")]
    pub(crate) fn always(&self) -> bool {
        true
    }
}

impl<'de> Deserialize<'de> for NotSupported {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

impl JsonSchema for NotSupported {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "NotSupported".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({})
    }
}
