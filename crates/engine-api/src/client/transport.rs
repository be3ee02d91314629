//! Where a daemon listens, and connections to it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::request::RequestBody;
use super::{Error, Result};

/// Where a daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A socket in the file system.
    Unix(PathBuf),
    /// `host:port`; unencrypted, so for loopback and trusted networks only.
    Tcp(String),
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        if let Some(path) = url.strip_prefix("unix://") {
            if path.starts_with('/') && !path.contains('\0') {
                return Ok(Self::Unix(PathBuf::from(path)));
            }
        } else if let Some(authority) =
            url.strip_prefix("tcp://").or_else(|| url.strip_prefix("http://"))
        {
            let authority = authority.trim_end_matches('/');
            let port = authority.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            if port.is_some_and(|(_, port)| port.parse::<u16>().is_ok()) && !authority.contains('/')
            {
                return Ok(Self::Tcp(authority.to_owned()));
            }
        }
        Err(Error::url(url))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "unix://{}", path.display()),
            Self::Tcp(authority) => write!(formatter, "tcp://{authority}"),
        }
    }
}

impl Endpoint {
    /// What to send as `Host`.
    pub(super) fn host(&self) -> &str {
        match self {
            Self::Unix(_) => "localhost",
            Self::Tcp(authority) => authority,
        }
    }

    /// Opens a connection and leaves it to a task, which ends with the exchange.
    pub(super) async fn open(&self) -> Result<http1::SendRequest<RequestBody>> {
        match self {
            Self::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                handshake(stream.map_err(|source| Error::connect(self, source))?).await
            }
            Self::Tcp(authority) => {
                let stream = TcpStream::connect(authority).await;
                let stream = stream.map_err(|source| Error::connect(self, source))?;
                // Interactive bytes should not wait for each other; the connection works without, too.
                let _ = stream.set_nodelay(true);
                handshake(stream).await
            }
        }
    }
}

async fn handshake<S>(stream: S) -> Result<http1::SendRequest<RequestBody>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(Error::exchange)?;
    // A failure of the connection reaches the caller through the response or its body.
    tokio::spawn(connection.with_upgrades());
    Ok(sender)
}
