//! A source for tests only, which shows what it takes to add one: this file and a line in the list. A header that an
//! authenticating proxy sets names the user, and so the session.

use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smallvec::smallvec;

use super::claim::{ExternalId, SessionClaim, SourceInput};
use super::definition::{Carriers, PoolContext, SessionSource, SourceDefinition, check_header};
use crate::config::check_context::NodeRef;
use crate::config::cookie::Cookie;
use crate::config::diagnostics::Diagnostics;
use crate::message::{RequestEdits, RequestView};
use crate::session::external_id::{ExternalIdHasher, ExternalIdKind};
use crate::session::token::codec::PoolCodec;

/// The user in a header of a proxy before this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-hidden" = true))]
pub struct UserHeaderSettings {
    /// Name of the header.
    pub header: String,
}

impl SourceDefinition for UserHeaderSettings {
    type Source = UserHeaderSource;

    fn check(&self, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Self {
        Self { header: check_header(&self.header, at.key("header"), diagnostics) }
    }

    fn carriers<'a>(&'a self, _cookie: &'a Cookie) -> Carriers<'a> {
        Carriers { header: Some(&self.header), ..Carriers::default() }
    }

    fn build(&self, pool: &PoolContext<'_>) -> UserHeaderSource {
        let hasher = ExternalIdHasher::new(pool.keys, pool.name, ExternalIdKind::Id);
        UserHeaderSource { header: HeaderName::from_bytes(self.header.as_bytes()).unwrap(), hasher }
    }
}

/// Reads the user.
pub struct UserHeaderSource {
    header: HeaderName,
    hasher: ExternalIdHasher,
}

impl SessionSource for UserHeaderSource {
    fn claim(&self, input: &SourceInput<'_>, _codec: &PoolCodec) -> SessionClaim {
        let Some(user) = input.request.fields.get(&self.header) else { return SessionClaim::Nothing };
        let id = ExternalId { key: self.hasher.key(user), former: self.hasher.former(user).collect() };
        SessionClaim::Ids(smallvec![id])
    }

    fn strip(&self, _request: &RequestView<'_>, _hidden: bool, edits: &mut RequestEdits<'_>) {
        edits.remove(self.header.clone());
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::config::{Config, LoadedConfig, Problems, ProcessEnvironment};
    use crate::session::source::claim::tests::{codec, input};
    use crate::session::token::keyring::Keyring;

    fn load(source: &str) -> Result<LoadedConfig, Problems> {
        let text = format!(
            "version: 1\nlisteners: [{{ address: 127.0.0.1:8080 }}]\npools:\n  web:\n    servers: [{{ name: a, address: 127.0.0.1:9001 }}]\n    \
             persistence:\n      sources:\n        - {source}\n"
        );
        Config::parse("homing.yaml", text, &ProcessEnvironment)
    }

    #[test]
    fn a_new_source_is_configured_checked_built_read_and_stripped() {
        let problems = load("user_header: { header: Connection }").unwrap_err().to_string();
        assert!(problems.contains("header \"Connection\" cannot name a session"), "{problems}");
        let problems = load("user_header: { heder: x }").unwrap_err().to_string();
        assert!(problems.contains("did you mean \"header\"?"), "{problems}");

        let loaded = load("user_header: { header: X-User }").unwrap();
        assert!(loaded.effective().contains("- user_header:\n          header: x-user\n"), "{}", loaded.effective());
        let policy = loaded.config.pools[0].persistence.clone().unwrap();
        let keys = Keyring::random([1; 32]).unwrap();
        let pool = PoolContext { name: "web", servers: &[("a", "a")], cookie: &policy.cookie, keys: &keys };
        let source = policy.sources[0].build(&pool);
        assert_eq!((source.label(), policy.sources[0].key()), ("user_header", "user_header"));

        let mut headers = HeaderMap::new();
        assert_eq!(source.claim(&input(&headers, "/", None), &codec()), SessionClaim::Nothing);
        headers.insert("x-user", HeaderValue::from_static("ann"));
        let input = input(&headers, "/", None);
        assert!(matches!(source.claim(&input, &codec()), SessionClaim::Ids(ids) if ids.len() == 1));
        let mut edits = RequestEdits::default();
        source.strip(&input.request, false, &mut edits);
        assert_eq!(edits.remove.as_slice(), [HeaderName::from_static("x-user")]);
    }
}
