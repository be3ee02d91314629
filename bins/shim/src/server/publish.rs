//! Events for containerd: queued, and published one at a time and in order, each by a forked child.
//!
//! Under brigd there are none: Wait and `exit.json` tell all it needs. Limits: [`QUEUED_MAX`] events wait, the oldest
//! goes first when there are more; an event is tried [`ATTEMPTS_MAX`] times.

use std::collections::VecDeque;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use brig_shim_protocol::events::{Envelope, Event, FORWARD, ForwardRequest, SERVICE};
use brig_shim_protocol::ttrpc::{Code, Status};
use brig_shim_protocol::types::{Any, Empty};
use brig_shim_protocol::{Client, Timestamp};
use prost::Message;

use super::Shim;
use super::complete::Completion;
use crate::identity::{Containerd, Identity};
use crate::operation::{Reply, Task, Work};
use crate::timers::Timer;

/// Events that may wait while containerd is away.
const QUEUED_MAX: usize = 2048;

/// How often one event is tried.
const ATTEMPTS_MAX: u32 = 5;

/// How long containerd may take to accept one.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Between attempts, times the attempt's number.
const RETRY: Duration = Duration::from_secs(1);

/// Events that wait.
#[derive(Debug, Default)]
pub(super) struct Events {
    queue: VecDeque<Envelope>,
    attempts: u32,
    active: bool,
}

impl Events {
    /// True when all are published or given up.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl Shim {
    /// Publishes an event, when there is a containerd to hear it.
    pub(super) fn publish<E: Event>(&mut self, event: &E) {
        if self.identity.containerd.is_none() {
            return;
        }
        if self.events.queue.len() >= QUEUED_MAX {
            self.events.queue.remove(usize::from(self.events.active));
        }
        self.events.queue.push_back(Envelope {
            timestamp: Some(Timestamp::now()),
            namespace: self.identity.namespace.clone(),
            topic: E::TOPIC.to_owned(),
            event: Some(Any::pack(event)),
        });
        self.publish_next();
    }

    pub(super) fn publish_next(&mut self) {
        if self.events.active {
            return;
        }
        let Some(envelope) = self.events.queue.front().cloned() else { return };
        self.events.active = true;
        let identity = self.identity.clone();
        let work: Work = Box::new(move |_| {
            let reply = match send(&identity, envelope) {
                Ok(()) => Reply::default(),
                Err(message) => Reply::failure(Status::new(Code::Unavailable, message)),
            };
            (reply, Vec::new())
        });
        self.submit(Task { work, keep: Vec::new(), completion: Completion::Published });
    }

    pub(super) fn published(&mut self, failure: Option<Status>) {
        self.events.active = false;
        match failure {
            Some(status) if self.events.attempts + 1 < ATTEMPTS_MAX => {
                self.events.attempts += 1;
                let message = status.message;
                self.diagnostics.debug(format_args!("publish an event: {message}; trying again"));
                self.timers.set(RETRY * self.events.attempts, Timer::Publish);
                return;
            }
            Some(status) => {
                let message = status.message;
                self.diagnostics.warn(format_args!("publish an event: {message}; given up"));
            }
            None => {}
        }
        self.events.attempts = 0;
        self.events.queue.pop_front();
        self.publish_next();
    }
}

/// Publishes over ttrpc, or by containerd's own program where that address is not known.
fn send(identity: &Identity, envelope: Envelope) -> Result<(), String> {
    let Some(containerd) = &identity.containerd else { return Ok(()) };
    if containerd.ttrpc_address.is_empty() {
        return send_by_program(containerd, &envelope);
    }
    let path = containerd.ttrpc_address.trim_start_matches("unix://");
    let socket = brig_linux::fd::connect_unix(path.as_ref()).map_err(|error| chain(&error))?;
    let mut client = Client::from_stream(socket);
    client.set_timeout(Some(TIMEOUT)).map_err(|error| error.to_string())?;
    let request = ForwardRequest { envelope: Some(envelope) };
    let forwarded = client.call_service::<_, Empty>(SERVICE, FORWARD, &request);
    forwarded.map(drop).map_err(|error| chain(&error))
}

fn send_by_program(containerd: &Containerd, envelope: &Envelope) -> Result<(), String> {
    if containerd.publish_binary.is_empty() {
        return Err("neither a ttrpc address nor a publishing program is known".to_owned());
    }
    let failed = |error: std::io::Error| format!("run {}: {error}", containerd.publish_binary);
    let mut child = Command::new(&containerd.publish_binary)
        .args(["--address", &containerd.grpc_address, "publish"])
        .args(["--topic", &envelope.topic, "--namespace", &envelope.namespace])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let event = envelope.event.clone().unwrap_or_default().encode_to_vec();
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&event).map_err(failed)?;
    }
    match child.wait().map_err(failed)? {
        status if status.success() => Ok(()),
        status => Err(format!("{} publish: {status}", containerd.publish_binary)),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}
