//! A certificate authority for one fake, and the server side of TLS with it.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// The properties of the server's certificate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identity {
    /// The only name in the certificate, instead of the loopback names.
    pub(crate) name: Option<String>,
    /// Valid only in the past.
    pub(crate) expired: bool,
    /// Offers no HTTP/2.
    pub(crate) http1_only: bool,
}

/// The acceptor, and the authority's certificate as PEM.
pub(crate) fn acceptor(identity: &Identity) -> (TlsAcceptor, String) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names are valid names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "fake upstream authority");
    let key = KeyPair::generate().expect("ring generates keys");
    let authority =
        CertifiedIssuer::self_signed(params, key).expect("the parameters above are valid");

    let names = match &identity.name {
        Some(name) => vec![name.clone()],
        None => ["127.0.0.1", "::1", "localhost"]
            .map(str::to_owned)
            .to_vec(),
    };
    let mut params = CertificateParams::new(names).expect("the names are valid");
    params.use_authority_key_identifier_extension = true;
    if identity.expired {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    }
    let key = KeyPair::generate().expect("ring generates keys");
    let certificate = params
        .signed_by(&key, &authority)
        .expect("the parameters above are valid");

    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring supports the default versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .expect("the key belongs to the certificate");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if !identity.http1_only {
        config.alpn_protocols.insert(0, b"h2".to_vec());
    }
    (TlsAcceptor::from(Arc::new(config)), authority.pem())
}
