//! Who may use the admin listener: by host, by origin, by token.

use http::{Method, StatusCode};
use rand::RngCore;
use ring::hmac;

use crate::config::{Admin, Role};
use crate::routing::host_name;

use super::problem::Problem;
use super::request::AdminRequest;

/// The caller of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The name of the token; without tokens the user id of a unix socket's peer, or `local`.
    pub(crate) name: String,
    pub(crate) role: Role,
}

/// The rules of one listener.
pub(crate) struct Access {
    allowed_hosts: Vec<String>,
    /// Of this process: secrets are kept and compared as their tags.
    key: hmac::Key,
    tokens: Vec<Token>,
}

struct Token {
    name: String,
    role: Role,
    tag: hmac::Tag,
}

impl Access {
    pub(crate) fn of(admin: &Admin) -> Self {
        let mut secret = [0; 32];
        rand::rngs::OsRng.fill_bytes(&mut secret);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let token = |token: &crate::config::AdminToken| Token {
            name: token.name.clone(),
            role: token.role,
            tag: hmac::sign(&key, token.secret.expose().trim().as_bytes()),
        };
        Self { allowed_hosts: admin.allowed_hosts.clone(), tokens: admin.tokens.iter().map(token).collect(), key }
    }

    /// So that a web page cannot reach the listener through a name that the page's owner controls (DNS rebinding).
    pub(crate) fn check_host(&self, host: &str) -> Result<(), Problem> {
        let name = host_name(host);
        if self.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name)) {
            return Ok(());
        }
        let detail = format!("host {name:?} is not in admin.allowed_hosts");
        Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, detail))
    }

    /// Who calls, and whether that is enough for what is asked. `local_name`: of a caller that needs no token.
    pub(crate) fn authorize(
        &self,
        request: &AdminRequest,
        local_name: impl FnOnce() -> String,
    ) -> Result<Caller, Problem> {
        if request.is_cross_site() {
            return Err(Problem::forbidden("a page of another site may not use the API"));
        }
        let caller = self.caller(request.bearer(), local_name)?;
        let reads = matches!(request.method, Method::GET | Method::HEAD) || request.path == "/api/v1/explain";
        if reads || caller.role == Role::Operator {
            return Ok(caller);
        }
        Err(Problem::forbidden(format!("token {:?} is a viewer's; this needs an operator's", caller.name)))
    }

    /// Every token is compared, and each in constant time.
    fn caller(&self, presented: Option<&str>, local_name: impl FnOnce() -> String) -> Result<Caller, Problem> {
        if self.tokens.is_empty() {
            return Ok(Caller { name: local_name(), role: Role::Operator });
        }
        let unauthorized = |detail: &str| Problem::new(StatusCode::UNAUTHORIZED, detail);
        let presented =
            presented.ok_or_else(|| unauthorized("send Authorization: Bearer with a secret of admin.tokens"))?;
        let mut found = None;
        for token in &self.tokens {
            if hmac::verify(&self.key, presented.as_bytes(), token.tag.as_ref()).is_ok() {
                found = Some(token);
            }
        }
        let token = found.ok_or_else(|| unauthorized("no token of admin.tokens has this secret"))?;
        Ok(Caller { name: token.name.clone(), role: token.role })
    }
}
