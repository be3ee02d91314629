//! Everything about one container, as the Engine API shows it.

use std::collections::HashMap;
use std::sync::Arc;

use brig_engine_api::restart::Restarting;
use brig_engine_api::types::InspectedContainer;
use brig_network::Protocol;

use super::log_driver::{self, Place};
use super::{DeathRecord, Phase, Shared, list, runtime};
use crate::error::Result;
use crate::metadata::{ContainerRecord, EndpointRecord, HealthRecord, MountKind};
use crate::models::{
    ContainerInspectResponse, ContainerState, DriverData, EndpointSettings, Health,
    HealthStatusEnum, HealthcheckResult, HostConfig, HostConfigLogConfig, MountPoint,
    NetworkSettings, PortBinding, PortMap, PortSummary, PortSummaryTypeEnum, RestartPolicy,
    RestartPolicyNameEnum,
};
use crate::name;

/// A time that has not come: Go's zero.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Everything about one container.
pub(super) async fn inspect(
    shared: &Arc<Shared>,
    container: &str,
    size: bool,
) -> Result<InspectedContainer> {
    let view = shared.table.find(container)?.view();
    let record = &view.record;
    let (size_rw, size_root_fs) =
        if size { list::sizes(shared, &record.id).await? } else { (None, None) };
    let file = |name: &str| {
        let written = !record.state.started_at.is_empty();
        let path = shared.config.root.join("containers").join(&record.id).join(name);
        Some(if written { path.display().to_string() } else { String::new() })
    };
    let log_path = match log_driver::readable(record, &shared.config) {
        Ok(Place::Files(path)) => path.display().to_string(),
        _ => String::new(),
    };
    let execs = shared.execs.of_container(&record.id);
    let container = ContainerInspectResponse {
        id: Some(record.id.clone()),
        created: Some(record.created_at.clone()),
        path: Some(record.path.clone()),
        args: Some(record.args.clone()),
        state: Some(state(record)),
        image: Some(record.image_id.clone()),
        resolv_conf_path: file("resolv.conf"),
        hostname_path: file("hostname"),
        hosts_path: file("hosts"),
        log_path: Some(log_path),
        name: Some(format!("/{}", record.name)),
        restart_count: Some(record.state.restart_count.into()),
        driver: Some(shared.images.driver().into()),
        platform: Some("linux".into()),
        mount_label: Some(String::new()),
        process_label: Some(String::new()),
        app_armor_profile: Some(String::new()),
        exec_ids: Some(execs).filter(|execs| !execs.is_empty()),
        host_config: Some(host_config(shared, record)),
        graph_driver: Some(DriverData {
            name: shared.images.driver().into(),
            data: HashMap::new(),
        }),
        size_rw,
        size_root_fs,
        mounts: Some(mounts(record)),
        config: Some(config(record)),
        network_settings: Some(network_settings(shared, record)),
        ..ContainerInspectResponse::default()
    };
    let death = record.state.death.as_ref().map(DeathRecord::describe);
    let container = Restarting { body: container, on_unhealthy: record.restarts_unhealthy };
    Ok(InspectedContainer { container, death })
}

fn state(record: &ContainerRecord) -> ContainerState {
    let state = &record.state;
    let time = |text: &str| Some(if text.is_empty() { NEVER.to_owned() } else { text.to_owned() });
    ContainerState {
        status: Some(state.phase.into()),
        running: Some(state.phase.is_alive() || state.phase == Phase::Restarting),
        paused: Some(state.phase == Phase::Paused),
        restarting: Some(state.phase == Phase::Restarting),
        oom_killed: Some(state.oom_killed),
        dead: Some(state.phase == Phase::Dead),
        pid: Some(state.pid.into()),
        exit_code: Some(state.exit_code.into()),
        error: Some(state.error.clone()),
        started_at: time(&state.started_at),
        finished_at: time(&state.finished_at),
        health: state.health.as_ref().map(health),
    }
}

