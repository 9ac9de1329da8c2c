//! One order for one host (RFC 8555, section 7.4): the challenge is published, the authority looks at it, and signs.

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, Identifier, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use zeroize::Zeroizing;

use crate::config::AcmeChallenge;

use super::certificate::IssuedCertificate;
use super::challenges::{Challenge, Challenges};
use super::shared::SharedNotes;

/// How often the authority is asked whether it is done, and for how long.
const POLLS: RetryPolicy = RetryPolicy::new().backoff(1.5).timeout(Duration::from_secs(80));

/// Why there is no certificate.
#[derive(Debug)]
pub(super) enum OrderError {
    /// The authority has refused.
    Refused(String),
    /// It does not know the account.
    NoAccount(String),
    /// It could not be asked, or failed itself.
    Unreachable(String),
}

impl From<Error> for OrderError {
    fn from(error: Error) -> Self {
        match &error {
            Error::Api(problem) => {
                let is = |word: &str| problem.r#type.as_deref().is_some_and(|kind| kind.ends_with(word));
                let is_internal = is(":serverInternal") || problem.status.is_some_and(|status| status >= 500);
                if is(":accountDoesNotExist") {
                    Self::NoAccount(error.to_string())
                } else if is_internal {
                    Self::Unreachable(error.to_string())
                } else {
                    Self::Refused(error.to_string())
                }
            }
            Error::Timeout(_) => Self::Refused(error.to_string()),
            _ => Self::Unreachable(error.to_string()),
        }
    }
}

/// What an order needs.
pub(super) struct OrderContext<'a> {
    pub(super) account: &'a Account,
    pub(super) kind: AcmeChallenge,
    pub(super) challenges: &'a Challenges,
    pub(super) notes: Option<&'a SharedNotes<'a>>,
    /// The certificate that is renewed.
    pub(super) replaces: Option<&'a CertificateIdentifier<'static>>,
}

impl OrderContext<'_> {
    /// Orders a certificate for a host.
    pub(super) async fn run(&self, host: &str) -> Result<IssuedCertificate, OrderError> {
        let mut order = self.begin(host).await?;
        let mut published = Published { challenges: self.challenges, all: Vec::new() };
        let answered = self.answer(&mut order, host, &mut published).await;
        if let Some(notes) = self.notes {
            for challenge in &published.all {
                // What cannot be removed ends with its time.
                let _ = notes.withdraw(challenge).await;
            }
        }
        answered?;
        finish(&mut order, host).await
    }

    /// An authority that does not take the name of the certificate that is renewed gets an order without it.
    async fn begin(&self, host: &str) -> Result<Order, OrderError> {
        let identifiers = [Identifier::Dns(host.to_owned())];
        if let Some(replaces) = self.replaces {
            match self.account.new_order(&NewOrder::new(&identifiers).replaces(replaces.clone())).await {
                Err(Error::Api(problem)) if problem.r#type.as_deref().is_some_and(is_about_replacing) => {}
                // Not named in the response: it does not know the name.
                Err(Error::Unsupported(_) | Error::Other(_)) => {}
                order => return Ok(order?),
            }
        }
        Ok(self.account.new_order(&NewOrder::new(&identifiers)).await?)
    }

    /// Until the authority has seen all challenges.
    async fn answer(&self, order: &mut Order, host: &str, published: &mut Published<'_>) -> Result<(), OrderError> {
        let kind = match self.kind {
            AcmeChallenge::Http01 => ChallengeType::Http01,
            AcmeChallenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
        };
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let Some(mut offered) = authorization.challenge(kind.clone()) else {
                return Err(OrderError::Refused("the authority does not offer the challenge".to_owned()));
            };
            let subject = match self.kind {
                AcmeChallenge::Http01 => offered.token.clone(),
                AcmeChallenge::TlsAlpn01 => host.to_owned(),
            };
            let authorization = offered.key_authorization().as_str().to_owned();
            let challenge = Challenge { kind: self.kind, subject, authorization };
            if let Some(notes) = self.notes
                && notes.publish(&challenge).await.is_err()
            {
                return Err(OrderError::Unreachable("the shared store does not take the challenge".to_owned()));
            }
            published.add(challenge);
            offered.set_ready().await?;
        }
        match order.poll_ready(&POLLS).await {
            Ok(OrderStatus::Invalid) => Err(OrderError::Refused(why_invalid(order).await)),
            Ok(_) => Ok(()),
            Err(error @ Error::Api(_)) if order.state().status == OrderStatus::Invalid => {
                let (error, why) = (error.to_string(), why_invalid(order).await);
                Err(OrderError::Refused(if why == error { error } else { format!("{error}; {why}") }))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// RFC 9773, section 5; authorities that only ever knew drafts say "malformed".
fn is_about_replacing(kind: &str) -> bool {
    ["alreadyReplaced", "malformed", "conflict", "unauthorized"].iter().any(|word| kind.ends_with(&format!(":{word}")))
}

async fn finish(order: &mut Order, host: &str) -> Result<IssuedCertificate, OrderError> {
    let (key, request) = request(host).map_err(|error| OrderError::Unreachable(error.to_string()))?;
    order.finalize_csr(&request).await?;
    let chain = order.poll_certificate(&POLLS).await?;
    let pem = Zeroizing::new(format!("{}{chain}", key.as_str()));
    IssuedCertificate::parse(host, &pem)
        .map_err(|why| OrderError::Refused(format!("what the authority has issued cannot be used: {why}")))
}

/// A new key for each certificate, and the request to sign it.
fn request(host: &str) -> Result<(Zeroizing<String>, Vec<u8>), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![host.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key)?;
    Ok((Zeroizing::new(key.serialize_pem()), request.der().to_vec()))
}

/// What the authority did not like about a challenge.
async fn why_invalid(order: &mut Order) -> String {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if let Ok(state) = authorization.refresh().await
            && let Some(error) = state.challenges.iter().find_map(|challenge| challenge.error.as_ref())
        {
            return error.to_string();
        }
    }
    "the authority found the order invalid".to_owned()
}

/// Challenges are answered until the order is over, however it ends.
struct Published<'a> {
    challenges: &'a Challenges,
    all: Vec<Challenge>,
}

impl Published<'_> {
    fn add(&mut self, challenge: Challenge) {
        self.challenges.add(challenge.clone());
        self.all.push(challenge);
    }
}

impl Drop for Published<'_> {
    fn drop(&mut self) {
        self.all.iter().for_each(|challenge| self.challenges.remove(challenge));
    }
}
