//! One operation's talk with registries: authentication, retries, and what answers mean.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::auth::{self, Authorization};
use super::config::{Endpoint, host_of};
use super::credentials::Credential;
use super::pace::Pace;
use super::transport::{Request, Transport, transport_error};
use crate::{Error, ErrorKind, Result};

const ERROR_BODY_LIMIT: usize = 64 << 10;
/// Longest part of a registry's own words that is passed on.
const ERROR_TEXT_LIMIT: usize = 300;

/// One operation. Tokens are not shared between operations, so that one user's never serve another.
pub(super) struct Session<'a> {
    pub(super) transport: &'a Transport,
    /// The credential given for this operation, and the registry it is for.
    given: Option<(String, Credential)>,
    authorizations: Mutex<HashMap<(String, String), Authorization>>,
}

impl<'a> Session<'a> {
    pub(super) fn new(transport: &'a Transport, given: Option<(&str, Credential)>) -> Self {
        let given = given.map(|(host, credential)| (host.to_owned(), credential));
        Self { transport, given, authorizations: Mutex::default() }
    }

    /// Sends a request, authenticating and retrying as needed, and returns whatever answer is final.
    pub(super) async fn send(
        &self,
        endpoint: &Endpoint,
        scopes: &[String],
        request: &Request,
    ) -> Result<Response> {
        let retry = self.transport.config.retry;
        let mut attempt = 1;
        loop {
            let sent = self.send_authorized(endpoint, scopes, request).await;
            let asked = match &sent {
                Ok(response) if is_temporary(response.status()) => retry_after(response.headers()),
                Err(error) if error.kind() == ErrorKind::Unreachable => None,
                _ => return sent,
            };
            if attempt >= retry.attempts {
                return sent;
            }
            let pause = retry.pause_after(attempt, asked);
            tracing::debug!(host = endpoint.host, ?pause, attempt, "registry request is repeated");
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    /// One try, with one answer to a challenge.
    pub(super) async fn send_authorized(
        &self,
        endpoint: &Endpoint,
        scopes: &[String],
        request: &Request,
    ) -> Result<Response> {
        let known = self.authorization(endpoint, scopes);
        let value = known.as_ref().map(|known| &known.value);
        let response = self.transport.send(request, value).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let Some(fresh) = self.authenticate(endpoint, scopes, response.headers()).await? else {
            return Ok(response);
        };
        self.transport.send(request, Some(&fresh.value)).await
    }

    /// Gets and remembers a new answer to a challenge.
    async fn authenticate(
        &self,
        endpoint: &Endpoint,
        scopes: &[String],
        headers: &HeaderMap,
    ) -> Result<Option<Authorization>> {
        let transport = self.transport;
        let credential = match &self.given {
            Some((host, credential)) if *host == endpoint.host => Some(credential.clone()),
            _ => transport.config.credentials.find(&endpoint.host).await?,
        };
        let fresh = auth::answer(transport, endpoint, scopes, headers, credential.as_ref()).await?;
        if let Some(fresh) = &fresh {
            self.known().insert((endpoint.host.clone(), scopes.join(" ")), fresh.clone());
        }
        Ok(fresh)
    }

    /// What is known to be accepted for these scopes, if still fresh.
    fn authorization(&self, endpoint: &Endpoint, scopes: &[String]) -> Option<Authorization> {
        self.last_authorization(endpoint, scopes).filter(Authorization::is_fresh)
    }

    /// What was last accepted for these scopes, though its time may be nearly over.
    pub(super) fn last_authorization(
        &self,
        endpoint: &Endpoint,
        scopes: &[String],
    ) -> Option<Authorization> {
        let key = (endpoint.host.clone(), scopes.join(" "));
        self.known().get(&key).cloned()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), Authorization>> {
        self.authorizations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the same request may succeed later.
pub(super) fn is_temporary(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// How long the registry asks to wait: seconds or a date.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = OffsetDateTime::parse(text, &Rfc2822).ok()?;
    (date - OffsetDateTime::now_utc()).try_into().ok()
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<OneError>,
}

#[derive(Deserialize)]
struct OneError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// Turns an answer that is no success into an error. `attempt` says what was attempted on what.
pub(super) async fn status_error(attempt: &str, response: Response) -> Error {
    let status = response.status();
    let host = host_of(response.url());
    let body = read_body(response, ERROR_BODY_LIMIT, Duration::from_secs(10)).await;
    let body = body.unwrap_or_default();
    let said = serde_json::from_slice::<Errors>(&body).ok().and_then(|errors| {
        let first = errors.errors.into_iter().next()?;
        Some(if first.message.is_empty() { first.code } else { first.message })
    });
    let said = said.map(|text| {
        let clean = text.chars().filter(|c| !c.is_control()).take(ERROR_TEXT_LIMIT);
        format!(" (registry says: {})", clean.collect::<String>())
    });
    let said = said.unwrap_or_default();
    let (kind, text) = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => (
            ErrorKind::Denied,
            format!("access denied; it may not exist, or need a login to {host}"),
        ),
        StatusCode::NOT_FOUND => (ErrorKind::NotFound, format!("no such thing on {host}")),
        StatusCode::TOO_MANY_REQUESTS => (
            ErrorKind::Unreachable,
            format!("{host} limits how much may be asked of it; wait or log in"),
        ),
        _ if is_temporary(status) => {
            (ErrorKind::Unreachable, format!("{host} answers {status}; try again later"))
        }
        _ => (ErrorKind::Unsupported, format!("{host} refuses with {status}")),
    };
    Error::new(kind, format!("{attempt}: {text}{said}"))
}

/// Reads an answer of limited size, each piece in limited time.
pub(super) async fn read_body(
    mut response: Response,
    limit: usize,
    stall: Duration,
) -> Result<Vec<u8>> {
    let host = host_of(response.url());
    let mut bytes = Vec::new();
    let mut pace = Pace::new(stall);
    loop {
        let chunk = tokio::time::timeout(stall, response.chunk()).await;
        let stalls = || {
            Error::new(ErrorKind::Unreachable, format!("read answer of registry {host}: it stalls"))
        };
        let chunk = chunk.map_err(|_| stalls())?;
        let Some(chunk) = chunk.map_err(|source| transport_error(&host, source))? else {
            return Ok(bytes);
        };
        if bytes.len() + chunk.len() > limit {
            return Err(Error::invalid(format!(
                "read answer of registry {host}: larger than {limit} bytes"
            )));
        }
        bytes.extend_from_slice(&chunk);
        if !pace.keeps_up(chunk.len()) {
            return Err(stalls());
        }
    }
}
