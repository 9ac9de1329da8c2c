//! What would happen to a session now, and why.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, Method, Version};
use rand::RngCore;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::admin::problem::Problem;
use crate::app::state::AppState;
use crate::message::{Fields, RequestView};
use crate::persistence::{PoolRuntime, Scope, named_identity, parse_fingerprint};
use crate::session::binding::Lookup;
use crate::session::client_identity::ClientIdentity;
use crate::session::source::{SessionName, request_naming};

use super::explained::{ExplainedSession, ExplainedSessions};
use super::view::{ExplanationView, StepView};

/// A request that names a session, as far as that matters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExplainRequest {
    /// The pool.
    pool: String,
    /// A Cookie header, or the value of the proxy's own cookie: a token.
    cookie: Option<String>,
    /// An id of the application, wherever the pool's sources read one.
    id: Option<String>,
    /// The address of the client.
    address: Option<IpAddr>,
    /// SHA-256 of the client's certificate, in hexadecimal digits. With `bind_to: client_certificate`.
    certificate: Option<String>,
    /// The client's user. With `bind_to: user` or `header:NAME`.
    user: Option<String>,
}

pub(crate) async fn explain(
    app: &Arc<AppState>,
    explained: &ExplainedSessions,
    asked: ExplainRequest,
) -> Result<ExplanationView, Problem> {
    let runtime = app.current.load_full();
    let pool = runtime.pools.iter().find(|pool| *pool.pool.name == *asked.pool);
    let pool = pool.ok_or_else(|| Problem::not_found(format!("pool {:?} does not exist", asked.pool)))?;
    if asked.cookie.is_none() && asked.id.is_none() && asked.address.is_none() {
        return Err(Problem::unprocessable("name a session: by cookie, id or address"));
    }
    let (fields, target) = request_of(&asked, pool)?;
    let scope = Scope {
        pools: &runtime.pools,
        route: None,
        request: RequestView::http1(&Method::GET, target.as_bytes(), Version::HTTP_11, Fields::Map(&fields)),
        client: asked.address,
        secure: false,
        peer_trusted: false,
        forwarded_host: None,
        certificate: None,
        now: (app.clock)(),
        random: |bytes| rand::thread_rng().fill_bytes(bytes),
    };
    let identity = identity_of(&asked, pool)?;
    let explanation = app.sessions.explain(pool, identity, &scope).await;
    let (server, binding) = (explanation.server.clone(), explanation.epoch.zip(explanation.created));
    if explanation.lookup == Lookup::Restored
        && let (Some(key), Some(server), Some((epoch, created))) = (explanation.key, server, binding)
    {
        explained.note(ExplainedSession { key, pool: asked.pool.clone(), server, epoch, created, at: scope.now });
    }
    let steps = explanation.steps.into_iter().map(|step| StepView { subject: step.subject, said: step.said });
    Ok(ExplanationView {
        pool: asked.pool,
        lookup: explanation.lookup.label(),
        source: explanation.source,
        key: explanation.key.map(|key| format!("{:032x}", runtime.log_key.digest(key))),
        server: explanation.server,
        epoch: explanation.epoch,
        chosen: explanation.chosen,
        outcome: explanation.outcome.map(Into::into),
        reason: explanation.reason.map(Into::into),
        steps: steps.collect(),
    })
}

/// The client that the session is asked for.
fn identity_of(asked: &ExplainRequest, pool: &PoolRuntime) -> Result<Option<ClientIdentity>, Problem> {
    let bind_to = pool.persistence.as_ref().and_then(|persistence| persistence.bind_to.as_ref());
    let certificate = match asked.certificate.as_deref() {
        Some(text) => Some(parse_fingerprint(text).ok_or_else(|| {
            Problem::unprocessable(
                "certificate: SHA-256 in 64 hexadecimal digits, as `openssl x509 -fingerprint -sha256`",
            )
        })?),
        None => None,
    };
    Ok(bind_to.and_then(|bind_to| named_identity(bind_to, certificate.as_ref(), asked.user.as_deref())))
}

/// The request that the operator asks about.
fn request_of(asked: &ExplainRequest, pool: &PoolRuntime) -> Result<(HeaderMap, String), Problem> {
    let Some(persistence) = &pool.persistence else { return Ok((HeaderMap::new(), "/".to_owned())) };
    let (token, cookies) = match asked.cookie.as_deref().map(str::trim) {
        Some(text) if text.contains('=') => (None, Some(text)),
        text => (text, None),
    };
    let name = SessionName { cookies, token, id: asked.id.as_deref() };
    request_naming(name, &persistence.policy.sources, &persistence.policy.cookie)
        .map_err(|error| Problem::unprocessable(error.to_string()))
}
