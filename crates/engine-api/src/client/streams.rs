//! Answers that arrive piece by piece.

use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use hyper::body::{Body, Incoming};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::{Error, Result};
use crate::stream::{FrameDecoder, LineDecoder, LineError, Output, StdStream};

/// Bytes asked for at once from a hijacked connection.
const READ_CHUNK: usize = 32 * 1024;

/// The bytes of an answer: a stream of chunks, or a reader.
#[derive(Debug)]
pub struct ByteStream {
    body: Incoming,
    /// What [`AsyncRead`] did not hand out yet.
    rest: Bytes,
}

impl ByteStream {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, rest: Bytes::new() }
    }

    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.rest))));
        }
        loop {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                None => return Poll::Ready(None),
                Some(Err(source)) => return Poll::Ready(Some(Err(Error::exchange(source)))),
                // Trailers are none of our business.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Poll::Ready(Some(Ok(data))),
                    _ => {}
                },
            }
        }
    }
}

impl Stream for ByteStream {
    type Item = Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_chunk(context)
    }
}

impl AsyncRead for ByteStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(chunk) = ready!(this.poll_chunk(context)) {
            let mut chunk = chunk.map_err(io::Error::other)?;
            let length = chunk.len().min(buffer.remaining());
            buffer.put_slice(&chunk[..length]);
            chunk.advance(length);
            this.rest = chunk;
        }
        Poll::Ready(Ok(()))
    }
}

/// JSON values as they arrive, one a line.
#[derive(Debug)]
pub struct JsonStream<T> {
    bytes: ByteStream,
    decoder: LineDecoder,
    input: BytesMut,
    item: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> JsonStream<T> {
    pub(super) fn new(bytes: ByteStream) -> Self {
        Self { bytes, decoder: LineDecoder::new(), input: BytesMut::new(), item: PhantomData }
    }

    /// The next value; `None` when the daemon ends the stream.
    ///
    /// # Errors
    /// The connection fails, or a line is not the JSON expected.
    pub async fn next(&mut self) -> Option<Result<T>> {
        let parse = |line: &[u8]| {
            serde_json::from_slice(line)
                .map_err(|error| Error::answer("a stream".to_owned(), LineError::Json(error)))
        };
        loop {
            match self.decoder.decode(&mut self.input) {
                Ok(Some(line)) => return Some(parse(&line)),
                Ok(None) => {}
                Err(error) => return Some(Err(Error::answer("a stream".to_owned(), error))),
            }
            match self.bytes.next().await {
                Some(Ok(chunk)) => self.input.extend_from_slice(&chunk),
                Some(Err(error)) => return Some(Err(error)),
                None => return self.decoder.finish(&mut self.input).map(|line| parse(&line)),
            }
        }
    }
}

/// A container's output as it arrives, split into stdout and stderr where there is no terminal.
pub struct OutputStream {
    source: Box<dyn AsyncRead + Send + Unpin>,
    /// `None` when the stream is not framed.
    decoder: Option<FrameDecoder>,
    input: BytesMut,
}

impl std::fmt::Debug for OutputStream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("OutputStream")
            .field("decoder", &self.decoder)
            .finish_non_exhaustive()
    }
}

impl OutputStream {
    pub(super) fn new(source: impl AsyncRead + Send + Unpin + 'static, framed: bool) -> Self {
        let decoder = framed.then(FrameDecoder::new);
        Self { source: Box::new(source), decoder, input: BytesMut::new() }
    }

    /// Whether the stream carries a terminal's output, which has no frames; all of it is called stdout.
    #[must_use]
    pub const fn is_raw(&self) -> bool {
        self.decoder.is_none()
    }

    /// The next piece of output; `None` at the end.
    ///
    /// # Errors
    /// The connection fails, ends within a frame, or does not carry frames.
    pub async fn next(&mut self) -> Option<Result<Output>> {
        loop {
            match self.decode() {
                Ok(Some(output)) => return Some(Ok(output)),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
            self.input.reserve(READ_CHUNK);
            match self.source.read_buf(&mut self.input).await {
                Ok(0) => return self.end().err().map(Err),
                Ok(_) => {}
                Err(source) => return Some(Err(Error::stream(source))),
            }
        }
    }

    fn decode(&mut self) -> Result<Option<Output>> {
        match &mut self.decoder {
            Some(decoder) => decoder
                .decode(&mut self.input)
                .map_err(|error| Error::answer("a stream".to_owned(), error)),
            None if self.input.is_empty() => Ok(None),
            None => {
                let data = self.input.split().freeze();
                Ok(Some(Output { stream: StdStream::Stdout, data }))
            }
        }
    }

    fn end(&mut self) -> Result<()> {
        let whole = self.decoder.as_ref().is_none_or(FrameDecoder::is_complete);
        if whole && self.input.is_empty() {
            return Ok(());
        }
        self.decoder = None;
        self.input.clear();
        Err(Error::stream(io::ErrorKind::UnexpectedEof.into()))
    }
}
