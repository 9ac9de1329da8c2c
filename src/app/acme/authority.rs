//! An authority with the proxy's account at it. The account is that of the shared store, else that on disk, else a new one.

use std::time::Duration;

use instant_acme::{Account, AccountCredentials, CertificateIdentifier, Error, ExternalAccountKey, NewAccount};

use crate::config::Acme;

use super::client::{AuthorityClient, RateLimit};
use super::order::OrderError;
use super::shared::SharedNotes;
use super::storage::{SavedAccount, Storage};

/// An authority, and how it is asked.
pub(super) struct Authority {
    client: AuthorityClient,
    pub(super) account: Account,
}

/// When a certificate should be renewed, as the authority says, and when it should be asked again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RenewalWindow {
    /// Seconds since 1970.
    pub(super) window: (f64, f64),
    pub(super) ask_after: Duration,
}

impl Authority {
    /// Finds or makes the account. The rate limit is what the authority has said about that.
    pub(super) async fn open(
        acme: &Acme,
        storage: &Storage,
        notes: Option<&SharedNotes<'_>>,
    ) -> Result<Self, (OrderError, Option<RateLimit>)> {
        let client = AuthorityClient::new(acme).map_err(|why| (OrderError::Unreachable(why), None))?;
        let account = account(acme, storage, notes, &client).await;
        let limit = client.take_rate_limit().map(|limit| RateLimit { is_of_order: false, ..limit });
        account.map(|account| Self { client, account }).map_err(|why| (why, limit))
    }

    /// What the authority has said since it was last asked this.
    pub(super) fn take_rate_limit(&self) -> Option<RateLimit> {
        self.client.take_rate_limit()
    }

    /// When a certificate should be renewed; `None`: the authority does not say.
    pub(super) async fn renewal_window(&self, identifier: &CertificateIdentifier<'_>) -> Option<RenewalWindow> {
        match self.account.renewal_info(identifier).await {
            Ok((info, ask_after)) => {
                let window = info.suggested_window;
                let seconds = |time: i64| f64::from(u32::try_from(time).unwrap_or(u32::MAX));
                let window = (seconds(window.start.unix_timestamp()), seconds(window.end.unix_timestamp()));
                Some(RenewalWindow { window, ask_after })
            }
            Err(Error::Unsupported(_)) => None,
            Err(error) => {
                tracing::debug!(%error, "the authority does not say when a certificate should be renewed");
                None
            }
        }
    }
}

async fn account(
    acme: &Acme,
    storage: &Storage,
    notes: Option<&SharedNotes<'_>>,
    client: &AuthorityClient,
) -> Result<Account, OrderError> {
    let lost = |_| OrderError::Unreachable("the shared store does not answer".to_owned());
    let shared = match notes {
        Some(notes) => notes.account().await.map_err(lost)?,
        None => None,
    };
    let shared = shared.and_then(|text| serde_json::from_str::<SavedAccount>(&text).ok());
    let is_shared = shared.is_some();
    if let Some(saved) = shared.or_else(|| storage.account()) {
        let (contact, text) = (saved.contact.clone(), credentials_text(&saved)?);
        let account = builder(client).from_credentials(saved.credentials).await?;
        if contact == acme.contact {
            if is_shared {
                keep(&contact, &text, storage, None).await?;
            } else {
                keep(&contact, &text, storage, notes).await?;
            }
        } else {
            let contact: Vec<&str> = acme.contact.iter().map(String::as_str).collect();
            account.update_contacts(&contact).await?;
            keep(&acme.contact, &text, storage, notes).await?;
        }
        return Ok(account);
    }
    let contact: Vec<&str> = acme.contact.iter().map(String::as_str).collect();
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let external = acme.external_account.as_ref();
    let external =
        external.and_then(|external| Some(ExternalAccountKey::new(external.key_id.clone(), &external.decoded_key()?)));
    let (account, credentials) = builder(client).create(&new, acme.directory.clone(), external.as_ref()).await?;
    tracing::info!(directory = acme.directory, "account created at the certificate authority");
    let text = credentials_text(&SavedAccount::new(&acme.contact, credentials))?;
    keep(&acme.contact, &text, storage, notes).await?;
    Ok(account)
}

fn builder(client: &AuthorityClient) -> instant_acme::AccountBuilder {
    Account::builder_with_http(Box::new(client.clone()))
}

fn credentials_text(saved: &SavedAccount) -> Result<zeroize::Zeroizing<String>, OrderError> {
    let text = serde_json::to_string(&saved.credentials);
    text.map(zeroize::Zeroizing::new).map_err(|error| OrderError::Unreachable(error.to_string()))
}

/// On disk and in the shared store.
async fn keep(
    contact: &[String],
    credentials: &str,
    storage: &Storage,
    notes: Option<&SharedNotes<'_>>,
) -> Result<(), OrderError> {
    let failed = |why: String| OrderError::Unreachable(format!("the account cannot be kept: {why}"));
    let credentials: AccountCredentials =
        serde_json::from_str(credentials).map_err(|error| failed(error.to_string()))?;
    let saved = SavedAccount::new(contact, credentials);
    storage.write_account(&saved).map_err(failed)?;
    if let Some(notes) = notes {
        let text =
            serde_json::to_string(&saved).map(zeroize::Zeroizing::new).map_err(|error| failed(error.to_string()))?;
        notes.put_account(&text).await.map_err(|_unavailable| failed("the shared store does not answer".to_owned()))?;
    }
    Ok(())
}
