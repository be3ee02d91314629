//! Ending a container: stops with their grace period, and signals.

use std::time::Duration;

use tokio::time::Instant;

use super::{Driver, Reply, answer};
use crate::container::death::{SentSignal, SignalSender};
use crate::container::requests::{Outcome, StopOptions};
use crate::container::restart::Policy;
use crate::container::signal;
use crate::container::state::{Phase, Step};
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint;
use crate::metadata::Write;

/// After SIGKILL a process ends at once, unless the kernel holds it (uninterruptible sleep).
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// A stop under way.
pub(super) struct Stopping {
    /// When the process is killed; `None` waits for ever.
    pub(super) deadline: Option<Instant>,
    pub(super) killed: bool,
    pub(super) replies: Vec<Reply<Outcome>>,
    /// Start again once it ended.
    pub(super) then_start: bool,
    /// Nobody asked for it: it is unhealthy, and its restart policy takes over once it ended.
    pub(super) for_health: bool,
}

/// SIGKILL was sent, and whoever asked for it waits until the end is written down: what they ask next, such as the
/// removal, must not meet a container that runs.
pub(super) struct Killing {
    /// When those who wait are told that it does not end.
    pub(super) deadline: Instant,
    pub(super) replies: Vec<Reply<()>>,
}

impl Driver {
    pub(super) async fn stop(
        &mut self,
        options: &StopOptions,
        reply: Reply<Outcome>,
        then_start: bool,
    ) {
        if let Some(stopping) = &mut self.stopping {
            stopping.then_start |= then_start;
            stopping.replies.push(reply);
            if std::mem::take(&mut stopping.for_health) {
                self.take_over_stop().await;
            }
            return;
        }
        match self.begin_stop(options, SignalSender::Stop).await {
            Ok(Some(deadline)) => {
                let (killed, for_health, replies) = (false, false, vec![reply]);
                self.stopping =
                    Some(Stopping { deadline, killed, replies, then_start, for_health });
            }
            Ok(None) if then_start => answer(reply, self.start_by_hand().await),
            Ok(None) => answer(reply, Ok(Outcome::Unchanged)),
            Err(error) => answer(reply, Err(error)),
        }
    }

    /// What its health check began, a call asks for now: it is not started again by its policy.
    async fn take_over_stop(&mut self) {
        self.record.state.stopped_by_hand = true;
        if let Some(sent) = &mut self.record.state.sent {
            sent.sender = SignalSender::Stop;
        }
        self.save_if_possible("the stop").await;
    }

    /// Sends the stop signal; returns the deadline, or `None` when nothing runs.
    pub(super) async fn begin_stop(
        &mut self,
        options: &StopOptions,
        sender: SignalSender,
    ) -> Result<Option<Option<Instant>>> {
        let phase = self.record.state.phase;
        if phase == Phase::Restarting {
            self.restart_at = None;
            self.record.state.phase = phase.after(Step::CancelRestart)?;
            self.record.state.stopped_by_hand = true;
            self.save(Write::Durable).await?;
            return Ok(None);
        }
        if !phase.is_alive() {
            return Ok(None);
        }
        let text = options.signal.as_deref().or(self.record.config.stop_signal.as_deref());
        let number = signal::parse(text.filter(|text| !text.is_empty()).unwrap_or("SIGTERM"))?;
        self.record.state.stopped_by_hand = sender == SignalSender::Stop;
        self.record.state.sent = Some(SentSignal { signal: number, sender });
        self.save_if_possible("the stop").await;
        failpoint::hit("stop-recorded")?;
        if phase == Phase::Paused {
            self.unpause().await?;
        }
        let seconds = options
            .timeout_seconds
            .or(self.record.config.stop_timeout)
            .unwrap_or_else(|| self.shared.config.stop_timeout_seconds.into());
        match self.send_signal(number, sender).await {
            // It ended by itself at this very moment: its exit is on the way.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            sent => sent?,
        }
        failpoint::hit("stop-signalled")?;
        let patience = u64::try_from(seconds).ok().map(Duration::from_secs);
        Ok(Some(patience.map(|patience| Instant::now() + patience)))
    }

