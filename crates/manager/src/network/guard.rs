//! Keeping the kernel's networks as the records say: somebody flushes the ruleset or deletes a bridge, and without this
//! published ports would be dead and containers exposed until the engine restarts.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Networks;
use crate::error::{Error, Result};

/// Between two looks. A look is a dump of links and of our own table.
const INTERVAL: Duration = Duration::from_secs(3);

impl Networks {
    /// Looks after the networks until `closing`. Call it after [`reconcile`](Self::reconcile).
    pub(crate) fn guard(&self, closing: CancellationToken) {
        let this = self.clone();
        self.0.tasks.spawn(async move {
            let mut reported = String::new();
            loop {
                tokio::select! {
                    () = closing.cancelled() => return,
                    () = tokio::time::sleep(INTERVAL) => {}
                }
                let report = match this.repair_if_damaged().await {
                    Ok(()) => String::new(),
                    Err(error) => error.report(),
                };
                // Once, not every few seconds for as long as it lasts.
                if !report.is_empty() && report != reported {
                    tracing::error!("{report}");
                }
                reported = report;
            }
        });
    }

    async fn repair_if_damaged(&self) -> Result<()> {
        // What is just being connected looks like damage; so only the second look, alone, counts.
        if self.damage().await?.is_empty() {
            return Ok(());
        }
        let _alone = self.0.changes.write().await;
        let damage = self.damage().await?;
        if damage.is_empty() {
            return Ok(());
        }
        let state = self.state().kernel_state();
        let repaired = self
            .library(move |library| library.repair(&state).into_result().map_err(Error::from))
            .await;
        let missing = damage.join(", ");
        match repaired {
            Ok(()) => {
                tracing::warn!("somebody removed {missing}: put back");
                Ok(())
            }
            Err(error) => Err(error.context(format!("put back what somebody removed ({missing})"))),
        }
    }

    async fn damage(&self) -> Result<Vec<String>> {
        let state = self.state().kernel_state();
        self.library(move |library| library.damage(&state).map_err(Error::from)).await
    }
}
