//! Connections that leave HTTP behind: attach and exec.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::{fmt, io};

use http::StatusCode;
use http::header::{CONNECTION, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWrite, WriteHalf};

use super::request::{Call, header_text};
use super::{Error, OutputStream, Result};
use crate::stream::MULTIPLEXED_STREAM;

/// A connection to the standard streams of a process.
#[derive(Debug)]
pub struct Hijacked {
    /// What the process writes.
    pub output: OutputStream,
    /// What the process reads.
    pub input: HijackedInput,
}

/// Writes to a process's stdin; `shutdown` is end of file and leaves the output open.
pub struct HijackedInput(WriteHalf<TokioIo<Upgraded>>);

impl fmt::Debug for HijackedInput {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("HijackedInput")
    }
}

impl AsyncWrite for HijackedInput {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl Call<'_> {
    /// Sends the request and takes the connection over.
    ///
    /// `tty` decides about framing when the daemon does not say: before API 1.42 the content type is always raw.
    pub(super) async fn hijack(self, tty: bool) -> Result<Hijacked> {
        let what = self.what();
        let call = self.header(CONNECTION, "Upgrade").header(UPGRADE, "tcp");
        let response = call.response().await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::not_hijacked(what, response.status()));
        }
        let multiplexed = header_text(&response, "content-type") == Some(MULTIPLEXED_STREAM);
        let upgraded = hyper::upgrade::on(response).await.map_err(Error::exchange)?;
        let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
        let output = OutputStream::new(reader, multiplexed || !tty);
        Ok(Hijacked { output, input: HijackedInput(writer) })
    }
}
