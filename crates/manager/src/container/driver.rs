//! The task that owns a container.
//!
//! ```text
//! API calls ──Request (bounded)──▶ ┌────────┐ ──View──▶ watchers, list, inspect
//! shim exit ──────────────────────▶│ Driver │ ──record──▶ metadata
//! stop deadline, restart pause ───▶└────────┘ ──event──▶ Events
//! ```
//!
//! All changes of a container's state happen here, one after the other. What may take long (a stop's grace period, a
//! restart's pause) is a deadline in the loop, not a wait, so that a kill gets through to a container that is being
//! stopped. Starting and tearing down run to their end before the next request is looked at.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::boot;
use super::health::{self, Probe};
use super::lifecycle::{self, Live};
use super::requests::{Outcome, RemoveOptions, StopOptions};
use super::restart::{BackOff, Policy};
use super::state::{Phase, Step};
use super::table::{Handle, View};
use super::{Shared, now, signal};
use crate::error::{Error, ErrorKind, Failures, Result};
use crate::failpoint;
use crate::metadata::{ContainerRecord, HealthRecord, Write};
use crate::models::{ContainerUpdateBody, EndpointSettings};
use crate::shim_client::Exit;

/// Requests that may wait for one container.
const REQUESTS_MAX: usize = 64;
/// After SIGKILL a process ends at once, unless the kernel holds it (uninterruptible sleep).
const KILL_PATIENCE: Duration = Duration::from_secs(10);

type Reply<T> = oneshot::Sender<Result<T>>;

/// What a container's task is asked to do.
#[derive(Debug)]
pub(crate) enum Request {
    Start {
        reply: Reply<Outcome>,
    },
    /// Start it if that is due when the engine comes up.
    StartWithEngine {
        reply: Reply<()>,
    },
    Stop {
        options: StopOptions,
        reply: Reply<Outcome>,
    },
    Restart {
        options: StopOptions,
        reply: Reply<Outcome>,
    },
    Kill {
        signal: Option<String>,
        reply: Reply<()>,
    },
    Pause {
        reply: Reply<()>,
    },
    Unpause {
        reply: Reply<()>,
    },
    Rename {
        name: String,
        reply: Reply<()>,
    },
    Remove {
        options: RemoveOptions,
        reply: Reply<()>,
    },
    Update {
        update: Box<ContainerUpdateBody>,
        reply: Reply<()>,
    },
    Connect {
        network: String,
        settings: Box<EndpointSettings>,
        reply: Reply<()>,
    },
    Disconnect {
        network: String,
        reply: Reply<()>,
    },
    /// Hands over a connection to the process when there is one: at the next start.
    Attach {
        request: brig_shim_protocol::attach::AttachRequest,
        stream: oneshot::Sender<UnixStream>,
        reply: Reply<()>,
    },
    Health(HealthRecord),
    /// Tears down what is left of a container that does not run.
    CleanUp {
        reply: Reply<()>,
    },
}

/// A stop under way.
struct Stopping {
    /// When the process is killed; `None` waits for ever.
    deadline: Option<Instant>,
    killed: bool,
    replies: Vec<Reply<Outcome>>,
    /// Start again once it ended.
    then_start: bool,
}

pub(crate) struct Driver {
    pub(crate) shared: Arc<Shared>,
    pub(crate) record: ContainerRecord,
    views: watch::Sender<Arc<View>>,
    requests: mpsc::Receiver<Request>,
    /// For tasks of ours that report back.
    own: mpsc::WeakSender<Request>,
    live: Option<Live>,
    exit: Option<oneshot::Receiver<Exit>>,
    probe: Option<Probe>,
    stopping: Option<Stopping>,
    removing: Option<(RemoveOptions, Reply<()>)>,
    back_off: BackOff,
    restart_at: Option<Instant>,
    started: Instant,
    attaches: Vec<(brig_shim_protocol::attach::AttachRequest, oneshot::Sender<UnixStream>)>,
    /// The last teardown left nothing, so the bundle is not needed for another.
    torn_down: bool,
    removed: bool,
}

