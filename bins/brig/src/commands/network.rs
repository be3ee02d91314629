//! `brig network`.

use std::collections::HashMap;

use anyhow::bail;
use brig_engine_api::models::{
    EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig, NetworkConnectRequest,
    NetworkCreateRequest, NetworkDisconnectRequest,
};
use clap::Subcommand;

use super::{commands, inspect, prune};
use crate::context::Context;
use crate::exit::Outcome;

/// Manage networks
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    arguments.command.execute(context).await
}

commands! {
    /// The commands of networks.
    Command {
        Connect => connect,
        Create => create,
        Disconnect => disconnect,
        Inspect => inspect::network,
        #[command(visible_alias = "list")]
        Ls => ls,
        Prune => prune::networks,
        #[command(visible_alias = "remove")]
        Rm => rm,
    }
}

mod create {
    use super::{Context, HashMap, Ipam, IpamConfig, NetworkCreateRequest, Outcome, bail};
    use crate::arguments::pairs;
    use crate::exit::Exit;

    /// Create a network
    #[derive(Debug, clap::Args)]
    pub(crate) struct Arguments {
        /// Driver
        #[arg(short, long, default_value = "bridge")]
        driver: String,
        /// Subnet such as 10.1.2.0/24
        #[arg(long, value_name = "SUBNET")]
        subnet: Vec<String>,
        /// Gateway of each subnet
        #[arg(long, value_name = "ADDRESS")]
        gateway: Vec<String>,
        /// Part of each subnet to give addresses from
        #[arg(long, value_name = "SUBNET")]
        ip_range: Vec<String>,
        /// Address never to give: NAME=ADDRESS
        #[arg(long, value_name = "NAME=ADDRESS")]
        aux_address: Vec<String>,
        /// No way out of the network
        #[arg(long)]
        internal: bool,
        /// IPv6
        #[arg(long)]
        ipv6: bool,
        /// Let containers be attached by hand
        #[arg(long)]
        attachable: bool,
        /// Option of the driver
        #[arg(short, long, value_name = "NAME=VALUE")]
        opt: Vec<String>,
        /// Label
        #[arg(long, value_name = "NAME=VALUE")]
        label: Vec<String>,
        /// Its name
        name: String,
    }

    pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
        let request = NetworkCreateRequest {
            name: arguments.name.clone(),
            driver: Some(arguments.driver.clone()),
            internal: Some(arguments.internal),
            attachable: Some(arguments.attachable),
            enable_ipv6: Some(arguments.ipv6),
            ipam: Some(ipam(&arguments)?),
            options: Some(pairs(&arguments.opt)),
            labels: Some(pairs(&arguments.label)),
            ..NetworkCreateRequest::default()
        };
        println!("{}", context.client().await?.create_network(&request).await?.id);
        Ok(Exit::SUCCESS)
    }

    /// The n-th gateway and range belong to the n-th subnet.
    fn ipam(arguments: &Arguments) -> anyhow::Result<Ipam> {
        if arguments.gateway.len() > arguments.subnet.len()
            || arguments.ip_range.len() > arguments.subnet.len()
        {
            bail!("every --gateway and --ip-range needs a --subnet");
        }
        let config = arguments.subnet.iter().enumerate().map(|(index, subnet)| IpamConfig {
            subnet: Some(subnet.clone()),
            gateway: arguments.gateway.get(index).cloned(),
            ip_range: arguments.ip_range.get(index).cloned(),
            auxiliary_addresses: (index == 0 && !arguments.aux_address.is_empty())
                .then(|| pairs(&arguments.aux_address)),
        });
        Ok(Ipam {
            driver: Some("default".to_owned()),
            config: Some(config.collect()),
            options: Some(HashMap::new()),
        })
    }
}

mod ls {
    use brig_engine_api::query;

