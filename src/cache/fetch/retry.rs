//! Waiting between the attempts of one fetch.

use std::time::Duration;

use tokio::time::Instant;

use super::super::options::CLIENT_TIMEOUT;
use crate::{
    error::Error,
    resource::Resource,
    upstream::{Failure, retry_delay},
};

/// Sleeps until the next attempt after `attempts` failed ones.
///
/// # Errors
/// The last failure, if it is final, or if the next attempt would begin after clients have given up. They have been
/// waiting since `waiting_since`.
pub(super) async fn wait_for_retry(
    resource: &Resource,
    failure: Failure,
    attempts: usize,
    waiting_since: Instant,
) -> Result<(), Error> {
    let left: Duration = CLIENT_TIMEOUT.saturating_sub(waiting_since.elapsed());
    match retry_delay(&failure, attempts, fastrand::f64()) {
        Some(delay) if delay < left => {
            tokio::time::sleep(delay).await;
            Ok(())
        }
        Some(_) | None => Err(Error::Upstream {
            resource: resource.to_string(),
            failure,
            tried: attempts,
        }),
    }
}
