//! Where a client may get a resource from upstream itself, when larder cannot serve it (setting `on-trouble`).
//!
//! A client that asks upstream gets upstream's bytes, past the rules of `trust`. So a resource that a rule may be about
//! has no such address.

use url::Url;

use super::Cache;
use crate::resource::{Resource, Source};

impl Cache {
    /// The address of `resource` upstream, for a client. `None` offline, if a rule may be about it, or if the address
    /// is not known or has a password. Never asks upstream.
    pub async fn address_past_larder(&self, resource: &Resource) -> Option<Url> {
        if self.is_offline() || !self.0.trust.permits_bypass(resource) {
            return None;
        }
        let url = match resource.source() {
            Source::At(url) => url,
            Source::NamedBy(naming) => {
                let located = resource.located()?;
                located.locate(&self.peek(&naming).await?).ok()?
            }
        };
        let is_public = url.username().is_empty() && url.password().is_none();
        is_public.then_some(url)
    }
}