/// Starts the task of a container. `live` is the shim that was adopted, if the container runs.
pub(crate) fn spawn(shared: &Arc<Shared>, record: ContainerRecord, live: Option<Live>) -> Handle {
    let (sender, requests) = mpsc::channel(REQUESTS_MAX);
    let shim = live.as_ref().map(|live| live.shim.clone());
    let (views, receiver) =
        watch::channel(Arc::new(View { record: record.clone(), shim, removed: false }));
    let handle = Handle::new(sender.clone(), receiver);
    shared.table.insert(&record.id, handle.clone());
    let mut driver = Driver {
        shared: Arc::clone(shared),
        record,
        views,
        requests,
        own: sender.downgrade(),
        live: None,
        exit: None,
        probe: None,
        stopping: None,
        removing: None,
        back_off: BackOff::default(),
        restart_at: None,
        started: Instant::now(),
        attaches: Vec::new(),
        torn_down: true,
        removed: false,
    };
    let tasks = shared.tasks.clone();
    tasks.spawn(async move {
        // One that waits for its restart is started with the engine, in its turn.
        if let Some(live) = live {
            driver.follow(live);
        }
        driver.run().await;
    });
    handle
}

impl Driver {
    async fn run(mut self) {
        let closing = self.shared.closing.clone();
        while !self.removed {
            let deadline = self.stopping.as_ref().and_then(|stopping| stopping.deadline);
            tokio::select! {
                biased;
                () = closing.cancelled() => break,
                exit = ended(&mut self.exit) => self.on_exit(exit).await,
                () = until(deadline) => self.escalate().await,
                () = until(self.restart_at) => self.start_by_policy().await,
                request = self.requests.recv() => match request {
                    Some(request) => self.handle(request).await,
                    None => break,
                },
            }
        }
    }

    async fn handle(&mut self, request: Request) {
        match request {
            Request::Start { reply } => answer(reply, self.start_by_hand().await),
            Request::StartWithEngine { reply } => {
                answer(reply, self.start_with_engine().await);
            }
            Request::Stop { options, reply } => self.stop(&options, reply, false).await,
            Request::Restart { options, reply } => self.stop(&options, reply, true).await,
            Request::Kill { signal, reply } => answer(reply, self.kill(signal.as_deref()).await),
            Request::Pause { reply } => answer(reply, self.pause().await),
            Request::Unpause { reply } => answer(reply, self.unpause().await),
            Request::Rename { name, reply } => answer(reply, self.rename(name).await),
            Request::Remove { options, reply } => self.remove(options, reply).await,
            Request::Update { update, reply } => answer(reply, self.update(*update).await),
            Request::Connect { network, settings, reply } => {
                answer(reply, self.connect(&network, *settings).await);
            }
            Request::Disconnect { network, reply } => {
                answer(reply, self.disconnect(&network).await);
            }
            Request::Attach { request, stream, reply } => {
                answer(reply, self.attach(request, stream).await);
            }
            Request::Health(health) => self.health(health).await,
            Request::CleanUp { reply } => answer(reply, self.clean_up().await),
        }
    }

    /// Writes the record, then shows it: what others see is durable. It is shown even if it could not be written.
    async fn save(&mut self, write: Write) -> Result<()> {
        let written = self.shared.metadata.put_container(&self.record, write).await;
        let shim = self.live.as_ref().map(|live| live.shim.clone());
        self.views.send_replace(Arc::new(View {
            record: self.record.clone(),
            shim,
            removed: self.removed,
        }));
        written
    }

    /// Writes the record where a full disk must not stand in the way: what is being done frees space, or ends something.
    async fn save_if_possible(&mut self, what: &str) {
        if let Err(error) = self.save(Write::Durable).await {
            tracing::error!(container = %self.record.id, "write {what}: {}", error.report());
        }
    }

    async fn save_status(&mut self) {
        if let Err(error) = self.save(Write::Status).await {
            tracing::error!(container = %self.record.id, "write the status: {}", error.report());
        }
    }

