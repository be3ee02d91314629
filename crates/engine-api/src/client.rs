//! An HTTP/1.1 client of the Engine API over a unix socket or TCP.
//!
//! Each call uses a connection of its own: connecting to a unix socket costs microseconds, and a connection that is
//! streaming or hijacked can serve nothing else anyway. Dropping a call, or the stream it returned, closes its
//! connection, by which the daemon learns that nobody waits any more. There are no timeouts; wrap a call where one
//! is wanted.

mod containers;
mod describe;
mod error;
mod exec;
mod hijack;
mod images;
mod networks;
mod request;
mod streams;
mod system;
mod transport;
mod volumes;

use std::fmt;

pub use containers::Waiting;
pub use describe::ObjectKind;
pub use error::{Error, ErrorKind};
pub use hijack::{Hijacked, HijackedInput};
pub use request::Upload;
pub use streams::{ByteStream, JsonStream, OutputStream};
pub use transport::Endpoint;

use crate::{API_VERSION, ApiVersion, MIN_API_VERSION};

/// The result of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A client of one daemon. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    endpoint: Endpoint,
    version: ApiVersion,
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Client({}, v{})", self.endpoint, self.version)
    }
}

impl Client {
    /// A client of the daemon at `url`: `unix:///path` or `tcp://host:port`. Does not connect.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when `url` is neither.
    pub fn new(url: &str) -> Result<Self> {
        Ok(Self { endpoint: url.parse()?, version: API_VERSION })
    }

    /// As [`new`](Self::new), then asks the daemon whether it is there and agrees on a version with it.
    ///
    /// # Errors
    /// [`ErrorKind::NotRunning`] when nothing listens, [`ErrorKind::Denied`] when the socket may not be opened,
    /// [`ErrorKind::Unsupported`] when the daemon is too old.
    pub async fn connect(url: &str) -> Result<Self> {
        let mut client = Self::new(url)?;
        let ping = client.ping().await?;
        if let Some(theirs) = ping.api_version {
            if theirs < MIN_API_VERSION {
                return Err(Error::too_old(&client.endpoint, theirs));
            }
            client.version = theirs.min(API_VERSION);
        }
        Ok(client)
    }

    /// Where the daemon listens.
    #[must_use]
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The API version that requests are sent in.
    #[must_use]
    pub const fn version(&self) -> ApiVersion {
        self.version
    }
}

#[cfg(test)]
mod tests;