fn health(health: &HealthRecord) -> Health {
    Health {
        status: Some(match health.status.as_str() {
            "healthy" => HealthStatusEnum::HEALTHY,
            "unhealthy" => HealthStatusEnum::UNHEALTHY,
            _ => HealthStatusEnum::STARTING,
        }),
        failing_streak: Some(health.failing_streak),
        log: Some(
            health
                .log
                .iter()
                .map(|(start, end, exit_code, output)| HealthcheckResult {
                    start: Some(start.clone()),
                    end: Some(end.clone()),
                    exit_code: Some(*exit_code),
                    output: Some(output.clone()),
                })
                .collect(),
        ),
    }
}

/// The request's host configuration with the defaults that took effect.
fn host_config(shared: &Shared, record: &ContainerRecord) -> HostConfig {
    let mut host = record.host_config.clone();
    let (driver, options) = log_driver::chosen(record, &shared.config);
    host.log_config = Some(HostConfigLogConfig {
        typ: Some(driver),
        config: Some(options.into_iter().collect()),
    });
    if host.restart_policy.as_ref().is_none_or(|policy| policy.name.is_none()) {
        host.restart_policy = Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: Some(0),
        });
    }
    let shm_size = i64::try_from(shared.config.shm_size_bytes).ok();
    host.shm_size = host.shm_size.filter(|size| *size > 0).or(shm_size);
    for flag in [
        &mut host.auto_remove,
        &mut host.privileged,
        &mut host.publish_all_ports,
        &mut host.readonly_rootfs,
        &mut host.oom_kill_disable,
    ] {
        flag.get_or_insert(false);
    }
    for number in [
        &mut host.memory,
        &mut host.memory_swap,
        &mut host.memory_reservation,
        &mut host.nano_cpus,
        &mut host.cpu_shares,
        &mut host.cpu_period,
        &mut host.cpu_quota,
        &mut host.oom_score_adj,
    ] {
        number.get_or_insert(0);
    }
    for text in [
        &mut host.ipc_mode,
        &mut host.pid_mode,
        &mut host.uts_mode,
        &mut host.userns_mode,
        &mut host.cpuset_cpus,
        &mut host.cpuset_mems,
        &mut host.cgroup_parent,
    ] {
        text.get_or_insert_default();
    }
    if host.ipc_mode.as_deref() == Some("") {
        host.ipc_mode = Some("private".into());
    }
    host.runtime.get_or_insert_with(|| runtime::BUILT_IN.into());
    host.port_bindings.get_or_insert_default();
    host
}

fn config(record: &ContainerRecord) -> crate::models::ContainerConfig {
    let mut config = record.config.clone();
    for flag in [
        &mut config.attach_stdin,
        &mut config.attach_stdout,
        &mut config.attach_stderr,
        &mut config.tty,
        &mut config.open_stdin,
        &mut config.stdin_once,
    ] {
        flag.get_or_insert(false);
    }
    for text in [&mut config.user, &mut config.domainname, &mut config.working_dir] {
        text.get_or_insert_default();
    }
    config.env.get_or_insert_default();
    config.labels.get_or_insert_default();
    config.image = Some(record.image.clone());
    config
}

/// The mounts of a container.
pub(super) fn mounts(record: &ContainerRecord) -> Vec<MountPoint> {
    record
        .mounts
        .iter()
        .map(|mount| {
            let bind = mount.kind == MountKind::Bind;
            let propagation =
                if mount.propagation.is_empty() && bind { "rprivate" } else { &mount.propagation };
            MountPoint {
                typ: Some(
                    match mount.kind {
                        MountKind::Bind => "bind",
                        MountKind::Volume => "volume",
                        MountKind::Tmpfs => "tmpfs",
                    }
                    .into(),
                ),
                name: mount.name.clone(),
                source: Some(mount.source.clone()),
                destination: Some(mount.destination.clone()),
                driver: (mount.kind == MountKind::Volume).then(|| "local".into()),
                mode: Some(mount.mode.clone()),
                rw: Some(mount.read_write),
                propagation: Some(propagation.to_owned()),
            }
        })
        .collect()
}

fn network_settings(shared: &Shared, record: &ContainerRecord) -> NetworkSettings {
    let own = endpoint_records(record).next().is_some();
    let sandbox = shared.config.state.join("netns").join(&record.id).display().to_string();
    NetworkSettings {
        sandbox_id: Some(if own { record.id.clone() } else { String::new() }),
        sandbox_key: Some(if own { sandbox } else { String::new() }),
        ports: Some(port_map(record)),
        networks: Some(endpoints(record)),
    }
}