    fn event(&self, action: &str, extra: &[(&str, String)]) {
        super::publish(&self.shared.events, &self.record, action, extra);
    }

    async fn start_by_hand(&mut self) -> Result<Outcome> {
        if self.record.state.phase == Phase::Running {
            return Ok(Outcome::Unchanged);
        }
        self.restart_at = None;
        self.record.state.restart_count = 0;
        self.back_off = BackOff::default();
        self.start().await.map(|()| Outcome::Changed)
    }

    /// Somebody may have stopped it since that was asked for.
    async fn start_with_engine(&mut self) -> Result<()> {
        if !boot::is_due(&self.record) {
            return Ok(());
        }
        if self.record.state.phase == Phase::Restarting {
            self.start_by_policy().await;
            return Ok(());
        }
        self.start_by_hand().await.map(drop)
    }

    async fn start_by_policy(&mut self) {
        self.restart_at = None;
        self.record.state.restart_count += 1;
        if let Err(error) = self.start().await {
            tracing::warn!(container = %self.record.id, "restart: {}", error.report());
            if self.record.state.phase == Phase::Restarting {
                self.plan_restart_or_rest().await;
            }
        }
    }

    async fn start(&mut self) -> Result<()> {
        let next = self.record.state.phase.after(Step::Start)?;
        let attaches = std::mem::take(&mut self.attaches);
        match lifecycle::launch(&self.shared, &mut self.record, attaches).await {
            Ok(live) => {
                let state = &mut self.record.state;
                state.phase = next;
                state.pid = live.pid;
                state.exit_code = 0;
                state.oom_killed = false;
                state.error = String::new();
                state.started_at = now();
                state.stopped_by_hand = false;
                let starting =
                    HealthRecord { status: "starting".into(), ..HealthRecord::default() };
                state.health = health::is_wanted(&self.record.config).then_some(starting);
                self.follow(live);
                let saved = self.save(Write::Durable).await;
                if let Err(error) = saved.and_then(|()| failpoint::hit("start-recorded")) {
                    // A start that is not on disk must not go on: the next engine would not know of it.
                    self.record.state.stopped_by_hand = true;
                    let _exit_tells = self.send_signal(signal::KILL).await;
                    return Err(error);
                }
                self.event("start", &[]);
                failpoint::hit("start-announced")
            }
            Err(error) => {
                let report = error.report();
                self.record.state.error.clone_from(&report);
                self.record.state.exit_code = lifecycle::exit_code_of_failed_start(&report);
                self.save_status().await;
                // Whoever waits for its removal would wait for ever, since it will never exit.
                self.remove_if_automatic().await;
                Err(error)
            }
        }
    }

    /// Looks after a process from now on.
    fn follow(&mut self, live: Live) {
        let (mut sender, receiver) = oneshot::channel();
        let shim = live.shim.clone();
        self.shared.tasks.spawn(async move {
            tokio::select! {
                exit = lifecycle::wait_for_exit(shim) => drop(sender.send(exit)),
                // The engine closes: it must not wait for the container.
                () = sender.closed() => {}
            }
        });
        self.exit = Some(receiver);
        self.started = Instant::now();
        self.probe = health::start(&self.shared, &self.record, self.own.clone());
        self.live = Some(live);
    }

