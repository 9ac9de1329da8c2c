//! Touches: entries live longer, and never shorter.
//!
//! Ignite sets how long an entry lives as part of a read, for any number of keys at once, and tells its copies. What it
//! cannot do is set it only where that is longer. So the entry says how long it was to live ([`Stored::life`]): no entry has
//! more left than that, and setting that much shortens none. Two round trips for a batch: what is there, and the renewal. An
//! entry that was to live shorter than the touch asks for is written again with the longer life, by compare-and-set.

use std::collections::{BTreeMap, HashMap};

use futures_util::future::try_join_all;

use super::connection::Connection;
use super::protocol::request::{Cache, Request};
use super::protocol::response;
use super::stored::{Life, Stored};
use super::writes::replace;
use crate::store::engine::{Kind, Name, StoreError};

/// How often an entry is looked at that others write meanwhile.
const MOST_TRIES: usize = 16;

/// Names of one kind, and how long each is to live.
pub(super) struct Touches<'a> {
    pub(super) connection: &'a Connection,
    pub(super) cache: Cache,
    pub(super) kind: Kind,
    pub(super) lives: Vec<(&'a Name, Life)>,
}

impl<'a> Touches<'a> {
    pub(super) async fn renew(mut self) -> Result<(), StoreError> {
        for _ in 0..MOST_TRIES {
            if self.lives.is_empty() {
                return Ok(());
            }
            self.lives = self.round().await?;
        }
        // What is written so often lives long enough.
        Ok(())
    }

    /// What is left to do: entries that were written meanwhile.
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

    /// Those that another proxy has given a longer life meanwhile, which was cut to this one.
    async fn renew_all<'n>(&self, life: Life, names: &[&'n Name]) -> Result<Vec<(&'n Name, Life)>, StoreError> {
        let keys = names.iter().map(|name| name.as_str());
        let kept = self.kept(Request::get_all_and_renew(self.cache, keys, life.duration())).await?;
        let cut = |name: &&'n Name| {
            let given = kept.get(name.as_str())?.life.filter(|given| *given > life)?;
            Some((*name, given))
        };
        Ok(names.iter().filter_map(cut).collect())
    }

    /// Itself again if it was written meanwhile.
    async fn extend<'n>(
        &self,
        (name, stored, life): (&'n Name, &Stored, Life),
    ) -> Result<Option<(&'n Name, Life)>, StoreError> {
        let longer = stored.with_life(self.kind, life)?;
        let done = replace(self.connection, self.cache, name, [stored, &longer], life).await?;
        Ok((!done).then_some((name, life)))
    }

    /// What is kept, by key. Values of another form are left alone.
    async fn kept(&self, request: Request) -> Result<HashMap<Box<str>, Stored>, StoreError> {
        let entries = self.connection.ask_for(request, response::entries).await?;
        Ok(entries
            .into_iter()
            .filter_map(|(key, value)| Some((key.as_text()?.into(), Stored::read(value).ok()??)))
            .collect())
    }
}
