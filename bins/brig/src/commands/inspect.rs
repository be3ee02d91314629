//! `brig inspect`.

use anyhow::Result;
use brig_engine_api::client::{Client, ErrorKind};
use brig_engine_api::query;
use serde_json::Value;

use crate::context::Context;
use crate::exit::{Exit, Outcome};
use crate::output::print_objects;

/// Describe containers, images, networks or volumes in full
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Template such as '{{.State.Status}}', or json
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Compute sizes of containers
    #[arg(short, long)]
    size: bool,
    /// Only objects of this kind
    #[arg(long = "type", value_name = "KIND", value_parser = ["container", "image", "network", "volume"])]
    kind: Option<String>,
    /// The objects
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// The order in which a name is looked up when no kind is given.
const KINDS: &[&str] = &["container", "image", "network", "volume"];

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let client = context.client().await?;
    let kinds = arguments.kind.as_ref().map_or_else(|| KINDS.to_vec(), |kind| vec![kind.as_str()]);
    describe(&client, &kinds, &arguments.names, arguments.format.as_deref(), arguments.size).await
}

/// Prints what is found and reports what is not.
pub(crate) async fn describe(
    client: &Client,
    kinds: &[&str],
    names: &[String],
    format: Option<&str>,
    size: bool,
) -> Outcome {
    let mut found = Vec::new();
    let mut exit = Exit::SUCCESS;
    for name in names {
        match lookup(client, kinds, name, size).await {
            Ok(object) => found.push(object),
            Err(error) => {
                eprintln!("brig: {error:#}");
                exit = Exit::FAILED;
            }
        }
    }
    if !found.is_empty() || format.is_none() {
        print_objects(&found, format)?;
    }
    Ok(exit)
}

async fn lookup(client: &Client, kinds: &[&str], name: &str, size: bool) -> Result<Value> {
    let mut last = None;
    for kind in kinds {
        match one(client, kind, name, size).await {
            Err(error) if error.kind() == ErrorKind::NotFound => last = Some(error),
            other => return Ok(other?),
        }
    }
    match last {
        Some(error) if kinds.len() == 1 => Err(error.into()),
        _ => anyhow::bail!("No such object: {name}"),
    }
}

async fn one(
    client: &Client,
    kind: &str,
    name: &str,
    size: bool,
) -> brig_engine_api::client::Result<Value> {
    // The structs print with the API's own field names.
    let value = match kind {
        "container" => serde_json::to_value(client.inspect_container(name, size).await?),
        "image" => {
            serde_json::to_value(client.inspect_image(name, &query::InspectImage::default()).await?)
        }
        "network" => serde_json::to_value(
            client.inspect_network(name, &query::InspectNetwork::default()).await?,
        ),
        _ => serde_json::to_value(client.inspect_volume(name).await?),
    };
    Ok(value.unwrap_or(Value::Null))
}

/// Declares `inspect` of one kind, for the command groups.
macro_rules! inspect_of {
    ($($name:ident: $about:literal,)*) => {$(
        pub(crate) mod $name {
            use super::{Context, Outcome, describe};

            #[doc = $about]
            #[derive(Debug, clap::Args)]
            pub(crate) struct Arguments {
                /// Template such as '{{.Name}}', or json
                #[arg(short, long, value_name = "FORMAT")]
                format: Option<String>,
                /// The objects
                #[arg(required = true, value_name = "NAME")]
                names: Vec<String>,
            }

            pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
                let client = context.client().await?;
                describe(&client, &[stringify!($name)], &arguments.names, arguments.format.as_deref(), false).await
            }
        }
    )*};
}

inspect_of! {
    container: "Describe containers in full",
    image: "Describe images in full",
    network: "Describe networks in full",
    volume: "Describe volumes in full",
}
