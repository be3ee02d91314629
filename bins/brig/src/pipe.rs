//! Archives between the network and threads that block on files.

use std::io::{self, Read, Write};

use anyhow::{Context as _, Result};
use brig_engine_api::client::{ByteStream, Upload};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Chunks under way between the network and the disk.
const QUEUE: usize = 16;

/// Gives what comes to `read`, on a thread of its own.
pub(crate) async fn read<T: Send + 'static>(
    mut stream: ByteStream,
    read: impl FnOnce(ChannelReader) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let reader =
        tokio::task::spawn_blocking(move || read(ChannelReader { receiver, chunk: Bytes::new() }));
    let mut failure = None;
    while let Some(chunk) = stream.next().await {
        match chunk {
            // The reader goes away at the archive's end, or with an error of its own.
            Ok(chunk) => {
                if sender.send(chunk).await.is_err() {
                    break;
                }
            }
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    drop(sender);
    let result = reader.await.context("read the archive")?;
    // What cut the archive short says more than that it is short.
    failure.map_or(result, |error| Err(error.into()))
}

/// What `write` writes, on a thread of its own, as an upload; the task tells how that went.
pub(crate) fn write(
    write: impl FnOnce(ChannelWriter) -> Result<()> + Send + 'static,
) -> (Upload, JoinHandle<Result<()>>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let failed = sender.clone();
    let writer = tokio::task::spawn_blocking(move || {
        let written = write(ChannelWriter(sender));
        if let Err(error) = &written {
            // Else the other side would take the archive for complete.
            let _ = failed.blocking_send(Err(io::Error::other(format!("{error:#}"))));
        }
        written
    });
    let chunks = futures_util::stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    });
    (Upload::from_stream(chunks), writer)
}

/// The receiving end of a channel of chunks, read from a blocking thread.
pub(crate) struct ChannelReader {
    receiver: mpsc::Receiver<Bytes>,
    chunk: Bytes,
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.chunk.len());
        buffer[..length].copy_from_slice(&self.chunk.split_to(length));
        Ok(length)
    }
}

/// The sending end, written from a blocking thread.
pub(crate) struct ChannelWriter(mpsc::Sender<io::Result<Bytes>>);

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
