//! What happens to objects, told to whoever listens, with a short memory.
//!
//! [`Events::publish`] never waits: events go into a ring of [`RING_EVENTS`] (for `since`) and to a bounded broadcast. A
//! listener that falls more than [`QUEUE_EVENTS`] behind is cut off with an error instead of slowing the engine.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{Stream, stream};
use tokio::sync::broadcast::{self, error::RecvError};

use crate::error::{Error, ErrorKind, Result};
use crate::filters::Filters;
use crate::models::{EventActor, EventMessage, EventMessageScopeEnum, EventMessageTypeEnum};

/// Events remembered for `since`.
const RING_EVENTS: usize = 1024;
/// Events that a listener may be behind.
const QUEUE_EVENTS: usize = 1024;

/// Events until the listener goes, `until` is reached, or an error ends the stream.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<EventMessage>> + Send>>;

/// Which events a listener wants.
#[derive(Debug, Clone, Default)]
pub struct EventsRequest {
    /// Also past events from this time on, in nanoseconds since 1970.
    pub since_ns: Option<i128>,
    /// Stop at this time, in nanoseconds since 1970.
    pub until_ns: Option<i128>,
    /// Filters.
    pub filters: Filters,
}

/// The engine's event bus.
#[derive(Debug, Clone)]
pub struct Events {
    ring: Arc<Mutex<VecDeque<EventMessage>>>,
    sender: broadcast::Sender<EventMessage>,
}

impl Events {
    pub(crate) fn new() -> Self {
        let (sender, _) = broadcast::channel(QUEUE_EVENTS);
        Self { ring: Arc::default(), sender }
    }

    /// Tells that `action` happened to an object.
    pub(crate) fn publish(
        &self,
        kind: EventMessageTypeEnum,
        action: impl Into<String>,
        id: &str,
        attributes: HashMap<String, String>,
    ) {
        let now_ns = now_ns();
        let message = EventMessage {
            typ: Some(kind),
            action: Some(action.into()),
            actor: Some(EventActor { id: Some(id.to_owned()), attributes: Some(attributes) }),
            scope: Some(EventMessageScopeEnum::LOCAL),
            time: i64::try_from(now_ns / 1_000_000_000).ok(),
            time_nano: i64::try_from(now_ns).ok(),
        };
        // The lock also orders the ring and the broadcast, so that a subscriber misses nothing and sees nothing twice.
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() == RING_EVENTS {
            ring.pop_front();
        }
        ring.push_back(message.clone());
        let _ = self.sender.send(message);
    }

    /// Listeners at present.
    pub(crate) fn listeners(&self) -> usize {
        self.sender.receiver_count()
    }

    /// Listens, with the past first if `since` asks for it.
    ///
    /// # Errors
    ///
    /// A filter is unknown.
    pub fn subscribe(&self, request: EventsRequest) -> Result<EventStream> {
        request.filters.check(&[
            "config",
            "container",
            "daemon",
            "event",
            "image",
            "label",
            "network",
            "node",
            "plugin",
            "scope",
            "secret",
            "service",
            "type",
            "volume",
        ])?;
        let (past, receiver) = {
            let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            let past: VecDeque<EventMessage> = match request.since_ns {
                Some(since) => {
                    ring.iter().filter(|event| time_ns(event) >= since).cloned().collect()
                }
                None => VecDeque::new(),
            };
            (past, self.sender.subscribe())
        };
        let state = Subscription {
            past,
            receiver,
            until_ns: request.until_ns,
            filters: request.filters,
            ended: false,
        };
        Ok(Box::pin(stream::unfold(state, |mut state| async move {
            Some((state.next().await?, state))
        })))
    }
}

struct Subscription {
    past: VecDeque<EventMessage>,
    receiver: broadcast::Receiver<EventMessage>,
    until_ns: Option<i128>,
    filters: Filters,
    ended: bool,
}

impl Subscription {
    async fn next(&mut self) -> Option<Result<EventMessage>> {
        while !self.ended {
            let event = match self.past.pop_front() {
                Some(event) => event,
                None => match self.receive().await? {
                    Ok(event) => event,
                    Err(error) => {
                        self.ended = true;
                        return Some(Err(error));
                    }
                },
            };
            if self.until_ns.is_some_and(|until| time_ns(&event) > until) {
                return None;
            }
            if matches(&self.filters, &event) {
                return Some(Ok(event));
            }
        }
        None
    }

