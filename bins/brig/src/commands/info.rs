//! `brig info`.

use brig_engine_api::models::SystemInfo;

use crate::context::Context;
use crate::exit::{Exit, Outcome};
use crate::output::human;
use crate::output::template::Template;

/// Show the state of the engine and its host
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Output: json or a template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let info = context.client().await?.info().await?;
    match arguments.format.as_deref() {
        None => print(&info),
        Some("json") => println!("{}", serde_json::to_value(&info)?),
        Some(text) => println!("{}", Template::parse(text)?.render(&serde_json::to_value(&info)?)?),
    }
    for warning in info.warnings.unwrap_or_default() {
        eprintln!("WARNING: {warning}");
    }
    Ok(Exit::SUCCESS)
}

fn print(info: &SystemInfo) {
    let number = |value: Option<i64>| value.unwrap_or_default().to_string();
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let memory = u64::try_from(info.mem_total.unwrap_or_default()).unwrap_or_default();
    let cgroup = info.cgroup_version.as_ref().map(ToString::to_string).unwrap_or_default();
    let lines = [
        ("Containers", number(info.containers)),
        (" Running", number(info.containers_running)),
        (" Paused", number(info.containers_paused)),
        (" Stopped", number(info.containers_stopped)),
        ("Images", number(info.images)),
        ("Server Version", text(&info.server_version)),
        ("Storage Driver", text(&info.driver)),
        ("Cgroup Version", cgroup),
        ("Kernel Version", text(&info.kernel_version)),
        ("Operating System", text(&info.operating_system)),
        ("OSType", text(&info.os_type)),
        ("Architecture", text(&info.architecture)),
        ("CPUs", number(info.ncpu)),
        ("Total Memory", human::binary_size(memory)),
        ("Name", text(&info.name)),
        ("ID", text(&info.id)),
        ("Root Dir", text(&info.docker_root_dir)),
    ];
    for (name, value) in lines {
        println!("{name}: {value}");
    }
}
