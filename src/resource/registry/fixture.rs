//! A registry and index lines for the tests of this module.

use std::sync::Arc;

use url::Url;

use crate::resource::{Registries, Registry};

pub(super) fn registry() -> Arc<Registry> {
    let registries = Registries::new(Url::parse("http://127.0.0.1:9/index/").unwrap(), []);
    registries.crates_io().clone()
}

pub(super) const SUM: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

pub(super) fn line(name: &str, version: &str, sum: &str) -> String {
    format!(
        r#"{{"name":"{name}","vers":"{version}","deps":[],"cksum":"{sum}","features":{{}},"yanked":false}}"#
    )
}