    async fn receive(&mut self) -> Option<Result<EventMessage>> {
        let received = match self.until_ns {
            None => self.receiver.recv().await,
            Some(until) => {
                let left_ns = u64::try_from(until - now_ns()).unwrap_or(0);
                tokio::time::timeout(Duration::from_nanos(left_ns), self.receiver.recv())
                    .await
                    .ok()?
            }
        };
        match received {
            Ok(event) => Some(Ok(event)),
            Err(RecvError::Closed) => None,
            Err(RecvError::Lagged(missed)) => Some(Err(Error::new(
                ErrorKind::Exhausted,
                format!(
                    "the listener fell behind and missed {missed} events; subscribe again with since"
                ),
            ))),
        }
    }
}

fn time_ns(event: &EventMessage) -> i128 {
    event.time_nano.map_or(0, i128::from)
}

fn now_ns() -> i128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)
}

fn matches(filters: &Filters, event: &EventMessage) -> bool {
    let kind = event.typ.as_ref().map(ToString::to_string).unwrap_or_default();
    let action = event.action.as_deref().unwrap_or_default();
    let actor = event.actor.clone().unwrap_or_default();
    let id = actor.id.unwrap_or_default();
    let attributes = actor.attributes.unwrap_or_default();
    let name = attributes.get("name").map(String::as_str).unwrap_or_default();
    let object = |wanted: &str| {
        id == wanted || name == wanted || (wanted.len() >= 4 && id.starts_with(wanted))
    };
    filters.any("type", |wanted| wanted == kind)
        && filters
            .any("event", |wanted| action == wanted || action.split(':').next() == Some(wanted))
        && filters.any("scope", |wanted| wanted == "local")
        && filters.labels(&attributes)
        && filters.any("container", |wanted| {
            (kind == "container" && object(wanted))
                || attributes.get("container").is_some_and(|id| id == wanted)
        })
        && filters.any("image", |wanted| {
            (kind == "image" && object(wanted))
                || attributes.get("image").is_some_and(|image| image == wanted)
        })
        && ["network", "volume", "daemon", "plugin", "node", "service", "secret", "config"]
            .iter()
            .all(|object_kind| {
                filters.any(object_kind, |wanted| kind == *object_kind && object(wanted))
            })
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    fn publish(events: &Events, action: &str, id: &str) {
        events.publish(EventMessageTypeEnum::CONTAINER, action, id, HashMap::new());
    }

    #[tokio::test]
    async fn since_replays_the_past_and_then_the_present() {
        let events = Events::new();
        publish(&events, "create", "one");
        let request = EventsRequest { since_ns: Some(0), ..EventsRequest::default() };
        let mut stream = events.subscribe(request).expect("subscribe");
        publish(&events, "start", "one");
        let actions: Vec<String> = stream
            .by_ref()
            .take(2)
            .map(|event| event.expect("event").action.expect("action"))
            .collect()
            .await;
        assert_eq!(actions, ["create", "start"]);
    }

    #[tokio::test]
    async fn until_ends_the_stream() {
        let events = Events::new();
        publish(&events, "create", "one");
        let request = EventsRequest {
            since_ns: Some(0),
            until_ns: Some(now_ns()),
            ..EventsRequest::default()
        };
        let seen = events.subscribe(request).expect("subscribe").count().await;
        assert_eq!(seen, 1);
    }

    #[tokio::test]
    async fn a_listener_that_falls_behind_is_told_and_cut_off() {
        let events = Events::new();
        let mut stream = events.subscribe(EventsRequest::default()).expect("subscribe");
        for _ in 0..QUEUE_EVENTS + 1 {
            publish(&events, "start", "one");
        }
        assert_eq!(
            stream.next().await.expect("an item").expect_err("lagged").kind(),
            ErrorKind::Exhausted
        );
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn filters_choose_by_event_and_container() {
        let events = Events::new();
        publish(&events, "start", "one");
        publish(&events, "die", "one");
        publish(&events, "die", "two");
        let mut filters = Filters::default();
        filters.insert("event", "die");
        filters.insert("container", "two");
        let request = EventsRequest { since_ns: Some(0), until_ns: Some(now_ns()), filters };
        let seen: Vec<_> = events.subscribe(request).expect("subscribe").collect().await;
        assert_eq!(seen.len(), 1);
    }
}
