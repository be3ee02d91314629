//! Changes of a container that neither start nor end it.

use brig_engine_api::restart::Restarting;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::Driver;
use crate::container::state::Step;
use crate::container::update::{self, Changes};
use crate::container::{lifecycle, spec};
use crate::error::{Error, Result};
use crate::metadata::{HealthRecord, Write};
use crate::models::{ContainerUpdateBody, EndpointSettings};

impl Driver {
    pub(super) async fn pause(&mut self) -> Result<()> {
        let next = self.record.state.phase.after(Step::Pause)?;
        if let Some(live) = &self.live {
            live.shim.pause().await?;
        }
        self.record.state.phase = next;
        self.save_status().await;
        self.event("pause", &[]);
        Ok(())
    }

    pub(super) async fn unpause(&mut self) -> Result<()> {
        let next = self.record.state.phase.after(Step::Unpause)?;
        if let Some(live) = &self.live {
            live.shim.resume().await?;
        }
        self.record.state.phase = next;
        self.save_status().await;
        self.event("unpause", &[]);
        Ok(())
    }

    pub(super) async fn clean_up(&mut self) -> Result<()> {
        if self.record.state.phase.is_alive() {
            return Ok(());
        }
        lifecycle::tear_down(&self.shared, &mut self.record, None).await?;
        self.save(Write::Durable).await?;
        lifecycle::drop_bundle(&self.shared, &self.record.id).await;
        Ok(())
    }

    pub(super) async fn rename(&mut self, name: String) -> Result<()> {
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

    pub(super) async fn update(&mut self, update: Restarting<ContainerUpdateBody>) -> Result<()> {
        let Changes { host: changed, restarts_unhealthy } = update::apply(&self.record, update)?;
        let resources = spec::resources(&changed)?;
        // A restart policy alone is nothing to the shim, which may be between two runs.
        if resources != spec::resources(&self.record.host_config)?
            && self.record.state.phase.is_alive()
            && let Some(live) = &self.live
        {
            let json = serde_json::to_vec(&resources)
                .map_err(|source| Error::invalid("encode the limits").with_source(source))?;
            live.shim.update(json).await?;
        }
        self.record.host_config = changed;
        self.record.restarts_unhealthy = restarts_unhealthy;
        self.save(Write::Durable).await?;
        self.event("update", &[]);
        Ok(())
    }

    pub(super) async fn connect(
        &mut self,
        network: &str,
        settings: EndpointSettings,
    ) -> Result<()> {
        let running = self.record.state.phase.is_alive();
        self.shared.networks.join(&mut self.record, network, settings, running).await?;
        self.save(Write::Durable).await
    }

    pub(super) async fn disconnect(&mut self, network: &str) -> Result<()> {
        self.shared.networks.leave(&mut self.record, network).await?;
        self.save(Write::Durable).await
    }

    pub(super) async fn attach(
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

    pub(super) async fn health(&mut self, health: HealthRecord) {
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
        match &*status {
            "healthy" => self.was_healthy = true,
            "unhealthy" => self.end_unhealthy().await,
            _ => {}
        }
    }
}
