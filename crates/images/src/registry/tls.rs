//! TLS settings of a host, on rustls with ring; no process-wide state.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::config::HostConfig;
use crate::{Error, ErrorKind, Result};

/// The settings for a host. Reads files: call it where blocking is allowed.
pub(super) fn configure(host: &HostConfig, verify: bool) -> Result<ClientConfig> {
    let failed =
        |source: rustls::Error| Error::caused(ErrorKind::InvalidInput, "set up TLS", source);
    let provider = Arc::new(crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(failed)?;
    let builder = if verify {
        builder.with_root_certificates(roots(host)?)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified::new(&provider)))
    };
    let Some((chain, key)) = &host.client_certificate else {
        return Ok(builder.with_no_client_auth());
    };
    let private = PrivateKeyDer::from_pem_file(key).map_err(|source| {
        Error::caused(ErrorKind::InvalidInput, format!("read client key {}", key.display()), source)
    })?;
    builder.with_client_auth_cert(certificates(chain)?, private).map_err(failed)
}

/// The system's certificate authorities and the host's own.
fn roots(host: &HostConfig) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for path in &host.ca {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|source| {
                let attempt = format!("use certificate authority {}", path.display());
                Error::caused(ErrorKind::InvalidInput, attempt, source)
            })?;
        }
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let found =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    found.map_err(|source| {
        let attempt = format!("read certificates {}", path.display());
        Error::caused(ErrorKind::InvalidInput, attempt, source)
    })
}

/// Takes any certificate: for hosts configured as insecure. The handshake's signature is still checked.
#[derive(Debug)]
struct Unverified(WebPkiSupportedAlgorithms);

impl Unverified {
    fn new(provider: &CryptoProvider) -> Self {
        Self(provider.signature_verification_algorithms)
    }
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
