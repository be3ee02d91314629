//! `brig version`.

use brig_engine_api::API_VERSION;
use serde_json::{Value, json};

use crate::context::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::template::Template;

/// Show the versions of client and daemon
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Output: json or a template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let client = json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "ApiVersion": API_VERSION.to_string(),
        "Os": std::env::consts::OS,
        "Arch": std::env::consts::ARCH,
    });
    // The client's half is worth showing when there is no daemon.
    let server = match context.client().await {
        Ok(client) => client.server_version().await.map_err(anyhow::Error::new),
        Err(error) => Err(error),
    };
    let described = server.as_ref().ok().map(serde_json::to_value).transpose()?;
    let both = json!({"Client": client, "Server": described});
    match arguments.format.as_deref() {
        None => print(&both),
        Some("json") => println!("{both}"),
        Some(text) => println!("{}", Template::parse(text)?.render(&both)?),
    }
    server.map(|_| Exit::SUCCESS).map_err(Failure::from)
}

fn print(both: &Value) {
    for half in ["Client", "Server"] {
        let Some(fields) = both.get(half).filter(|half| !half.is_null()) else { continue };
        println!("{half}:");
        for (label, field) in [
            ("Version", "Version"),
            ("API version", "ApiVersion"),
            ("Minimum API version", "MinAPIVersion"),
            ("Kernel", "KernelVersion"),
            ("OS", "Os"),
            ("Architecture", "Arch"),
        ] {
            if let Some(text) = fields.get(field).and_then(Value::as_str) {
                println!(" {label}: {text}");
            }
        }
    }
}