    async fn on_exit(&mut self, exit: Exit) {
        self.exit = None;
        self.probe = None;
        let _fatal_at_most = failpoint::hit("exit-heard");
        self.torn_down = true;
        if let Some(live) = self.live.take()
            && let Err(error) =
                lifecycle::tear_down(&self.shared, &mut self.record, Some(live)).await
        {
            tracing::warn!(container = %self.record.id, "tear down: {}", error.report());
            self.torn_down = false;
        }
        let _fatal_at_most = failpoint::hit("torn-down");
        let (oom_killed, code) = (exit.oom_killed, exit.code);
        self.record.state.note_exit(exit);
        let ran = self.started.elapsed();
        let stopping = self.stopping.take();
        let then_start = stopping.as_ref().is_some_and(|stopping| stopping.then_start);
        let restarts = stopping.is_none() && self.removing.is_none() && self.restarts();
        let step = if restarts { Step::ExitToRestart } else { Step::Exit };
        self.record.state.phase = self.record.state.phase.after(step).unwrap_or(Phase::Exited);
        self.settle_exit(oom_killed, code, ran).await;
        if let Some(stopping) = stopping {
            self.finish_stop(stopping).await;
        }
        if let Some((options, reply)) = self.removing.take() {
            answer(reply, self.remove_stopped(options).await);
        } else if self.record.state.phase == Phase::Restarting {
            self.restart_at = Some(Instant::now() + self.back_off.next(ran));
        } else if !then_start && !self.record.state.phase.is_alive() {
            self.remove_if_automatic().await;
        }
    }

    /// Writes the exit, tells it, and only then gives up the shim's own record of it.
    async fn settle_exit(&mut self, oom_killed: bool, code: i32, ran: Duration) {
        let saved = self.save(Write::Durable).await;
        let _fatal_at_most = failpoint::hit("exit-recorded");
        if oom_killed {
            self.event("oom", &[]);
        }
        let attributes =
            [("exitCode", code.to_string()), ("execDuration", ran.as_secs().to_string())];
        self.event("die", &attributes);
        match saved {
            Ok(()) if self.torn_down => lifecycle::drop_bundle(&self.shared, &self.record.id).await,
            Ok(()) => {}
            Err(error) => {
                tracing::error!(container = %self.record.id, "write the exit: {}", error.report());
            }
        }
    }

    fn policy(&self) -> Policy {
        Policy::parse(self.record.host_config.restart_policy.as_ref()).unwrap_or_default()
    }

    fn restarts(&self) -> bool {
        let state = &self.record.state;
        !state.stopped_by_hand && self.policy().restarts_after(state.exit_code, state.restart_count)
    }

    async fn plan_restart_or_rest(&mut self) {
        if self.restarts() {
            self.restart_at = Some(Instant::now() + self.back_off.next(Duration::ZERO));
        } else {
            self.record.state.phase = Phase::Exited;
            self.save_status().await;
        }
    }

    async fn remove_if_automatic(&mut self) {
        if self.record.host_config.auto_remove != Some(true) {
            return;
        }
        let options = RemoveOptions { force: true, volumes: true };
        if let Err(error) = self.remove_stopped(options).await {
            tracing::error!(container = %self.record.id, "automatic removal: {}", error.report());
        }
    }

    async fn stop(&mut self, options: &StopOptions, reply: Reply<Outcome>, then_start: bool) {
        if let Some(stopping) = &mut self.stopping {
            stopping.then_start |= then_start;
            stopping.replies.push(reply);
            return;
        }
        match self.begin_stop(options).await {
            Ok(Some(deadline)) => {
                let killed = false;
                self.stopping =
                    Some(Stopping { deadline, killed, replies: vec![reply], then_start });
            }
            Ok(None) if then_start => answer(reply, self.start_by_hand().await),
            Ok(None) => answer(reply, Ok(Outcome::Unchanged)),
            Err(error) => answer(reply, Err(error)),
        }
    }

    /// Sends the stop signal; returns the deadline, or `None` when nothing runs.
    async fn begin_stop(&mut self, options: &StopOptions) -> Result<Option<Option<Instant>>> {
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
        self.record.state.stopped_by_hand = true;
        self.save_if_possible("the stop").await;
        failpoint::hit("stop-recorded")?;
        if phase == Phase::Paused {
            self.unpause().await?;
        }
        let seconds = options
            .timeout_seconds
            .or(self.record.config.stop_timeout)
            .unwrap_or_else(|| self.shared.config.stop_timeout_seconds.into());
        match self.send_signal(number).await {
            // It ended by itself at this very moment: its exit is on the way.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            sent => sent?,
        }
        failpoint::hit("stop-signalled")?;
        let patience = u64::try_from(seconds).ok().map(Duration::from_secs);
        Ok(Some(patience.map(|patience| Instant::now() + patience)))
    }

