//! Downloading one blob into the store: resumed where it broke, verified, once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{CONTENT_RANGE, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::blocking::blocking;
use super::config::{Endpoint, host_of};
use super::pace::Pace;
use super::progress::{BlobReporter, BlobState};
use super::session::{Session, is_temporary, retry_after, status_error};
use super::transport::transport_error;
use crate::content::{Acquired, BlobWriter};
use crate::lease::Lease;
use crate::manifest::Descriptor;
use crate::{Error, ErrorKind, Result};

/// How often a blob that another download is writing is looked at.
pub(super) const POLL: Duration = Duration::from_millis(100);
/// Least time between two reports of progress of one blob.
pub(super) const REPORT: Duration = Duration::from_millis(100);
/// A try that brought at least so many bytes is no failed one: the next is the first again.
const PROGRESS: u64 = 16 << 10;
/// Chunks between the network and the disk.
const QUEUE: usize = 16;

/// Where to get a blob, and where to put it.
pub(super) struct Download<'a> {
    pub(super) session: &'a Session<'a>,
    pub(super) endpoints: &'a [Endpoint],
    pub(super) repository: &'a str,
    pub(super) scopes: &'a [String],
    pub(super) lease: &'a Arc<Lease>,
    /// What is there is damaged and to be replaced.
    pub(super) replaces: bool,
}

/// How one try ended that did not bring the whole blob.
enum Failure {
    /// Worth another try after the pause asked for, if any.
    Temporary(Error, Option<Duration>),
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Unreachable => Self::Temporary(error, None),
            _ => Self::Final(error),
        }
    }
}

