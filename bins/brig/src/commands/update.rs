//! `brig update`.

use brig_engine_api::models::ContainerUpdateBody;
use brig_engine_api::restart::Restarting;

use crate::arguments::resources::ResourceOptions;
use crate::context::Context;
use crate::exit::{Outcome, for_each};

/// Change the limits of containers
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    resources: ResourceOptions,
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let client = context.client().await?;
    let body = body(&arguments.resources);
    for_each(&arguments.containers, async |container| {
        let updated = client.update_container(container, &body).await?;
        for warning in updated.warnings.unwrap_or_default() {
            eprintln!("WARNING: {warning}");
        }
        Ok(container.to_owned())
    })
    .await
}

fn body(resources: &ResourceOptions) -> Restarting<ContainerUpdateBody> {
    let restart = resources.restart.as_ref();
    let body = ContainerUpdateBody {
        memory: resources.memory,
        memory_reservation: resources.memory_reservation,
        memory_swap: resources.memory_swap,
        nano_cpus: resources.cpus,
        cpu_shares: resources.cpu_shares,
        cpu_period: resources.cpu_period,
        cpu_quota: resources.cpu_quota,
        cpu_realtime_period: resources.cpu_rt_period,
        cpu_realtime_runtime: resources.cpu_rt_runtime,
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
        pids_limit: resources.pids_limit,
        blkio_weight: resources.blkio_weight,
        restart_policy: restart.map(|restart| restart.body.clone()),
        ..ContainerUpdateBody::default()
    };
    Restarting { body, on_unhealthy: restart.is_some_and(|restart| restart.on_unhealthy) }
}
