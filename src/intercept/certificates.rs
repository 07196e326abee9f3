//! Certificates for the intercepted hosts.
//!
//! ```text
//!   authority   names: intercepted hosts and below     its key is dropped before this module returns
//!      └─ signs one certificate per host               their keys stay in this process's memory
//! ```
//!
//! Clients must trust the authority, so the authority must not be able to sign much. Its certificate permits the
//! intercepted hosts and names below them (RFC 5280, section 4.2.1.10) and expires soon, and its key is gone. A client
//! that trusts the authority for longer than necessary risks nothing. The authority of a daemon is the exception: it
//! has to outlive the process, see `authority_folder`.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CidrSubnet, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints,
};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio_rustls::TlsAcceptor;

use super::RootsError;
use crate::clock::now;

/// Time for which the certificates are valid. Longer than a shell stays open that was started with `larder run`.
pub const VALID_FOR: Duration = Duration::from_secs(30 * 86_400);
/// Time before now from which they are valid: the clocks of containers differ a little.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(3600);

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A host name that cannot stand in a certificate, or no random numbers.
    #[error("cannot make a certificate: {0}")]
    Sign(#[from] rcgen::Error),
    /// The folder of a persistent authority cannot be used.
    #[error("cannot write certificates in {}: {}", .0.display(), .1)]
    File(PathBuf, io::Error),
    /// The root certificates that the user's settings name cannot be read.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// TLS refuses the certificate.
    #[error("cannot use a certificate: {0}")]
    Tls(#[from] rustls::Error),
}

/// Certificates of one authority.
#[derive(Clone)]
pub struct Certificates {
    authority_pem: String,
    acceptors: HashMap<String, TlsAcceptor>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates")
            .field("hosts", &self.acceptors.keys())
            .finish_non_exhaustive()
    }
}

impl Certificates {
    /// Makes an authority for these hosts (names and addresses, without ports), and a certificate for each.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn issue(hosts: &BTreeSet<String>) -> Result<Self, CertificateError> {
        let begin = now();
        let authority = authority_of(KeyPair::generate()?, hosts, begin)?;
        Self::signed_by(&authority, hosts, begin)
    }

    /// A certificate of this authority for each host.
    pub(super) fn signed_by(
        authority: &CertifiedIssuer<'_, KeyPair>,
        hosts: &BTreeSet<String>,
        begin: SystemTime,
    ) -> Result<Self, CertificateError> {
        let acceptors = hosts.iter().map(|host| {
            let (certificate, key) = host_certificate(host, begin, authority)?;
            Ok((host.clone(), acceptor(certificate, key)?))
        });
        Ok(Self {
            acceptors: acceptors.collect::<Result<_, CertificateError>>()?,
            authority_pem: authority.pem(),
        })
    }

    /// The authority's certificate, PEM.
    pub fn authority_pem(&self) -> &str {
        &self.authority_pem
    }

    /// Ends TLS for this host.
    pub fn acceptor(&self, host: &str) -> Option<&TlsAcceptor> {
        self.acceptors.get(host)
    }
}

/// The authority with this key, for these hosts.
pub(super) fn authority_of(
    key: KeyPair,
    hosts: &BTreeSet<String>,
    begin: SystemTime,
) -> Result<CertifiedIssuer<'static, KeyPair>, CertificateError> {
    let mut params = parameters("larder: authority for intercepted hosts", begin);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.name_constraints = Some(constraints(hosts));
    Ok(CertifiedIssuer::self_signed(params, key)?)
}

