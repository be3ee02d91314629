//! The client.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use reqwest::Method;

use super::config::{Config, host_of, parse_url};
use super::credentials::Credential;
use super::session::{Session, status_error};
use super::transport::{Request, Transport, transport_error};
use crate::{Error, ErrorKind, Result};

/// A client of registries. Clones share connections.
#[derive(Clone, Debug)]
pub struct Client {
    pub(super) transport: Arc<Transport>,
}

impl Client {
    /// A client with these settings. Nothing is contacted yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { transport: Arc::new(Transport::new(config)) }
    }

    /// Downloads what a URL names, following redirects, without any credentials: an archive, say. The pieces come as they
    /// arrive; one that does not come in time ends the stream with an error.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for anything but an HTTP URL,
    /// [`NotFound`](crate::ErrorKind::NotFound), [`Unreachable`](crate::ErrorKind::Unreachable).
    pub async fn download(
        &self,
        url: &str,
    ) -> Result<impl Stream<Item = Result<Bytes>> + Send + use<>> {
        let request = Request::new(Method::GET, parse_url(url)?);
        let response = self.transport.send(&request, None).await?;
        let host = host_of(response.url());
        if !response.status().is_success() {
            return Err(status_error(&format!("download from {host}"), response).await);
        }
        let stall = self.transport.config.stall;
        Ok(stream::unfold(Some((response, host)), move |state| async move {
            let (mut response, host) = state?;
            match tokio::time::timeout(stall, response.chunk()).await {
                Ok(Ok(Some(piece))) => Some((Ok(piece), Some((response, host)))),
                Ok(Ok(None)) => None,
                Ok(Err(source)) => Some((Err(transport_error(&host, source)), None)),
                Err(_) => {
                    let attempt = format!("download from {host}: it stalls");
                    Some((Err(Error::new(ErrorKind::Unreachable, attempt)), None))
                }
            }
        }))
    }

    /// Asks the registry `domain` whether it accepts `credential`.
    ///
    /// # Errors
    /// [`Denied`](crate::ErrorKind::Denied) if it does not, [`Unreachable`](crate::ErrorKind::Unreachable).
    pub async fn login(&self, domain: &str, credential: Credential) -> Result<()> {
        let endpoint = self.transport.config.origin(domain)?;
        let session = Session::new(&self.transport, Some((domain, credential)));
        let base = self.transport.base(&endpoint).await?;
        let request = endpoint.request(Method::GET, &base, "")?;
        let response = session.send(&endpoint, &[], &request).await?;
        match response.status().is_success() {
            true => Ok(()),
            false => Err(status_error(&format!("log in to {domain}"), response).await),
        }
    }
}