    use super::{Context, Outcome};
    use crate::arguments::filters;
    use crate::exit::Exit;
    use crate::output::human;
    use crate::output::list::{Column, List, ListOptions, Row};

    const COLUMNS: &[Column] =
        &[("NETWORK ID", "ID"), ("NAME", "Name"), ("DRIVER", "Driver"), ("SCOPE", "Scope")];

    /// List networks
    #[derive(Debug, clap::Args)]
    pub(crate) struct Arguments {
        /// Only those that match, such as driver=bridge
        #[arg(short, long, value_name = "NAME=VALUE")]
        filter: Vec<String>,
        /// Do not shorten
        #[arg(long)]
        no_trunc: bool,
        #[command(flatten)]
        list: ListOptions,
    }

    pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
        let query = query::ListNetworks { filters: filters(&arguments.filter)? };
        let mut networks = context.client().await?.list_networks(&query).await?;
        networks.sort_by(|left, right| left.name.cmp(&right.name));
        let rows = networks.into_iter().map(|network| {
            let id = network.id.unwrap_or_default();
            Row::new()
                .with("ID", if arguments.no_trunc { &id } else { human::short_id(&id) })
                .with("Name", network.name.unwrap_or_default())
                .with("Driver", network.driver.unwrap_or_default())
                .with("Scope", network.scope.unwrap_or_default())
                .with("Internal", network.internal.unwrap_or_default().to_string())
                .with("IPv6", network.enable_ipv6.unwrap_or_default().to_string())
                .with("CreatedAt", network.created.unwrap_or_default())
        });
        List { columns: COLUMNS, key: "ID", headers: &[], rows: rows.collect() }
            .print(&arguments.list)?;
        Ok(Exit::SUCCESS)
    }
}

mod rm {
    use super::{Context, Outcome};
    use crate::exit::for_each;

    /// Remove networks
    #[derive(Debug, clap::Args)]
    pub(crate) struct Arguments {
        /// The networks
        #[arg(required = true, value_name = "NETWORK")]
        networks: Vec<String>,
    }

    pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
        let client = context.client().await?;
        for_each(&arguments.networks, async |network| {
            client.remove_network(network).await?;
            Ok(network.to_owned())
        })
        .await
    }
}

mod connect {
    use super::{Context, EndpointIpamConfig, EndpointSettings, NetworkConnectRequest, Outcome};
    use crate::exit::Exit;

    /// Connect a container to a network
    #[derive(Debug, clap::Args)]
    pub(crate) struct Arguments {
        /// Further name in the network
        #[arg(long, value_name = "NAME")]
        alias: Vec<String>,
        /// Fixed IPv4 address
        #[arg(long, value_name = "ADDRESS")]
        ip: Option<String>,
        /// The network
        network: String,
        /// The container
        container: String,
    }

    pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
        let endpoint = EndpointSettings {
            aliases: Some(arguments.alias),
            ipam_config: arguments.ip.map(|address| EndpointIpamConfig {
                ipv4_address: Some(address),
                ..EndpointIpamConfig::default()
            }),
            ..EndpointSettings::default()
        };
        let request = NetworkConnectRequest {
            container: arguments.container,
            endpoint_config: Some(endpoint),
        };
        context.client().await?.connect_network(&arguments.network, &request).await?;
        Ok(Exit::SUCCESS)
    }
}

mod disconnect {
    use super::{Context, NetworkDisconnectRequest, Outcome};
    use crate::exit::Exit;

    /// Disconnect a container from a network
    #[derive(Debug, clap::Args)]
    pub(crate) struct Arguments {
        /// Even if the container is not in order
        #[arg(short, long)]
        force: bool,
        /// The network
        network: String,
        /// The container
        container: String,
    }

    pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
        let request = NetworkDisconnectRequest {
            container: arguments.container,
            force: Some(arguments.force),
        };
        context.client().await?.disconnect_network(&arguments.network, &request).await?;
        Ok(Exit::SUCCESS)
    }
}
