//! The regions that a process was told of: what it trusts, and what it may ask.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Code, Error, Result};
use crate::kms::{Kms, VerifyingKey};
use crate::region::{Place, Region};
use crate::store::KeyStore;

/// A region as this process knows it.
#[derive(Debug, Clone)]
pub struct KnownRegion {
    /// The region and its jurisdiction.
    pub place: Place,
    /// Verifies what the region signed.
    pub verifying_key: VerifyingKey,
    /// Its key service, where this process may use it.
    pub kms: Option<Arc<dyn Kms>>,
    /// Its key store.
    pub store: Arc<dyn KeyStore>,
}

/// All of them, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct KnownRegions(BTreeMap<Region, KnownRegion>);

impl KnownRegions {
    pub(crate) fn add(&mut self, region: KnownRegion) {
        self.0.insert(region.place.region.clone(), region);
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &KnownRegion> {
        self.0.values()
    }

    pub(crate) fn get(&self, region: &Region) -> Result<&KnownRegion> {
        self.0.get(region).ok_or_else(|| {
            let known: Vec<_> = self.0.keys().map(Region::as_str).collect();
            Error::new(Code::ConfigInvalid, format!("the region {region} is not configured"))
                .rule(format!("configured are {}", known.join(", ")))
                .advise(format!("add [regions.{region}] to the configuration, with its jurisdiction"))
        })
    }
}
