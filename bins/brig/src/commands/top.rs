//! `brig top`.

use brig_engine_api::query;

use crate::context::Context;
use crate::exit::{Exit, Outcome};
use crate::output::list::{List, Row};

/// List the processes of a container
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The container
    container: String,
    /// Options of ps(1)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PS OPTION")]
    ps_options: Vec<String>,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let ps_args = (!arguments.ps_options.is_empty()).then(|| arguments.ps_options.join(" "));
    let query = query::ContainerTop { ps_args };
    let top = context.client().await?.container_top(&arguments.container, &query).await?;
    let titles: Vec<&'static str> =
        top.titles.unwrap_or_default().into_iter().map(|title| &*String::leak(title)).collect();
    let columns: Vec<(&str, &str)> = titles.iter().map(|title| (*title, *title)).collect();
    let rows = top.processes.unwrap_or_default().into_iter().map(|process| {
        titles.iter().zip(process).fold(Row::new(), |row, (title, text)| row.with(title, text))
    });
    let list = List { columns: &columns, key: "PID", headers: &[], rows: rows.collect() };
    println!("{}", list.table(&columns));
    Ok(Exit::SUCCESS)
}
