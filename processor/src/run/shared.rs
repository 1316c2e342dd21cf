//! The store that is open, for queries.

use std::sync::{Arc, PoisonError, RwLock};

use crate::state::Store;

/// The store as queries see it: absent until the logs were reached, replaced after a quarantine.
#[derive(Clone, Default)]
pub struct Shared(Arc<RwLock<Option<Arc<Store>>>>);

impl Shared {
    /// A store that is open already.
    pub fn of(store: Store) -> Self {
        Self(Arc::new(RwLock::new(Some(Arc::new(store)))))
    }

    pub fn get(&self) -> Option<Arc<Store>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, store: Option<Arc<Store>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = store;
    }
}
