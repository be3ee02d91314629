//! `--health-*`.

use anyhow::{Result, bail};
use brig_engine_api::models::HealthConfig;
use clap::Args;

use super::time::duration_nanoseconds;

/// The flags of a health check.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Health check")]
pub(crate) struct HealthOptions {
    /// Command that tells whether the container is healthy
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between checks, such as 30s
    #[arg(long, value_name = "DURATION", value_parser = duration_nanoseconds)]
    health_interval: Option<i64>,
    /// Time a check may take
    #[arg(long, value_name = "DURATION", value_parser = duration_nanoseconds)]
    health_timeout: Option<i64>,
    /// Failed checks in a row until the container is unhealthy
    #[arg(long, value_name = "NUMBER")]
    health_retries: Option<i64>,
    /// Time in which failures do not count yet
    #[arg(long, value_name = "DURATION", value_parser = duration_nanoseconds)]
    health_start_period: Option<i64>,
    /// Time between checks within the start period
    #[arg(long, value_name = "DURATION", value_parser = duration_nanoseconds)]
    health_start_interval: Option<i64>,
    /// Disable the image's health check
    #[arg(long)]
    no_healthcheck: bool,
}

impl HealthOptions {
    /// The health check to ask for, if any flag was given.
    pub(crate) fn config(&self) -> Result<Option<HealthConfig>> {
        let config = HealthConfig {
            test: self
                .health_cmd
                .as_ref()
                .map(|command| vec!["CMD-SHELL".to_owned(), command.clone()]),
            interval: self.health_interval,
            timeout: self.health_timeout,
            retries: self.health_retries,
            start_period: self.health_start_period,
            start_interval: self.health_start_interval,
        };
        let given = config != HealthConfig::default();
        match (self.no_healthcheck, given) {
            (true, true) => bail!("--no-healthcheck contradicts the other --health flags"),
            (true, false) => Ok(Some(HealthConfig {
                test: Some(vec!["NONE".to_owned()]),
                ..HealthConfig::default()
            })),
            (false, given) => Ok(given.then_some(config)),
        }
    }
}
