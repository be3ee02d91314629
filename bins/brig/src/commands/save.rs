//! `brig save`.

use std::path::PathBuf;

use anyhow::anyhow;
use brig_engine_api::query;

use super::export::write_stream;
use crate::context::Context;
use crate::exit::{Exit, Outcome};
use crate::{layout, pipe};

/// Save images to an archive or an OCI layout
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Archive to write instead of standard output, or the directory of oci-dir
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// docker-archive and oci-archive are the same file, which readers of both understand; oci-dir is a directory
    #[arg(long, value_name = "FORMAT", default_value = "docker-archive",
          value_parser = ["docker-archive", "oci-archive", "oci-dir"])]
    format: String,
    /// Save only this platform: OS/ARCHITECTURE[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// The images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let platform = arguments.platform.as_deref().map(platform_object);
    let query = query::SaveImages { names: arguments.images, platform };
    let client = context.client().await?;
    if arguments.format == "oci-dir" {
        let Some(directory) = arguments.output else {
            return Err(anyhow!("--format oci-dir writes a directory: name it with -o").into());
        };
        let stream = client.save_images(&query).await?;
        pipe::read(stream, move |archive| layout::unpack(archive, &directory)).await?;
        return Ok(Exit::SUCCESS);
    }
    write_stream(arguments.output.as_deref(), async || client.save_images(&query).await).await?;
    Ok(Exit::SUCCESS)
}

/// `OS/ARCHITECTURE[/VARIANT]` in the form of the API, an object of the image specification.
pub(crate) fn platform_object(text: &str) -> String {
    let mut object = serde_json::Map::new();
    for (key, value) in ["os", "architecture", "variant"].into_iter().zip(text.splitn(3, '/')) {
        object.insert(key.to_owned(), value.into());
    }
    serde_json::Value::Object(object).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_objects_of_their_parts() {
        assert_eq!(platform_object("linux/amd64"), r#"{"architecture":"amd64","os":"linux"}"#);
        let arm = r#"{"architecture":"arm","os":"linux","variant":"v7"}"#;
        assert_eq!(platform_object("linux/arm/v7"), arm);
    }
}