fn endpoint_records(record: &ContainerRecord) -> impl Iterator<Item = &EndpointRecord> {
    record.networks.values().filter_map(|attachment| attachment.endpoint.as_ref())
}

/// The networks of a container by name; addresses are empty while it does not run.
pub(super) fn endpoints(record: &ContainerRecord) -> HashMap<String, EndpointSettings> {
    record
        .networks
        .iter()
        .map(|(name, attachment)| {
            let mut settings = attachment.settings.clone();
            let endpoint = attachment.endpoint.as_ref();
            let address = endpoint.map(|endpoint| endpoint.endpoint.address);
            let text = |text: Option<String>| Some(text.unwrap_or_default());
            settings.network_id = text(endpoint.map(|endpoint| endpoint.network_id.clone()));
            settings.endpoint_id = text(endpoint.map(|endpoint| endpoint.id.clone()));
            settings.mac_address = text(endpoint.map(|endpoint| endpoint.endpoint.mac.to_string()));
            settings.gateway = text(
                endpoint
                    .and_then(|endpoint| endpoint.endpoint.gateway)
                    .map(|gateway| gateway.to_string()),
            );
            settings.ip_address = text(address.map(|address| address.address().to_string()));
            settings.ip_prefix_len = Some(address.map_or(0, |address| address.prefix().into()));
            settings.ipv6_gateway = Some(String::new());
            settings.global_ipv6_address = Some(String::new());
            settings.global_ipv6_prefix_len = Some(0);
            if name != "bridge" && name != "host" && name != "none" {
                let mut names = vec![record.name.clone()];
                names.extend(attachment.settings.aliases.clone().unwrap_or_default());
                names.push(name::short(&record.id).to_owned());
                settings.dns_names = Some(names);
            }
            (name.clone(), settings)
        })
        .collect()
}

fn exposed(record: &ContainerRecord) -> impl Iterator<Item = (u16, Protocol)> {
    record.config.exposed_ports.iter().flatten().filter_map(|port| {
        let port: brig_network::ContainerPort = port.parse().ok()?;
        Some((port.port, port.protocol))
    })
}

/// Published ports with their bindings, exposed ones with none.
fn port_map(record: &ContainerRecord) -> PortMap {
    let mut map = PortMap::new();
    if !record.state.phase.is_alive() {
        return map;
    }
    for (port, protocol) in exposed(record) {
        map.insert(format!("{port}/{protocol}"), None);
    }
    for port in endpoint_records(record).flat_map(|endpoint| &endpoint.endpoint.ports) {
        let binding = PortBinding {
            host_ip: Some(port.host_ip.to_string()),
            host_port: Some(port.host_port.to_string()),
        };
        let entry = map.entry(format!("{}/{}", port.container_port, port.protocol)).or_default();
        entry.get_or_insert_default().push(binding);
    }
    map
}

/// The ports of a container as `ps` lists them.
pub(super) fn ports(record: &ContainerRecord) -> Vec<PortSummary> {
    let kind = |protocol: Protocol| match protocol {
        Protocol::Tcp => PortSummaryTypeEnum::TCP,
        Protocol::Udp => PortSummaryTypeEnum::UDP,
    };
    if !record.state.phase.is_alive() {
        return Vec::new();
    }
    let mut ports: Vec<PortSummary> = endpoint_records(record)
        .flat_map(|endpoint| &endpoint.endpoint.ports)
        .map(|port| PortSummary {
            ip: Some(port.host_ip.to_string()),
            private_port: port.container_port,
            public_port: Some(port.host_port),
            typ: Some(kind(port.protocol)),
        })
        .collect();
    for (port, protocol) in exposed(record) {
        if !ports
            .iter()
            .any(|shown| shown.private_port == port && shown.typ == Some(kind(protocol)))
        {
            ports.push(PortSummary {
                ip: None,
                private_port: port,
                public_port: None,
                typ: Some(kind(protocol)),
            });
        }
    }
    ports
}
