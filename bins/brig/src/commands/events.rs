//! `brig events`.

use brig_engine_api::models::EventMessage;
use brig_engine_api::query;
use serde_json::Value;

use crate::arguments::filters;
use crate::arguments::time::moment;
use crate::context::Context;
use crate::exit::{Exit, Outcome};
use crate::output::human;
use crate::output::template::Template;

/// Show what happens as it happens
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Begin with past events since a time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<query::UnixTime>,
    /// End at a time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<query::UnixTime>,
    /// Only those that match, such as type=container or event=die
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Output: json or a template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let template = match arguments.format.as_deref() {
        None | Some("json") => None,
        Some(text) => Some(Template::parse(text)?),
    };
    let query = query::Events {
        since: arguments.since,
        until: arguments.until,
        filters: filters(&arguments.filter)?,
    };
    let mut events = context.client().await?.events(&query).await?;
    while let Some(event) = events.next().await {
        let event = event?;
        let value = serde_json::to_value(&event).unwrap_or(Value::Null);
        match (&template, &arguments.format) {
            (Some(template), _) => println!("{}", template.render(&value)?),
            (None, Some(_)) => println!("{value}"),
            (None, None) => println!("{}", line(&event)),
        }
    }
    Ok(Exit::SUCCESS)
}

/// `2026-01-02T… container start ID (image=…, name=…)`.
fn line(event: &EventMessage) -> String {
    let time = human::rfc3339(event.time_nano.unwrap_or_default().into());
    let kind = event.typ.as_ref().map(ToString::to_string).unwrap_or_default();
    let action = event.action.as_deref().unwrap_or_default();
    let actor = event.actor.clone().unwrap_or_default();
    let mut attributes: Vec<String> = actor
        .attributes
        .unwrap_or_default()
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    attributes.sort();
    let id = actor.id.unwrap_or_default();
    if attributes.is_empty() {
        format!("{time} {kind} {action} {id}")
    } else {
        format!("{time} {kind} {action} {id} ({})", attributes.join(", "))
    }
}
