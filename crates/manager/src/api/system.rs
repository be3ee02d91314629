//! Endpoints about the daemon itself.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use brig_engine_api::models::AuthConfig;
use brig_engine_api::progress::ProgressMessage;
use brig_engine_api::query;
use brig_engine_api::query::UnixTime;
use brig_engine_api::types::{CheckFinding, DiskUsage, DiskUsageEntry, SystemCheck};
use futures_util::StreamExt as _;
use http::header::{CACHE_CONTROL, HeaderValue, PRAGMA};
use http::{HeaderName, StatusCode};

use super::App;
use super::failure::Failure;
use super::legacy;
use super::request::{Json, Params};
use super::respond::{Answer, endless_lines, json, with_type};
use crate::{CheckNews, CheckReport, Error, ErrorKind, EventsRequest};

pub(super) async fn ping() -> Response {
    let mut response = with_type(StatusCode::OK, "text/plain; charset=utf-8", Body::from("OK"));
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(HeaderName::from_static("swarm"), HeaderValue::from_static("inactive"));
    response
}

pub(super) async fn version(State(app): State<App>) -> Answer {
    json(&app.engine.system.version().await?)
}

pub(super) async fn info(State(app): State<App>) -> Answer {
    json(&app.engine.system.info().await?)
}

pub(super) async fn auth(State(app): State<App>, Json(config): Json<AuthConfig>) -> Answer {
    json(&app.engine.system.authenticate(config).await?)
}

pub(super) async fn events(State(app): State<App>, Params(query): Params<query::Events>) -> Answer {
    let request = EventsRequest {
        since_ns: query.since.map(UnixTime::nanoseconds_since_epoch),
        until_ns: query.until.map(UnixTime::nanoseconds_since_epoch),
        filters: legacy::filters(query.filters),
    };
    let events = app.engine.events.subscribe(request)?;
    Ok(endless_lines(&app.ending, events.map(|event| event.map(legacy::Event::from))))
}

/// An extension: `GET` only looks, `POST` also removes what has no owner. With `content=1` the content of images is
/// hashed again, and with `POST` healed, with lines of progress before the report.
pub(super) async fn check(
    State(app): State<App>,
    Params(query): Params<query::SystemCheck>,
) -> Answer {
    check_or_repair(&app, query.content, false).await
}

pub(super) async fn repair(
    State(app): State<App>,
    Params(query): Params<query::SystemCheck>,
) -> Answer {
    check_or_repair(&app, query.content, true).await
}

async fn check_or_repair(app: &App, content: bool, repair: bool) -> Answer {
    if !content {
        return json(&described(app.engine.system.check(repair).await?));
    }
    let lines = app.engine.system.check_content(repair).map(|news| {
        Ok(match news? {
            CheckNews::Progress { status, done, total } => {
                ProgressMessage::bytes("content", status, done, Some(total))
            }
            CheckNews::Report(report) => {
                let report = serde_json::to_value(described(report));
                let failed =
                    |source| Error::new(ErrorKind::Io, "write the report").with_source(source);
                ProgressMessage::aux(report.map_err(failed)?)
            }
        })
    });
    Ok(endless_lines(&app.ending, lines))
}

fn described(report: CheckReport) -> SystemCheck {
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let findings = report.findings.into_iter().map(|finding| CheckFinding {
        object: finding.object,
        problem: finding.problem,
        remedy: finding.remedy,
        repaired: finding.repaired,
        harmless: finding.harmless,
    });
    SystemCheck {
        containers: count(report.containers),
        images: count(report.images),
        networks: count(report.networks),
        blobs: count(report.blobs),
        bytes: i64::try_from(report.bytes).unwrap_or(i64::MAX),
        findings: findings.collect(),
    }
}

pub(super) async fn disk_usage(
    State(app): State<App>,
    Params(query): Params<query::SystemDiskUsage>,
) -> Answer {
    const TYPES: [&str; 4] = ["container", "image", "volume", "build-cache"];
    if let Some(unknown) = query.types.iter().find(|kind| !TYPES.contains(&kind.as_str())) {
        return Err(Failure::invalid(format!("unknown object type: {unknown}")));
    }
    let usage = app.engine.system.disk_usage().await?;
    let wanted = |kind: &str| query.types.is_empty() || query.types.iter().any(|it| it == kind);
    json(&DiskUsage {
        layers_size: if wanted("image") { usage.layers_size_bytes } else { 0 },
        images: wanted("image").then_some(usage.images),
        containers: wanted("container").then_some(usage.containers),
        volumes: wanted("volume").then_some(usage.volumes),
        build_cache: wanted("build-cache").then(Vec::new),
        builder_size: 0,
    })
}

/// An extension: who holds each byte.
pub(super) async fn explain(State(app): State<App>) -> Answer {
    let entries = app.engine.system.explain_disk_usage().await?;
    let entries = entries.into_iter().map(|entry| DiskUsageEntry {
        kind: entry.kind.to_owned(),
        name: entry.name,
        bytes: i64::try_from(entry.bytes).unwrap_or(i64::MAX),
        holders: entry.holders,
    });
    json(&entries.collect::<Vec<_>>())
}
