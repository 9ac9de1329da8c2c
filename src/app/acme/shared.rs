//! What proxies with one store keep there for each other: who orders, challenges, certificates, the account, and until when
//! orders must wait. All but the lock is sealed by the keys that seal tokens.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngCore;
use ring::digest::{Context, SHA256};
use zeroize::Zeroizing;

use crate::config::{AcmeChallenge, Config};
use crate::session::key::SessionKey;
use crate::session::token::vault::Vault;
use crate::store::engine::{Kind, Name, Value};
use crate::store::shared::{SharedStore, StoreUnavailable};

use super::certificate::IssuedCertificate;
use super::challenges::Challenge;

/// In place of the pool in names: no pool's name begins so.
const POOL: &str = "_acme";
/// Longer than an order may take.
const LOCK_TTL: Duration = Duration::from_secs(240);
/// Longer than a challenge is of use.
const CHALLENGE_TTL: Duration = Duration::from_secs(600);
/// An account is written again with each order.
const ACCOUNT_TTL: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// The store, for one directory.
pub(super) struct SharedNotes<'a> {
    store: &'a SharedStore,
    vault: Vault,
    directory: &'a str,
}

impl<'a> SharedNotes<'a> {
    pub(super) fn new(store: &'a SharedStore, config: &Config, directory: &'a str) -> Self {
        let vault = Vault::new(config.keys.iter().map(|key| key.secret.expose().as_bytes()));
        Self { store, vault, directory }
    }

    /// Whether this process orders for a host now.
    pub(super) async fn lock(&self, host: &str) -> Result<bool, StoreUnavailable> {
        self.store.lock(&self.name("lock", host), LOCK_TTL).await
    }

    pub(super) async fn unlock(&self, host: &str) {
        self.store.unlock(&self.name("lock", host)).await;
    }

    pub(super) async fn certificate(&self, host: &str) -> Result<Option<IssuedCertificate>, StoreUnavailable> {
        let text = self.read(&self.name("certificate", host)).await?;
        Ok(text.and_then(|text| IssuedCertificate::parse(host, &text).ok()))
    }

    /// `now` in seconds since 1970.
    pub(super) async fn put_certificate(
        &self,
        host: &str,
        certificate: &IssuedCertificate,
        now: u64,
    ) -> Result<(), StoreUnavailable> {
        let left = u64::try_from(certificate.not_after).unwrap_or(0).saturating_sub(now);
        let epoch = u32::try_from(certificate.not_before).unwrap_or(0);
        self.put(&self.name("certificate", host), epoch, &certificate.pem, Duration::from_secs(left.max(1))).await
    }

    pub(super) async fn account(&self) -> Result<Option<Zeroizing<String>>, StoreUnavailable> {
        self.read(&self.name("account", "")).await
    }

    pub(super) async fn put_account(&self, text: &str) -> Result<(), StoreUnavailable> {
        self.put(&self.name("account", ""), 1, text, ACCOUNT_TTL).await
    }

    pub(super) async fn forget_account(&self) -> Result<(), StoreUnavailable> {
        self.store.remove_note(&self.name("account", "")).await
    }

    /// Until when orders must wait, in seconds since 1970: those of a host, or with an empty name all.
    pub(super) async fn limited_until(&self, host: &str) -> Result<u64, StoreUnavailable> {
        let text = self.read(&self.name("limit", host)).await?;
        Ok(text.and_then(|text| text.parse().ok()).unwrap_or(0))
    }

    pub(super) async fn limit(&self, host: &str, until: u64, now: u64) -> Result<(), StoreUnavailable> {
        let ttl = Duration::from_secs(until.saturating_sub(now).max(1));
        let epoch = u32::try_from(until).unwrap_or(u32::MAX);
        self.put(&self.name("limit", host), epoch, &until.to_string(), ttl).await
    }

    pub(super) async fn publish(&self, challenge: &Challenge) -> Result<(), StoreUnavailable> {
        let name = challenge_name(challenge.kind, &challenge.subject);
        self.put(&name, 1, &challenge.authorization, CHALLENGE_TTL).await
    }

    pub(super) async fn withdraw(&self, challenge: &Challenge) -> Result<(), StoreUnavailable> {
        self.store.remove_note(&challenge_name(challenge.kind, &challenge.subject)).await
    }

    /// What the authority expects, for a challenge of any directory.
    pub(super) async fn authorization(
        &self,
        kind: AcmeChallenge,
        subject: &str,
    ) -> Result<Option<Zeroizing<String>>, StoreUnavailable> {
        self.read(&challenge_name(kind, subject)).await
    }

    fn name(&self, kind: &str, subject: &str) -> Name {
        name(&[kind, self.directory, subject])
    }

    async fn read(&self, name: &Name) -> Result<Option<Zeroizing<String>>, StoreUnavailable> {
        let Some(value) = self.store.read_note(name).await? else { return Ok(None) };
        let sealed = URL_SAFE_NO_PAD.decode(value.rest()).ok();
        let text = sealed.and_then(|sealed| self.vault.open(name.as_str().as_bytes(), &sealed));
        Ok(text.and_then(|text| String::from_utf8(text).ok()).map(Zeroizing::new))
    }

    async fn put(&self, name: &Name, epoch: u32, text: &str, ttl: Duration) -> Result<(), StoreUnavailable> {
        let mut nonce = [0; 24];
        rand::thread_rng().fill_bytes(&mut nonce);
        let Some(sealed) = self.vault.seal(nonce, name.as_str().as_bytes(), text.as_bytes()) else {
            return Err(StoreUnavailable);
        };
        self.store.put_note(name, &Value::new(epoch, URL_SAFE_NO_PAD.encode(sealed).as_bytes()), ttl).await
    }
}

/// The challenge names no directory: the authority asks for a token or a host.
fn challenge_name(kind: AcmeChallenge, subject: &str) -> Name {
    let kind = match kind {
        AcmeChallenge::Http01 => "http-01",
        AcmeChallenge::TlsAlpn01 => "tls-alpn-01",
    };
    name(&[kind, subject])
}

fn name(parts: &[&str]) -> Name {
    let mut hash = Context::new(&SHA256);
    for part in parts {
        hash.update(part.as_bytes());
        hash.update(&[0]);
    }
    let key = hash.finish().as_ref().first_chunk::<16>().map_or(0, |bytes| u128::from_be_bytes(*bytes));
    Name::new(POOL, SessionKey(key), Kind::Data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_never_change_and_every_engine_takes_them() {
        let challenge = challenge_name(AcmeChallenge::Http01, "token");
        assert_eq!(challenge.as_str().len(), "_acme:".len() + 22 + ":d".len());
        assert!(challenge.parts().is_some_and(|(pool, _, kind)| pool == POOL && kind == Kind::Data));
        assert_ne!(challenge, challenge_name(AcmeChallenge::TlsAlpn01, "token"));
        assert_ne!(name(&["a", "bc"]), name(&["ab", "c"]));
    }
}