    /// The grace period is over.
    async fn escalate(&mut self) {
        let Some(stopping) = &mut self.stopping else { return };
        if stopping.killed {
            let id = &self.record.id;
            let error = || {
                Error::conflict(format!(
                    "container {id} did not end within {KILL_PATIENCE:?} of SIGKILL"
                ))
            };
            for reply in std::mem::take(&mut stopping.replies) {
                answer(reply, Err(error()));
            }
            stopping.deadline = None;
            return;
        }
        stopping.killed = true;
        stopping.deadline = Some(Instant::now() + KILL_PATIENCE);
        if let Err(error) = self.send_signal(signal::KILL).await {
            tracing::warn!(container = %self.record.id, "kill: {}", error.report());
        }
    }

    async fn finish_stop(&mut self, stopping: Stopping) {
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

    async fn send_signal(&self, number: u32) -> Result<()> {
        let Some(live) = &self.live else {
            return Err(Error::conflict(format!("container {} is not running", self.record.id)));
        };
        let sent = live.shim.kill("", number, false).await;
        if sent.is_ok() {
            self.event("kill", &[("signal", number.to_string())]);
        }
        sent
    }

    async fn kill(&mut self, text: Option<&str>) -> Result<()> {
        let number = signal::parse(text.filter(|text| !text.is_empty()).unwrap_or("KILL"))?;
        if !self.record.state.phase.is_alive() {
            return Err(Error::conflict(format!(
                "cannot kill container: {}: container {} is not running",
                self.record.name, self.record.id
            )));
        }
        let stop_signal = self.record.config.stop_signal.as_deref().filter(|text| !text.is_empty());
        if number == signal::KILL
            || Some(number) == stop_signal.and_then(|text| signal::parse(text).ok())
        {
            // Docker: a kill by hand keeps the restart policy from bringing it back.
            self.record.state.stopped_by_hand = true;
        }
        if self.record.state.phase == Phase::Paused && number == signal::KILL {
            self.unpause().await?;
        }
        self.send_signal(number).await
    }

    async fn pause(&mut self) -> Result<()> {
        let next = self.record.state.phase.after(Step::Pause)?;
        if let Some(live) = &self.live {
            live.shim.pause().await?;
        }
        self.record.state.phase = next;
        self.save_status().await;
        self.event("pause", &[]);
        Ok(())
    }

    async fn unpause(&mut self) -> Result<()> {
        let next = self.record.state.phase.after(Step::Unpause)?;
        if let Some(live) = &self.live {
            live.shim.resume().await?;
        }
        self.record.state.phase = next;
        self.save_status().await;
        self.event("unpause", &[]);
        Ok(())
    }

    async fn clean_up(&mut self) -> Result<()> {
        if self.record.state.phase.is_alive() {
            return Ok(());
        }
        lifecycle::tear_down(&self.shared, &mut self.record, None).await?;
        self.save(Write::Durable).await?;
        lifecycle::drop_bundle(&self.shared, &self.record.id).await;
        Ok(())
    }

    async fn rename(&mut self, name: String) -> Result<()> {
        let old = std::mem::replace(&mut self.record.name, name);
        if let Err(error) = self.save(Write::Durable).await {
            self.record.name = old;
            return Err(error);
        }
        self.shared.table.release(&old);
        self.shared.networks.rename(&self.record).await;
        self.event("rename", &[("oldName", format!("/{old}"))]);
        Ok(())
    }

    async fn update(&mut self, update: ContainerUpdateBody) -> Result<()> {
        let changed = super::update::apply(&self.record.host_config, update)?;
        let resources = super::spec::resources(&changed)?;
        // A restart policy alone is nothing to the shim, which may be between two runs.
        if resources != super::spec::resources(&self.record.host_config)?
            && self.record.state.phase.is_alive()
            && let Some(live) = &self.live
        {
            let json = serde_json::to_vec(&resources)
                .map_err(|source| Error::invalid("encode the limits").with_source(source))?;
            live.shim.update(json).await?;
        }
        self.record.host_config = changed;
        self.save(Write::Durable).await?;
        self.event("update", &[]);
        Ok(())
    }

    async fn connect(&mut self, network: &str, settings: EndpointSettings) -> Result<()> {
        let running = self.record.state.phase.is_alive();
        self.shared.networks.join(&mut self.record, network, settings, running).await?;
        self.save(Write::Durable).await
    }

    async fn disconnect(&mut self, network: &str) -> Result<()> {
        self.shared.networks.leave(&mut self.record, network).await?;
        self.save(Write::Durable).await
    }

    async fn attach(
        &mut self,
        request: brig_shim_protocol::attach::AttachRequest,
        stream: oneshot::Sender<UnixStream>,
    ) -> Result<()> {
        match &self.live {
            Some(live) => {
                let (connection, _) = live.shim.place().attach(&request).await?;
                let _ = stream.send(connection);
            }
            None => {
                self.attaches.retain(|(_, waiting)| !waiting.is_closed());
                self.attaches.push((request, stream));
            }
        }
        Ok(())
    }

    async fn health(&mut self, health: HealthRecord) {
        let before = self.record.state.health.as_ref().map(|health| health.status.clone());
        if self.probe.is_none() {
            return;
        }
        let status = health.status.clone();
        self.record.state.health = Some(health);
        self.save_status().await;
        if before.as_deref() != Some(&status) {
            self.event(&format!("health_status: {status}"), &[]);
        }
    }

    async fn remove(&mut self, options: RemoveOptions, reply: Reply<()>) {
        if self.removing.is_some() {
            let id = &self.record.id;
            return answer(
                reply,
                Err(Error::conflict(format!("removal of container {id} is already in progress"))),
            );
        }
        if !self.record.state.phase.is_alive() {
            return answer(reply, self.remove_stopped(options).await);
        }
        if !options.force {
            let id = &self.record.id;
            let what = format!(
                "cannot remove container \"{}\": container is running: stop the container before removing or force \
                 remove",
                if self.record.name.is_empty() { id } else { &self.record.name }
            );
            return answer(reply, Err(Error::conflict(what)));
        }
        self.record.state.stopped_by_hand = true;
        if self.record.state.phase == Phase::Paused {
            let _ = self.unpause().await;
        }
        if let Err(error) = self.send_signal(signal::KILL).await {
            // It may have ended in this very moment; the exit will tell.
            tracing::debug!(container = %self.record.id, "kill for removal: {}", error.report());
        }
        self.removing = Some((options, reply));
    }

    async fn remove_stopped(&mut self, options: RemoveOptions) -> Result<()> {
        self.record.state.phase = self.record.state.phase.after(Step::Remove)?;
        self.restart_at = None;
        self.record.state.removes_volumes = options.volumes;
        self.save_if_possible("the removal").await;
        let _fatal_at_most = failpoint::hit("removal-recorded");
        match lifecycle::remove(&self.shared, &mut self.record, options).await {
            Ok(()) => {
                self.removed = true;
                self.shared.table.remove(&self.record.id);
                let view = View { record: self.record.clone(), shim: None, removed: true };
                self.views.send_replace(Arc::new(view));
                self.event("destroy", &[]);
                Ok(())
            }
            Err(error) => {
                self.record.state.phase = self.record.state.phase.after(Step::RemoveFailed)?;
                self.record.state.error = error.report();
                let mut failures = Failures::default();
                failures.note::<(), _>(Err(error));
                failures.note(self.save(Write::Durable).await);
                failures.into_result(&format!("remove container {}", self.record.name))
            }
        }
    }
}

fn answer<T>(reply: Reply<T>, result: Result<T>) {
    // Whoever asked may have gone; what was done is done.
    let _ = reply.send(result);
}

async fn ended(exit: &mut Option<oneshot::Receiver<Exit>>) -> Exit {
    match exit {
        Some(receiver) => match receiver.await {
            Ok(exit) => exit,
            // The watcher was cut off because the engine closes.
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
