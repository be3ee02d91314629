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

mod change;
mod remove;
mod stop;
mod unhealthy;

use std::sync::Arc;
use std::time::Duration;

use brig_engine_api::restart::Restarting;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::boot;
use super::death::{DeathRecord, SignalSender};
use super::health::{self, Probe};
use super::lifecycle::{self, Live};
use super::requests::{Outcome, RemoveOptions, StopOptions};
use super::restart::{BackOff, Policy};
use super::state::{Phase, Step};
use super::table::{Handle, View};
use super::{Shared, logs, now, signal};
use crate::error::Result;
use crate::failpoint;
use crate::metadata::{ContainerRecord, HealthRecord, Write};
use crate::models::{ContainerUpdateBody, EndpointSettings};
use crate::shim_client::Exit;
use stop::{Killing, Stopping};

/// Requests that may wait for one container.
const REQUESTS_MAX: usize = 64;

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
        update: Box<Restarting<ContainerUpdateBody>>,
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
    killing: Option<Killing>,
    removing: Option<(RemoveOptions, Reply<()>)>,
    back_off: BackOff,
    /// Its health check found it healthy in the run that goes on, or in the last one.
    was_healthy: bool,
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
        killing: None,
        removing: None,
        back_off: BackOff::default(),
        was_healthy: false,
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
            let patience = self.killing.as_ref().map(|killing| killing.deadline);
            tokio::select! {
                biased;
                () = closing.cancelled() => break,
                exit = ended(&mut self.exit) => self.on_exit(exit).await,
                () = until(deadline) => self.escalate().await,
                () = until(patience) => self.give_up_on_kill(),
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
            Request::Kill { signal, reply } => self.kill(signal.as_deref(), reply).await,
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
                state.sent = None;
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
                    let _exit_tells =
                        self.send_signal(signal::KILL, SignalSender::FailedStart).await;
                    return Err(error);
                }
                self.event("start", &[]);
                failpoint::hit("start-announced")
            }
            Err(error) => {
                let report = error.report();
                self.record.state.error.clone_from(&report);
                let code = lifecycle::exit_code_of_failed_start(&report);
                self.record.state.exit_code = code;
                self.record.state.note_death(DeathRecord::of_failed_start(code, &report));
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
        let health = self.record.state.health.as_ref();
        self.was_healthy = health.is_some_and(|health| health.status == "healthy");
        self.probe = health::start(&self.shared, &self.record, self.own.clone());
        self.live = Some(live);
    }

    async fn on_exit(&mut self, mut exit: Exit) {
        logs::add_last_lines(&self.shared, &self.record, &mut exit).await;
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
        let stopping = self.stopping.take().filter(|stopping| !stopping.for_health);
        let then_start = stopping.as_ref().is_some_and(|stopping| stopping.then_start);
        let restarts = stopping.is_none() && self.removing.is_none() && self.restarts();
        let step = if restarts { Step::ExitToRestart } else { Step::Exit };
        self.record.state.phase = self.record.state.phase.after(step).unwrap_or(Phase::Exited);
        self.settle_exit(oom_killed, code, ran).await;
        if let Some(killing) = self.killing.take() {
            killing.replies.into_iter().for_each(|reply| answer(reply, Ok(())));
        }
        if let Some(stopping) = stopping {
            self.finish_stop(stopping).await;
        }
        if let Some((options, reply)) = self.removing.take() {
            answer(reply, self.remove_stopped(options).await);
        } else if self.record.state.phase == Phase::Restarting {
            // One that was never healthy did not run well, however long it took to find that out.
            let unwell = self.record.state.ended_for_health() && !self.was_healthy;
            let ran = if unwell { Duration::ZERO } else { ran };
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

    fn restarts(&self) -> bool {
        Policy::of(&self.record).restarts(&self.record.state)
    }

    async fn plan_restart_or_rest(&mut self) {
        if self.restarts() {
            self.restart_at = Some(Instant::now() + self.back_off.next(Duration::ZERO));
        } else {
            self.record.state.phase = Phase::Exited;
            self.save_status().await;
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