/// Permits these hosts alone. A kind of name of which nothing is permitted would be free, so all of it is excluded.
fn constraints(hosts: &BTreeSet<String>) -> NameConstraints {
    let permitted: Vec<_> = hosts
        .iter()
        .map(|host| match ip_address(host) {
            Some(ip @ IpAddr::V4(_)) => {
                GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(ip, 32))
            }
            Some(ip @ IpAddr::V6(_)) => {
                GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(ip, 128))
            }
            None => GeneralSubtree::DnsName(host.clone()),
        })
        .collect();
    let mut excluded = Vec::new();
    if !permitted
        .iter()
        .any(|tree| matches!(tree, GeneralSubtree::DnsName(_)))
    {
        excluded.push(GeneralSubtree::DnsName(String::new()));
    }
    if !permitted
        .iter()
        .any(|tree| matches!(tree, GeneralSubtree::IpAddress(_)))
    {
        excluded.push(GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix(
            [0; 4], 0,
        )));
        excluded.push(GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix(
            [0; 16], 0,
        )));
    }
    NameConstraints {
        permitted_subtrees: permitted,
        excluded_subtrees: excluded,
    }
}

fn host_certificate(
    host: &str,
    begin: SystemTime,
    authority: &CertifiedIssuer<'_, KeyPair>,
) -> Result<(CertificateDer<'static>, KeyPair), CertificateError> {
    let mut params = parameters("larder: intercepted host", begin);
    let name = ip_address(host).map_or_else(|| host.to_owned(), |ip| ip.to_string());
    params.subject_alt_names = CertificateParams::new(vec![name])?.subject_alt_names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?;
    Ok((certificate.der().clone(), key))
}

fn parameters(name: &str, begin: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (begin - CLOCK_TOLERANCE).into();
    params.not_after = (begin + VALID_FOR).into();
    params
}

/// The address in the host of a URL, where IPv6 has brackets.
fn ip_address(host: &str) -> Option<IpAddr> {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    bare.unwrap_or(host).parse().ok()
}

fn acceptor(
    certificate: CertificateDer<'static>,
    key: KeyPair,
) -> Result<TlsAcceptor, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::from(key))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use rustls::{
        RootCertStore,
        client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
        pki_types::{ServerName, UnixTime, pem::PemObject as _},
    };

    use super::*;

    /// True if a client that trusts `authority` accepts a certificate that it signed for `host`.
    fn accepts(authority: &CertifiedIssuer<'_, KeyPair>, host: &str, after: Duration) -> bool {
        let (certificate, _) = host_certificate(host, now(), authority).unwrap();
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap();
        roots.add(root).unwrap();
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let time = (now() + after)
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap();
        let time = UnixTime::since_unix_epoch(time);
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let verified =
            verifier
                .build()
                .unwrap()
                .verify_server_cert(&certificate, &[], &name, &[], time);
        verified.is_ok()
    }

    #[track_caller]
    fn check(hosts: &[&str], accepted: &[&str], refused: &[&str]) {
        let hosts: BTreeSet<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let authority = authority_of(key, &hosts, now()).unwrap();
        for host in accepted {
            assert!(accepts(&authority, host, Duration::ZERO), "{host}");
            assert!(
                !accepts(&authority, host, VALID_FOR + CLOCK_TOLERANCE),
                "{host} for ever"
            );
        }
        for host in refused {
            assert!(!accepts(&authority, host, Duration::ZERO), "{host}");
        }
    }

    #[test]
    fn the_authority_can_sign_for_the_intercepted_hosts_alone_and_not_for_long() {
        check(
            &["index.example", "files.example"],
            &["index.example", "files.example"],
            &["other.example", "example", "127.0.0.1", "::1"],
        );
        check(
            &["127.0.0.1"],
            &["127.0.0.1"],
            &["127.0.0.2", "::1", "index.example"],
        );
        let both = ["index.example", "127.0.0.1"];
        check(&both, &both, &["other.example", "127.0.0.2"]);
    }

    #[test]
    fn each_host_has_a_certificate() {
        let hosts: BTreeSet<_> = ["a.example", "[::1]"].map(str::to_owned).into();
        let certificates = Certificates::issue(&hosts).unwrap();
        assert!(certificates.acceptor("a.example").is_some());
        assert!(certificates.acceptor("[::1]").is_some());
        assert!(certificates.acceptor("b.example").is_none());
        assert!(certificates.authority_pem().contains("BEGIN CERTIFICATE"));
        assert!(!certificates.authority_pem().contains("KEY"));
    }
}
