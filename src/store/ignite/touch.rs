//! Touches extend the time to live of entries, and never shorten it.
//!
//! Ignite sets the time to live as part of a read, for any number of keys at once, on all copies. It cannot set it only where
//! that is longer. So each entry contains its time to live ([`Stored::life`]): the remaining time never exceeds that, and
//! setting it again shortens none. Two round trips for a batch: read, and renew. An entry with a shorter time to live than the
//! touch is written again with the longer one, by compare-and-set.

use std::collections::{BTreeMap, HashMap};

use futures_util::future::try_join_all;

use super::connection::Connection;
use super::protocol::request::{Cache, Request};
use super::protocol::response;
use super::stored::{Life, Stored};
use super::writes::replace;
use crate::store::engine::{Kind, Name, StoreError};

/// How often an entry is read that others write concurrently.
const MAX_ATTEMPTS: usize = 16;

/// Names of one kind, each with its time to live.
pub(super) struct Touches<'a> {
    pub(super) connection: &'a Connection,
    pub(super) cache: Cache,
    pub(super) kind: Kind,
    pub(super) lives: Vec<(&'a Name, Life)>,
}

impl<'a> Touches<'a> {
    pub(super) async fn renew(mut self) -> Result<(), StoreError> {
        for _ in 0..MAX_ATTEMPTS {
            if self.lives.is_empty() {
                return Ok(());
            }
            self.lives = self.round().await?;
        }
        // An entry that is written so often lives long enough.
        Ok(())
    }

    /// Returns what is left to do: entries that were written concurrently.
    async fn round(&self) -> Result<Vec<(&'a Name, Life)>, StoreError> {
        let names = self.lives.iter().map(|(name, _)| name.as_str());
        let kept = self.kept(Request::get_all(self.cache, names)).await?;
        let mut renewals: BTreeMap<Life, Vec<&Name>> = BTreeMap::new();
        let mut extensions = Vec::new();
        for (name, life) in &self.lives {
            let Some(stored) = kept.get(name.as_str()) else { continue };
            match stored.life.filter(|given| given >= life) {
                Some(given) => renewals.entry(given).or_default().push(*name),
                None => extensions.push((*name, stored, *life)),
            }
        }
        let renewed = try_join_all(renewals.iter().map(|(life, names)| self.renew_all(*life, names))).await?;
        let extended = try_join_all(extensions.into_iter().map(|one| self.extend(one))).await?;
        Ok(renewed.into_iter().flatten().chain(extended.into_iter().flatten()).collect())
    }

    /// Returns those that got a longer time to live from another proxy meanwhile, which was shortened to this one.
    async fn renew_all<'n>(&self, life: Life, names: &[&'n Name]) -> Result<Vec<(&'n Name, Life)>, StoreError> {
        let keys = names.iter().map(|name| name.as_str());
        let kept = self.kept(Request::get_all_and_renew(self.cache, keys, life.duration())).await?;
        let cut = |name: &&'n Name| {
            let given = kept.get(name.as_str())?.life.filter(|given| *given > life)?;
            Some((*name, given))
        };
        Ok(names.iter().filter_map(cut).collect())
    }

    /// Returns it again if it was written concurrently.
    async fn extend<'n>(
        &self,
        (name, stored, life): (&'n Name, &Stored, Life),
    ) -> Result<Option<(&'n Name, Life)>, StoreError> {
        let longer = stored.with_life(self.kind, life)?;
        let done = replace(self.connection, self.cache, name, [stored, &longer], life).await?;
        Ok((!done).then_some((name, life)))
    }

    /// The stored entries by key. Values in another format are skipped.
    async fn kept(&self, request: Request) -> Result<HashMap<Box<str>, Stored>, StoreError> {
        let entries = self.connection.ask_for(request, response::entries).await?;
        Ok(entries
            .into_iter()
            .filter_map(|(key, value)| Some((key.as_text()?.into(), Stored::read(value).ok()??)))
            .collect())
    }
}
