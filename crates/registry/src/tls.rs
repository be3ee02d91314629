//! The server's TLS, on rustls with ring.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::error::{Error, ErrorKind, Result};

/// Makes an acceptor of a certificate chain and a key.
pub(crate) fn acceptor(chain: &Path, key: &Path) -> Result<TlsAcceptor> {
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| invalid(format!("read certificates {}", chain.display()), source))?;
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|source| invalid(format!("read key {}", key.display()), source))?;
    let attempt = || format!("serve with {} and {}", chain.display(), key.display());
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|source| invalid(attempt(), source))?;
    let mut config = builder
        .with_no_client_auth()
        .with_single_cert(certificates, private)
        .map_err(|source| invalid(attempt(), source))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn invalid(attempt: String, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::caused(ErrorKind::InvalidInput, attempt, source)
}
