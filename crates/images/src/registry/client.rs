//! The client.

use std::sync::Arc;

use reqwest::Method;

use super::config::Config;
use super::credentials::Credential;
use super::session::{Session, status_error};
use super::transport::Transport;
use crate::Result;

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
