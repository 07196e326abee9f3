//! The password of a proxy that belongs to one command.
//!
//! All users of a machine reach its loopback addresses. Without a password, others could use the proxy while the
//! command runs, and with it the user's own proxy and the name and password for that. Clients take user name and
//! password from the proxy's address in their environment.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, header};
use rustls::crypto::ring;

use super::CertificateError;

/// The user name, by which other commands recognise the proxy.
pub const PROXY_USER: &str = "larder";

/// A random password.
#[derive(Clone)]
pub struct ProxyPassword(String);

impl std::fmt::Debug for ProxyPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProxyPassword")
    }
}

impl ProxyPassword {
    /// A new password of 128 bits.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn generate() -> Result<Self, CertificateError> {
        let mut bytes = [0; 16];
        let random = ring::default_provider().secure_random;
        random.fill(&mut bytes).map_err(rustls::Error::from)?;
        let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
        Ok(Self(digits.collect()))
    }

    /// The part before `@` in the proxy's address.
    pub fn user_info(&self) -> String {
        format!("{PROXY_USER}:{}", self.0)
    }

    /// True if a request has this password.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::PROXY_AUTHORIZATION);
        let given = given.and_then(|value| value.to_str().ok()?.strip_prefix("Basic "));
        let given = given.and_then(|digits| BASE64_STANDARD.decode(digits.trim()).ok());
        let expected = self.user_info();
        // Looks at all bytes, so that the time tells nothing.
        given.is_some_and(|given| {
            let bytes = given.iter().zip(expected.bytes());
            let difference = bytes.fold(0, |difference, (a, b)| difference | (a ^ b));
            given.len() == expected.len() && difference == 0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_password_is_accepted() {
        let [one, other] = [(), ()].map(|()| ProxyPassword::generate().unwrap());
        let headers = |user_info: &str| {
            let mut headers = HeaderMap::new();
            let value = format!("Basic {}", BASE64_STANDARD.encode(user_info));
            headers.insert(header::PROXY_AUTHORIZATION, value.parse().unwrap());
            headers
        };
        assert!(one.is_in(&headers(&one.user_info())));
        assert!(!one.is_in(&headers(&other.user_info())));
        assert!(!one.is_in(&headers("")));
        assert!(!one.is_in(&headers(&format!("{}0", one.user_info()))));
        assert!(!one.is_in(&HeaderMap::new()));
    }
}
