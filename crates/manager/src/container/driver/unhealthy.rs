//! Restarting containers that their health check finds unhealthy, which docker only tells.
//!
//! The container is stopped as by hand, with its signal and grace period; its end is then one that the restart policy
//! sees. A call of stop, kill or remove that comes meanwhile takes over, and nothing starts it again.

use super::Driver;
use super::stop::Stopping;
use crate::container::death::SignalSender;
use crate::container::requests::StopOptions;
use crate::container::restart::Policy;
use crate::container::state::Phase;

impl Driver {
    /// Begins to end an unhealthy container, if its policy restarts it for that and nothing ends it already.
    pub(super) async fn end_unhealthy(&mut self) {
        let busy = self.stopping.is_some() || self.killing.is_some() || self.removing.is_some();
        let state = &self.record.state;
        let wanted = Policy::of(&self.record).ends_unhealthy(state);
        if busy || state.phase != Phase::Running || !wanted {
            return;
        }
        tracing::info!(container = %self.record.id, "unhealthy: it is stopped to be restarted");
        match self.begin_stop(&StopOptions::default(), SignalSender::Health).await {
            Ok(Some(deadline)) => {
                self.stopping = Some(Stopping {
                    deadline,
                    killed: false,
                    replies: Vec::new(),
                    then_start: false,
                    for_health: true,
                });
            }
            Ok(None) => {}
            // The next look of the check tries again.
            Err(error) => {
                tracing::warn!(container = %self.record.id, "end it for its health: {}", error.report());
            }
        }
    }
}
