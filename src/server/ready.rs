//! `/-/ready`: whether a load balancer should send clients here.
//!
//! Ready means that what is stored is served. Upstream's outages, `--offline` and a full disk do not change that:
//! bridging them is larder's purpose, and another larder would have the same upstream.

use http::StatusCode;

/// The answer, given whether the daemon stops and why stored files cannot be served.
pub(super) fn readiness(is_stopping: bool, store_failure: Option<&str>) -> (StatusCode, String) {
    match (is_stopping, store_failure) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned()),
        (false, Some(failure)) => {
            let text = format!("the store cannot be used: {failure}\n");
            (StatusCode::SERVICE_UNAVAILABLE, text)
        }
        (false, None) => (StatusCode::OK, "ok\n".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_ready_unless_it_stops_or_cannot_read_its_store() {
        assert_eq!(readiness(false, None).0, 200);
        assert_eq!(
            readiness(true, None),
            (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned())
        );
        let (status, text) = readiness(false, Some("it is gone"));
        assert_eq!(
            (status.as_u16(), text.as_str()),
            (503, "the store cannot be used: it is gone\n")
        );
    }
}
