//! `brig port`.

use anyhow::bail;

use crate::context::Context;
use crate::exit::{Exit, Outcome};

/// List where a container's ports are published
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The container
    container: String,
    /// Only this port: PORT[/PROTOCOL]
    port: Option<String>,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let inspected =
        context.client().await?.inspect_container(&arguments.container, false).await?.body;
    let ports = inspected.network_settings.and_then(|settings| settings.ports).unwrap_or_default();
    let wanted = arguments
        .port
        .as_ref()
        .map(|port| if port.contains('/') { port.clone() } else { format!("{port}/tcp") });
    let mut lines: Vec<String> = Vec::new();
    for (port, bindings) in ports {
        if wanted.as_ref().is_some_and(|wanted| *wanted != port) {
            continue;
        }
        for binding in bindings.unwrap_or_default() {
            let address = binding
                .host_ip
                .filter(|address| !address.is_empty())
                .unwrap_or_else(|| "0.0.0.0".to_owned());
            let address = if address.contains(':') { format!("[{address}]") } else { address };
            let published = format!("{address}:{}", binding.host_port.unwrap_or_default());
            lines.push(if wanted.is_some() { published } else { format!("{port} -> {published}") });
        }
    }
    if let (Some(wanted), true) = (&wanted, lines.is_empty()) {
        let missing = || -> anyhow::Result<()> {
            bail!("no public port {wanted:?} published for {}", arguments.container)
        };
        missing()?;
    }
    lines.sort();
    lines.iter().for_each(|line| println!("{line}"));
    Ok(Exit::SUCCESS)
}
