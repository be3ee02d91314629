//! Removing a container: at once when it has ended, else once it has been killed.

use std::sync::Arc;

use super::{Driver, Reply, answer};
use crate::container::death::SignalSender;
use crate::container::lifecycle;
use crate::container::requests::RemoveOptions;
use crate::container::signal;
use crate::container::state::{Phase, Step};
use crate::container::table::View;
use crate::error::{Error, Failures, Result};
use crate::failpoint;
use crate::metadata::Write;

impl Driver {
    pub(super) async fn remove_if_automatic(&mut self) {
        if self.record.host_config.auto_remove != Some(true) {
            return;
        }
        let options = RemoveOptions { force: true, volumes: true };
        if let Err(error) = self.remove_stopped(options).await {
            tracing::error!(container = %self.record.id, "automatic removal: {}", error.report());
        }
    }

    pub(super) async fn remove(&mut self, options: RemoveOptions, reply: Reply<()>) {
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
        self.intend_end("the removal by force").await;
        if self.record.state.phase == Phase::Paused {
            let _ = self.unpause().await;
        }
        if let Err(error) = self.send_signal(signal::KILL, SignalSender::Removal).await {
            // It may have ended in this very moment; the exit will tell.
            tracing::debug!(container = %self.record.id, "kill for removal: {}", error.report());
        }
        let _fatal_at_most = failpoint::hit("removal-signalled");
        self.removing = Some((options, reply));
    }

    pub(super) async fn remove_stopped(&mut self, options: RemoveOptions) -> Result<()> {
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
