//! The pools of a configuration.

use std::sync::Arc;

use super::pool::PoolRuntime;

/// The pools of a configuration, by their index in it.
pub struct Pools(Box<[Option<Arc<PoolRuntime>>]>);

impl Pools {
    /// A pool by its index.
    pub fn get(&self, index: usize) -> Option<&PoolRuntime> {
        self.0.get(index)?.as_deref()
    }

    /// All, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &PoolRuntime> {
        self.0.iter().flatten().map(|pool| &**pool)
    }

    /// These pools under the indexes that they have, without all others.
    #[must_use]
    pub fn only(&self, indexes: &[usize]) -> Self {
        let pools = self.0.iter().enumerate();
        Self(pools.map(|(index, pool)| pool.clone().filter(|_| indexes.contains(&index))).collect())
    }
}

impl FromIterator<PoolRuntime> for Pools {
    fn from_iter<T: IntoIterator<Item = PoolRuntime>>(pools: T) -> Self {
        Self(pools.into_iter().map(|pool| Some(Arc::new(pool))).collect())
    }
}