    /// The grace period is over.
    pub(super) async fn escalate(&mut self) {
        let Some(stopping) = &mut self.stopping else { return };
        if stopping.killed {
            for reply in std::mem::take(&mut stopping.replies) {
                answer(reply, Err(outlives_kill(&self.record.id)));
            }
            stopping.deadline = None;
            return;
        }
        stopping.killed = true;
        stopping.deadline = Some(Instant::now() + KILL_PATIENCE);
        let sender =
            if stopping.for_health { SignalSender::Health } else { SignalSender::StopTimeout };
        if let Err(error) = self.send_signal(signal::KILL, sender).await {
            tracing::warn!(container = %self.record.id, "kill: {}", error.report());
        }
    }

    pub(super) async fn finish_stop(&mut self, stopping: Stopping) {
        self.event("stop", &[]);
        let outcome = if stopping.then_start {
            let started = self.start_by_hand().await;
            if started.is_ok() {
                self.event("restart", &[]);
            }
            started
        } else {
            Ok(Outcome::Changed)
        };
        let failure = outcome.as_ref().err().map(|error| (error.kind(), error.report()));
        for reply in stopping.replies {
            answer(
                reply,
                match &failure {
                    None => Ok(Outcome::Changed),
                    Some((kind, report)) => Err(Error::new(*kind, report.clone())),
                },
            );
        }
    }

    /// Sends a signal and keeps in mind, while the container runs, who did.
    pub(super) async fn send_signal(&mut self, number: u32, sender: SignalSender) -> Result<()> {
        let Some(live) = &self.live else {
            return Err(Error::conflict(format!("container {} is not running", self.record.id)));
        };
        let before = self.record.state.sent.replace(SentSignal { signal: number, sender });
        let sent = live.shim.kill("", number, false).await;
        if sent.is_err() {
            self.record.state.sent = before;
        } else {
            self.event("kill", &[("signal", number.to_string())]);
        }
        sent
    }

    /// Sends a signal that was asked for. SIGKILL is answered when the container has ended, as by dockerd.
    pub(super) async fn kill(&mut self, text: Option<&str>, reply: Reply<()>) {
        match self.send_asked(text).await {
            Ok(signal::KILL) => {
                let deadline = Instant::now() + KILL_PATIENCE;
                let killing = self.killing.get_or_insert(Killing { deadline, replies: Vec::new() });
                killing.replies.push(reply);
            }
            sent => answer(reply, sent.map(drop)),
        }
    }

    pub(super) fn give_up_on_kill(&mut self) {
        let killing = self.killing.take();
        for reply in killing.into_iter().flat_map(|killing| killing.replies) {
            answer(reply, Err(outlives_kill(&self.record.id)));
        }
    }

    async fn send_asked(&mut self, text: Option<&str>) -> Result<u32> {
        let number = signal::parse(text.filter(|text| !text.is_empty()).unwrap_or("KILL"))?;
        if !self.record.state.phase.is_alive() {
            return Err(Error::conflict(format!(
                "cannot kill container: {}: container {} is not running",
                self.record.name, self.record.id
            )));
        }
        let before = self.record.state.stopped_by_hand;
        let stop_signal = self.record.config.stop_signal.as_deref().filter(|text| !text.is_empty());
        let stop_signal = stop_signal.and_then(|text| signal::parse(text).ok());
        if number == signal::KILL || number == stop_signal.unwrap_or(signal::TERM) {
            // Docker: a kill by hand keeps the restart policy from bringing it back.
            self.intend_end("the kill").await;
        }
        failpoint::hit("kill-recorded")?;
        if self.record.state.phase == Phase::Paused && number == signal::KILL {
            self.unpause().await?;
        }
        let sent = self.send_signal(number, SignalSender::Kill).await;
        failpoint::hit("kill-signalled")?;
        if sent.is_err() {
            self.record.state.stopped_by_hand = before;
        }
        self.save_status().await;
        sent.map(|()| number)
    }

    /// Notes that the container is ended by hand, before the signal that does it: an engine that dies in between must
    /// not take its end for one that the restart policy is asked about.
    pub(super) async fn intend_end(&mut self, what: &str) {
        self.record.state.stopped_by_hand = true;
        if Policy::of(&self.record) != Policy::No {
            self.save_if_possible(what).await;
        }
    }
}

fn outlives_kill(id: &str) -> Error {
    Error::conflict(format!("container {id} did not end within {KILL_PATIENCE:?} of SIGKILL"))
}
