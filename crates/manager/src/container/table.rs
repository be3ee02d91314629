//! The containers in memory: by id and by name, each with the door to its task and the last published view of it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{mpsc, oneshot, watch};

use super::driver::Request;
use crate::error::{Error, ErrorKind, Result};
use crate::metadata::ContainerRecord;
use crate::shim_client::Shim;

/// What everyone may see of a container without asking its task.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) record: ContainerRecord,
    /// The shim, while there is one.
    pub(crate) shim: Option<Shim>,
    /// The container is gone; this is the last view.
    pub(crate) removed: bool,
}

/// The door to a container's task.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    requests: mpsc::Sender<Request>,
    views: watch::Receiver<Arc<View>>,
}

impl Handle {
    pub(crate) fn new(requests: mpsc::Sender<Request>, views: watch::Receiver<Arc<View>>) -> Self {
        Self { requests, views }
    }

    /// The present view.
    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.views.borrow())
    }

    /// Views as they change.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.views.clone()
    }

    /// Sends a request to the task and waits for its answer.
    pub(crate) async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T>>) -> Request,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let id = self.view().record.id.clone();
        let gone = || Error::not_found(format!("No such container: {id}"));
        self.requests.send(request(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// The shim of a running container.
    pub(crate) fn shim(&self) -> Result<Shim> {
        let view = self.view();
        let running = view.record.state.phase.is_alive();
        view.shim
            .clone()
            .filter(|_| running)
            .ok_or_else(|| Error::conflict(format!("container {} is not running", view.record.id)))
    }
}

#[derive(Debug, Default)]
struct Inner {
    handles: HashMap<String, Handle>,
    /// Name to id. A name is reserved before its container exists.
    names: HashMap<String, String>,
}

/// All containers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table(Arc<RwLock<Inner>>);

impl Table {
    fn read<T>(&self, look: impl FnOnce(&Inner) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes `name` for the container `id`.
    pub(crate) fn reserve(&self, name: &str, id: &str) -> Result<()> {
        self.write(|inner| match inner.names.get(name) {
            Some(holder) if holder != id => Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". You have to \
                     remove (or rename) that container to be able to reuse that name."
                ),
            )),
            _ => {
                inner.names.insert(name.to_owned(), id.to_owned());
                Ok(())
            }
        })
    }

    /// Gives a name back.
    pub(crate) fn release(&self, name: &str) {
        self.write(|inner| inner.names.remove(name));
    }

    pub(crate) fn is_name_taken(&self, name: &str) -> bool {
        self.read(|inner| inner.names.contains_key(name))
    }

    pub(crate) fn insert(&self, id: &str, handle: Handle) {
        self.write(|inner| inner.handles.insert(id.to_owned(), handle));
    }

    /// Forgets a container and its name.
    pub(crate) fn remove(&self, id: &str) {
        self.write(|inner| {
            inner.handles.remove(id);
            inner.names.retain(|_, holder| holder != id);
        });
    }

    /// The views of all containers, in no order.
    pub(crate) fn views(&self) -> Vec<Arc<View>> {
        self.read(|inner| inner.handles.values().map(Handle::view).collect())
    }

    /// Finds a container by id, name or unambiguous beginning of its id, in this order.
    pub(crate) fn find(&self, text: &str) -> Result<Handle> {
        let name = text.strip_prefix('/').unwrap_or(text);
        self.read(|inner| {
            if let Some(handle) = inner.handles.get(text) {
                return Ok(handle.clone());
            }
            if let Some(handle) = inner.names.get(name).and_then(|id| inner.handles.get(id)) {
                return Ok(handle.clone());
            }
            let mut found =
                inner.handles.iter().filter(|(id, _)| !text.is_empty() && id.starts_with(text));
            match (found.next(), found.next()) {
                (Some((_, handle)), None) => Ok(handle.clone()),
                (Some(_), Some(_)) => {
                    Err(Error::invalid(format!("Multiple IDs found with provided prefix: {text}")))
                }
                (None, _) => Err(Error::not_found(format!("No such container: {text}"))),
            }
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A handle without a task behind it.
    pub(crate) fn idle(record: ContainerRecord) -> Handle {
        let (requests, _) = mpsc::channel(1);
        let (_, views) = watch::channel(Arc::new(View { record, shim: None, removed: false }));
        Handle::new(requests, views)
    }

    fn insert(table: &Table, id: &str, name: &str) {
        table.reserve(name, id).expect("a free name");
        table.insert(
            id,
            idle(ContainerRecord {
                id: id.into(),
                name: name.into(),
                ..ContainerRecord::default()
            }),
        );
    }

    #[test]
    fn containers_are_found_by_id_name_and_prefix() {
        let table = Table::default();
        insert(&table, "aa11", "web");
        insert(&table, "aa22", "aa1");
        let id = |text: &str| table.find(text).map(|handle| handle.view().record.id.clone());
        assert_eq!(id("aa11").expect("id"), "aa11");
        assert_eq!(id("/web").expect("name"), "aa11");
        // A name wins over the beginning of an id.
        assert_eq!(id("aa1").expect("name"), "aa22");
        assert_eq!(id("aa").expect_err("ambiguous").kind(), ErrorKind::InvalidInput);
        assert_eq!(id("b").expect_err("unknown").kind(), ErrorKind::NotFound);
        assert_eq!(id("").expect_err("empty").kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_name_is_held_by_one_container() {
        let table = Table::default();
        insert(&table, "aa11", "web");
        let error = table.reserve("web", "bb").expect_err("taken");
        assert!(error.report().contains("already in use"), "{}", error.report());
        table.remove("aa11");
        table.reserve("web", "bb").expect("free again");
    }
}
