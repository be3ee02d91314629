//! `brig inspect`.

use anyhow::Result;
use brig_engine_api::client::{Client, ErrorKind, ObjectKind};
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
    #[arg(long = "type", value_enum, value_name = "KIND")]
    kind: Option<Kind>,
    /// The objects
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// A kind of object as a word of the command line.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    Container,
    Image,
    Network,
    Volume,
}

impl From<Kind> for ObjectKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Container => Self::Container,
            Kind::Image => Self::Image,
            Kind::Network => Self::Network,
            Kind::Volume => Self::Volume,
        }
    }
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let client = context.client().await?;
    let kinds = arguments.kind.map_or_else(|| ObjectKind::ALL.to_vec(), |kind| vec![kind.into()]);
    describe(&client, &kinds, &arguments.names, arguments.format.as_deref(), arguments.size).await
}

/// Prints what is found and reports what is not.
pub(crate) async fn describe(
    client: &Client,
    kinds: &[ObjectKind],
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

async fn lookup(client: &Client, kinds: &[ObjectKind], name: &str, size: bool) -> Result<Value> {
    let mut last = None;
    for kind in kinds {
        match client.describe(*kind, name, size).await {
            Err(error) if error.kind() == ErrorKind::NotFound => last = Some(error),
            other => return Ok(other?),
        }
    }
    match last {
        Some(error) if kinds.len() == 1 => Err(error.into()),
        _ => anyhow::bail!("No such object: {name}"),
    }
}

/// Declares `inspect` of one kind, for the command groups.
macro_rules! inspect_of {
    ($($name:ident, $kind:ident: $about:literal,)*) => {$(
        pub(crate) mod $name {
            use super::{Context, ObjectKind, Outcome, describe};

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
                describe(&client, &[ObjectKind::$kind], &arguments.names, arguments.format.as_deref(), false).await
            }
        }
    )*};
}

inspect_of! {
    container, Container: "Describe containers in full",
    image, Image: "Describe images in full",
    network, Network: "Describe networks in full",
    volume, Volume: "Describe volumes in full",
}