impl Download<'_> {
    /// Gets `target` unless it is there.
    pub(super) async fn run(&self, target: &Descriptor, reporter: BlobReporter<'_>) -> Result<()> {
        let Some(mut writer) = self.acquire(target, reporter).await? else {
            reporter.report(BlobState::Exists);
            return Ok(());
        };
        let mut errors = None;
        for endpoint in self.endpoints {
            match self.download_from(endpoint, writer, reporter).await {
                Ok(()) => {
                    reporter.report(BlobState::Complete);
                    return Ok(());
                }
                Err(error) => {
                    // Disk trouble will not go away at another endpoint.
                    if matches!(error.kind(), ErrorKind::Io | ErrorKind::Exhausted) {
                        return Err(error);
                    }
                    tracing::debug!(host = endpoint.host, %error, "endpoint did not give the blob");
                    errors = Some(error);
                }
            }
            writer = match self.acquire(target, reporter).await? {
                Some(writer) => writer,
                None => return Ok(()),
            };
        }
        Err(errors.unwrap_or_else(|| no_endpoint(target)))
    }

    /// Waits for the right to write `target`; `None` if it is complete.
    async fn acquire(
        &self,
        target: &Descriptor,
        reporter: BlobReporter<'_>,
    ) -> Result<Option<Box<BlobWriter>>> {
        let mut waiting = false;
        loop {
            let (lease, target) = (Arc::clone(self.lease), target.clone());
            let replaces = self.replaces;
            let acquired = blocking(move || match replaces {
                true => lease.replacement(&target),
                false => lease.writer(&target),
            });
            match acquired.await? {
                Acquired::Exists => return Ok(None),
                Acquired::Writer(writer) => return Ok(Some(writer)),
                Acquired::Busy if !waiting => {
                    reporter.report(BlobState::Waiting);
                    waiting = true;
                }
                Acquired::Busy => {}
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn download_from(
        &self,
        endpoint: &Endpoint,
        mut writer: Box<BlobWriter>,
        reporter: BlobReporter<'_>,
    ) -> Result<()> {
        let retry = self.session.transport.config.retry;
        let target = writer.target().clone();
        let mut resumed = writer.written() > 0;
        let mut attempt = 1;
        loop {
            let before = writer.written();
            let failure;
            (writer, failure) = self.attempt(endpoint, writer, reporter).await?;
            let Some(failure) = failure else {
                reporter.report(BlobState::Verifying);
                let committed = blocking(move || writer.commit()).await;
                match committed {
                    // What an earlier process left may be damaged by a crash: once more from the start.
                    Err(error) if error.kind() == ErrorKind::Integrity && resumed => {
                        tracing::debug!(%error, "resumed download is wrong: starting over");
                        resumed = false;
                        let Some(again) = self.acquire(&target, reporter).await? else {
                            return Ok(());
                        };
                        writer = again;
                        continue;
                    }
                    committed => return committed,
                }
            };
            let (error, asked) = match failure {
                Failure::Final(error) => return Err(error),
                Failure::Temporary(error, asked) => (error, asked),
            };
            let progress = writer.written().saturating_sub(before);
            attempt = if progress >= PROGRESS { 1 } else { attempt + 1 };
            if attempt > retry.attempts {
                return Err(error);
            }
            let after = retry.pause_after(attempt, asked);
            reporter.report(BlobState::Retrying { after, reason: error.to_string() });
            tokio::time::sleep(after).await;
        }
    }

    /// One request for what is missing. Gives the writer back, and how it failed if not all has come.
    async fn attempt(
        &self,
        endpoint: &Endpoint,
        mut writer: Box<BlobWriter>,
        reporter: BlobReporter<'_>,
    ) -> Result<(Box<BlobWriter>, Option<Failure>)> {
        let (offset, total) = (writer.written(), writer.target().size);
        if offset == total && total > 0 {
            return Ok((writer, None));
        }
        let response = match self.request(endpoint, writer.target(), offset).await {
            Ok(response) => response,
            Err(failure) => return Ok((writer, Some(failure))),
        };
        match (response.status(), offset) {
            (StatusCode::PARTIAL_CONTENT, 1..) if starts_at(&response, offset) => {}
            (StatusCode::OK, 0) => {}
            _ => {
                // The registry does not resume, or not where it should.
                writer.restart()?;
                if response.status() != StatusCode::OK {
                    let failure = Error::new(
                        ErrorKind::Unreachable,
                        format!("resume blob {}: {} cannot", writer.target().digest, endpoint.host),
                    );
                    return Ok((writer, Some(failure.into())));
                }
            }
        }
        let missing = total - writer.written();
        if let Some(length) = response.content_length().filter(|length| *length != missing) {
            let failure = Error::integrity(format!(
                "download blob {}: {} sends {length} bytes where {missing} are due",
                writer.target().digest,
                endpoint.host
            ));
            return Ok((writer, Some(Failure::Final(failure))));
        }
        self.receive(response, writer, reporter).await
    }

    async fn request(
        &self,
        endpoint: &Endpoint,
        target: &Descriptor,
        offset: u64,
    ) -> Result<Response, Failure> {
        let base = self.session.transport.base(endpoint).await?;
        let path = format!("{}/blobs/{}", self.repository, target.digest);
        let mut request = endpoint.request(Method::GET, &base, &path)?;
        if offset > 0 {
            let range = HeaderValue::from_str(&format!("bytes={offset}-"));
            request.headers.extend(range.ok().map(|range| (RANGE, range)));
        }
        let response = self.session.send_authorized(endpoint, self.scopes, &request).await?;
        let status = response.status();
        if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(response);
        }
        let asked = retry_after(response.headers());
        let error = status_error(&format!("download blob {}", target.digest), response).await;
        Err(if is_temporary(status) {
            Failure::Temporary(error, asked)
        } else {
            Failure::Final(error)
        })
    }

    async fn receive(
        &self,
        mut response: Response,
        writer: Box<BlobWriter>,
        reporter: BlobReporter<'_>,
    ) -> Result<(Box<BlobWriter>, Option<Failure>)> {
        let host = host_of(response.url());
        let stall = self.session.transport.config.stall;
        let (mut done, total) = (writer.written(), writer.target().size);
        let digest = writer.target().digest.clone();
        let broken = |why: &str| {
            let attempt = format!("download blob {digest} from {host}: {why}");
            Some(Failure::from(Error::new(ErrorKind::Unreachable, attempt)))
        };
        let (sender, disk) = spawn_writer(writer);
        let mut reported = Instant::now();
        reporter.report(BlobState::Transferring { done, total });
        let mut pace = Pace::new(stall);
        let failure = loop {
            match tokio::time::timeout(stall, response.chunk()).await {
                Err(_) => break broken("it stalls"),
                Ok(Err(source)) => break Some(transport_error(&host, source).into()),
                Ok(Ok(None)) if done < total => break broken("the connection ended early"),
                Ok(Ok(None)) => break None,
                Ok(Ok(Some(chunk))) => {
                    done += chunk.len() as u64;
                    let too_slow = !pace.keeps_up(chunk.len()) && done < total;
                    if sender.send(chunk).await.is_err() {
                        // The disk side stopped; its error tells why.
                        break broken("it could not be written");
                    }
                    if too_slow {
                        break broken("it stalls");
                    }
                }
            }
            if reported.elapsed() >= REPORT {
                reported = Instant::now();
                reporter.report(BlobState::Transferring { done, total });
            }
        };
        drop(sender);
        let joined = disk.await.map_err(|source| {
            Error::caused(ErrorKind::Io, format!("write blob {digest}"), source)
        })?;
        let (writer, written) = joined;
        if let Err(error) = written {
            return Ok((writer, Some(Failure::Final(error))));
        }
        if failure.is_none() {
            reporter.report(BlobState::Transferring { done, total });
        }
        Ok((writer, failure))
    }
}

type Disk = JoinHandle<(Box<BlobWriter>, Result<()>)>;

/// Hashes and writes on a thread that may block, while the network goes on. Their number is bounded by the number of
/// downloads under way.
fn spawn_writer(mut writer: Box<BlobWriter>) -> (mpsc::Sender<Bytes>, Disk) {
    let (sender, mut receiver) = mpsc::channel::<Bytes>(QUEUE);
    let disk = tokio::task::spawn_blocking(move || {
        while let Some(chunk) = receiver.blocking_recv() {
            if let Err(error) = writer.append(&chunk) {
                return (writer, Err(error));
            }
        }
        (writer, Ok(()))
    });
    (sender, disk)
}

/// Whether a partial answer begins where it was asked to.
fn starts_at(response: &Response, offset: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next());
    start.and_then(|start| start.parse().ok()) == Some(offset)
}

fn no_endpoint(target: &Descriptor) -> Error {
    Error::not_found(format!("download blob {}: no registry has it", target.digest))
}
