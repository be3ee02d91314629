//! A session with a process in a container: our standard streams joined to a hijacked connection.
//!
//! Three things go on at once: output is written as it arrives, input is sent until its end or until the detach keys,
//! and signals are either passed on or, for a terminal, turned into resizes. The session ends with the output.

use std::io::Write as _;

use anyhow::{Context as _, Result, bail};
use brig_engine_api::client::{Client, Hijacked, HijackedInput, OutputStream};
use brig_engine_api::query;
use brig_engine_api::stream::StdStream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::terminal::{self, DetachKeys, RawMode};

/// What docker and we detach with unless told otherwise.
pub(crate) const DETACH_KEYS: &str = "ctrl-p,ctrl-q";

/// Whose terminal is resized and who gets signals.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Container(String),
    Exec(String),
}

/// What a session joins.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    pub(crate) client: &'a Client,
    pub(crate) target: Target,
    /// Send our standard input.
    pub(crate) stdin: bool,
    /// The process has a terminal.
    pub(crate) tty: bool,
    /// Pass signals on to the container.
    pub(crate) proxy_signals: bool,
    pub(crate) detach_keys: DetachKeys,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The process closed its output.
    Output,
    /// The user typed the detach keys.
    Detached,
}

impl Session<'_> {
    /// Joins the streams until the output ends or the user detaches.
    pub(crate) async fn run(mut self, hijacked: Hijacked) -> Result<Ended> {
        let raw = (self.tty && self.stdin).then(RawMode::enter).transpose()?;
        let ended = self.join(hijacked).await;
        drop(raw);
        ended
    }

    async fn join(&mut self, hijacked: Hijacked) -> Result<Ended> {
        let Hijacked { output, input } = hijacked;
        let signals =
            follow_signals(self.client.clone(), self.target.clone(), self.tty, self.proxy_signals);
        let keys = std::mem::replace(&mut self.detach_keys, DetachKeys::parse("")?);
        let stdin = self.stdin;
        tokio::select! {
            result = write_output(output) => result.map(|()| Ended::Output),
            result = send_input(stdin, input, keys) => result.map(|()| Ended::Detached),
            result = signals => result.map(|()| Ended::Output),
        }
    }
}

/// Writes output until its end.
pub(crate) async fn write_output(mut output: OutputStream) -> Result<()> {
    while let Some(piece) = output.next().await {
        let piece = piece?;
        let written = match piece.stream {
            StdStream::Stderr => write_all(std::io::stderr().lock(), &piece.data),
            _ => write_all(std::io::stdout().lock(), &piece.data),
        };
        written.context("write the container's output")?;
    }
    Ok(())
}

fn write_all(mut stream: impl std::io::Write, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes)?;
    stream.flush()
}

/// Sends input; returns only when the user detaches. At the end of input, the container's end is closed.
async fn send_input(wanted: bool, mut input: HijackedInput, mut keys: DetachKeys) -> Result<()> {
    if !wanted {
        return std::future::pending().await;
    }
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let length = stdin.read(&mut buffer).await.context("read standard input")?;
        if length == 0 {
            // The process may have gone already, which the end of its output tells better.
            let _ = input.shutdown().await;
            return std::future::pending().await;
        }
        let (passed, detached) = keys.filter(&buffer[..length]);
        if input.write_all(&passed).await.is_err() {
            return std::future::pending().await;
        }
        if detached {
            return Ok(());
        }
        let _ = input.flush().await;
    }
}

/// Passes signals on, and the terminal's size; never returns but for an error. Signals that are not passed on end the
/// session instead, so that the terminal gets its settings back.
async fn follow_signals(client: Client, target: Target, tty: bool, proxy: bool) -> Result<()> {
    if tty {
        resize(&client, &target).await;
    }
    let mut window = signal(SignalKind::window_change()).context("listen for resizes")?;
    let mut signals = Signals::listen(proxy || tty)?;
    loop {
        tokio::select! {
            _ = window.recv() => if tty { resize(&client, &target).await },
            number = signals.next() => {
                if !proxy {
                    bail!("ended by signal {number}; the container's process goes on");
                }
                if let Target::Container(id) = &target {
                    // A container that is gone needs no signal; its end is on the way.
                    let _ = client.kill_container(id, Some(&number.to_string())).await;
                }
            }
        }
    }
}

/// Tells the daemon the size of our terminal; a process that has no terminal yet, or none any more, is no failure.
async fn resize(client: &Client, target: &Target) {
    let Some((height, width)) = terminal::size() else { return };
    let size = query::Resize { height, width };
    let _ = match target {
        Target::Container(id) => client.resize_container(id, &size).await,
        Target::Exec(id) => client.resize_exec(id, &size).await,
    };
}

/// The signals that are passed on to a container, or end a session with a terminal.
struct Signals(Vec<(i32, Signal)>);

impl Signals {
    fn listen(wanted: bool) -> Result<Self> {
        if !wanted {
            return Ok(Self(Vec::new()));
        }
        let kinds = [
            SignalKind::hangup(),
            SignalKind::interrupt(),
            SignalKind::quit(),
            SignalKind::terminate(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
        ];
        let listening: std::io::Result<Vec<_>> =
            kinds.into_iter().map(|kind| Ok((kind.as_raw_value(), signal(kind)?))).collect();
        Ok(Self(listening.context("listen for signals")?))
    }

    /// The number of the next signal.
    async fn next(&mut self) -> i32 {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        let signals = self.0.iter_mut().map(|(number, signal)| {
            let number = *number;
            Box::pin(async move {
                signal.recv().await;
                number
            })
        });
        futures_util::future::select_all(signals).await.0
    }
}

/// Writes what a session must have written before the program exits.
pub(crate) fn flush() {
    let _ = std::io::stdout().flush();
}
