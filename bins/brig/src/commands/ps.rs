//! `brig ps`.

use brig_engine_api::models::{ContainerSummary, PortSummary, PortSummaryTypeEnum};
use brig_engine_api::query;
use brig_engine_api::types::ListedContainer;

use crate::arguments::filters;
use crate::context::Context;
use crate::exit::{Exit, Outcome};
use crate::output::human;
use crate::output::list::{Column, List, ListOptions, Row};

const COLUMNS: &[Column] = &[
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "StatusAndDeath"),
    ("PORTS", "Ports"),
    ("NAMES", "Names"),
];

const HEADERS: &[Column] = &[
    ("STATUS", "Status"),
    ("DEATH", "Death"),
    ("CREATED AT", "CreatedAt"),
    ("SIZE", "Size"),
    ("LABELS", "Labels"),
    ("MOUNTS", "Mounts"),
    ("NETWORKS", "Networks"),
    ("STATE", "State"),
    ("LOCAL VOLUMES", "LocalVolumes"),
];

/// List containers
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Containers that do not run, too
    #[arg(short, long)]
    all: bool,
    /// Only those that match, such as status=exited or name=web
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Only the last created
    #[arg(short = 'n', long, value_name = "NUMBER")]
    last: Option<i64>,
    /// Only the latest created
    #[arg(short, long)]
    latest: bool,
    /// Show sizes
    #[arg(short, long)]
    size: bool,
    /// Do not shorten
    #[arg(long)]
    no_trunc: bool,
    #[command(flatten)]
    list: ListOptions,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let query = query::ListContainers {
        all: arguments.all || arguments.latest || arguments.last.is_some(),
        limit: if arguments.latest { Some(1) } else { arguments.last },
        size: arguments.size,
        filters: filters(&arguments.filter)?,
    };
    let containers = context.client().await?.list_containers(&query).await?;
    let mut columns = COLUMNS.to_vec();
    if arguments.size {
        columns.push(("SIZE", "Size"));
    }
    let rows = containers.iter().map(|container| row(container, arguments.no_trunc)).collect();
    List { columns: &columns, key: "ID", headers: HEADERS, rows }.print(&arguments.list)?;
    Ok(Exit::SUCCESS)
}

fn row(listed: &ListedContainer, whole: bool) -> Row {
    let container = &listed.container;
    let status = container.status.clone().unwrap_or_default();
    let death = listed.death.clone().unwrap_or_default();
    // Docker's words alone for scripts that ask for them; why it ended, too, for whoever reads the table.
    let both = if death.is_empty() { status.clone() } else { format!("{status}: {death}") };
    let id = container.id.as_deref().unwrap_or_default();
    let command = container.command.as_deref().unwrap_or_default();
    let command = if whole { command.to_owned() } else { human::ellipsis(command, 20) };
    let created = container.created.unwrap_or_default();
    let names = container.names.clone().unwrap_or_default();
    let names: Vec<&str> = names.iter().map(|name| name.trim_start_matches('/')).collect();
    let labels = container.labels.clone().unwrap_or_default();
    let mounts = container.mounts.clone().unwrap_or_default();
    let volumes = mounts
        .iter()
        .filter(|mount| mount.name.as_ref().is_some_and(|name| !name.is_empty()))
        .count();
    let mounts: Vec<String> = mounts
        .into_iter()
        .filter_map(|mount| mount.name.filter(|name| !name.is_empty()).or(mount.source))
        .collect();
    let networks = container
        .network_settings
        .clone()
        .and_then(|settings| settings.networks)
        .unwrap_or_default();
    Row::new()
        .with("ID", if whole { id } else { human::short_id(id) })
        .with("Image", image(container.image.as_deref().unwrap_or_default(), whole))
        .with("Command", format!("\"{command}\""))
        .with("CreatedAt", human::date(created))
        .with("RunningFor", human::ago(created))
        .with("Status", status)
        .with("Death", death)
        .with("StatusAndDeath", both)
        .with("State", container.state.as_ref().map(ToString::to_string).unwrap_or_default())
        .with("Ports", ports(container.ports.clone().unwrap_or_default()))
        .with("Names", names.join(","))
        .with("Labels", sorted(labels.into_iter().map(|(name, value)| format!("{name}={value}"))))
        .with("Mounts", mounts.join(","))
        .with("Networks", sorted(networks.into_keys()))
        .with("LocalVolumes", volumes.to_string())
        .with("Size", size(container))
}

fn image(name: &str, whole: bool) -> String {
    if !whole && name.starts_with("sha256:") {
        human::short_id(name).to_owned()
    } else {
        name.to_owned()
    }
}

fn size(container: &ContainerSummary) -> String {
    let own = human::signed_size(container.size_rw.unwrap_or_default());
    match container.size_root_fs {
        Some(all) if all > 0 => format!("{own} (virtual {})", human::signed_size(all)),
        _ => own,
    }
}

fn sorted(items: impl Iterator<Item = String>) -> String {
    let mut items: Vec<String> = items.collect();
    items.sort();
    items.join(",")
}

/// `0.0.0.0:8080->80/tcp`, with neighbouring ports joined into ranges.
pub(crate) fn ports(mut ports: Vec<PortSummary>) -> String {
    let protocol = |port: &PortSummary| match port.typ {
        Some(PortSummaryTypeEnum::UDP) => "udp",
        Some(PortSummaryTypeEnum::SCTP) => "sctp",
        _ => "tcp",
    };
    let key = |port: &PortSummary| {
        (port.ip.clone().unwrap_or_default(), protocol(port), port.private_port, port.public_port)
    };
    ports.sort_by_key(key);
    let mut groups: Vec<(PortSummary, u16)> = Vec::new();
    for port in ports {
        if let Some((first, length)) = groups.last_mut()
            && first.ip == port.ip
            && first.typ == port.typ
            && first.private_port.checked_add(*length) == Some(port.private_port)
            && first.public_port.and_then(|public| public.checked_add(*length)) == port.public_port
        {
            *length += 1;
            continue;
        }
        groups.push((port, 1));
    }
    let range = |start: u16, length: u16| match length {
        1 => start.to_string(),
        _ => format!("{start}-{}", start.saturating_add(length - 1)),
    };
    let shown = groups.iter().map(|(port, length)| {
        let inside = format!("{}/{}", range(port.private_port, *length), protocol(port));
        match (port.public_port, port.ip.as_deref().unwrap_or_default()) {
            (None, _) => inside,
            (Some(public), address) if address.contains(':') => {
                format!("[{address}]:{}->{inside}", range(public, *length))
            }
            (Some(public), address) => format!("{address}:{}->{inside}", range(public, *length)),
        }
    });
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(ip: Option<&str>, private_port: u16, public_port: Option<u16>) -> PortSummary {
        PortSummary {
            ip: ip.map(str::to_owned),
            private_port,
            public_port,
            typ: Some(PortSummaryTypeEnum::TCP),
        }
    }

    #[test]
    fn neighbouring_ports_are_joined() {
        let all = vec![
            port(Some("0.0.0.0"), 81, Some(8081)),
            port(Some("0.0.0.0"), 80, Some(8080)),
            port(None, 443, None),
            port(Some("::"), 80, Some(8080)),
        ];
        assert_eq!(ports(all), "443/tcp, 0.0.0.0:8080-8081->80-81/tcp, [::]:8080->80/tcp");
    }
}
