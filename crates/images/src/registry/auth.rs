//! Answering a challenge: basic credentials, or a bearer token from the token service that the registry names.
//!
//! The token service is chosen by the registry's answer, so it is not trusted blindly: it must be reached over TLS
//! unless the registry itself is not, and it gets credentials only if it is the registry's own host, a host beside it
//! (`auth.docker.io` for `registry-1.docker.io`), or configured ([`HostConfig::realms`](super::HostConfig)).

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, Url};
use serde::Deserialize;

use super::challenge::{Challenge, parse};
use super::config::{Endpoint, host_of, is_loopback, parse_url};
use super::credentials::Credential;
use super::session::{self, read_body};
use super::transport::{Request, Transport};
use crate::{Error, ErrorKind, Result, document};

/// What the token specification says of tokens that do not say how long they last.
const DEFAULT_LIFE: u64 = 60;
/// A token is renewed this long before it ends.
const MARGIN: Duration = Duration::from_secs(5);
const ANSWER_LIMIT: usize = 1 << 20;

/// A header value and how long it is good for.
#[derive(Clone, Debug)]
pub(super) struct Authorization {
    pub(super) value: HeaderValue,
    expires: Option<Instant>,
}

impl Authorization {
    pub(super) fn is_fresh(&self) -> bool {
        self.expires.is_none_or(|end| Instant::now() + MARGIN < end)
    }

    fn new(scheme: &str, secret: &str, life: Option<u64>) -> Result<Self> {
        let value = HeaderValue::from_str(&format!("{scheme} {secret}"));
        let mut value = value.map_err(|source| {
            Error::caused(ErrorKind::InvalidInput, "use the registry's token or credential", source)
        })?;
        value.set_sensitive(true);
        // A day is for ever here, and keeps absurd numbers out of the arithmetic.
        let expires = life.map(|life| Instant::now() + Duration::from_secs(life.min(24 * 3600)));
        Ok(Self { value, expires })
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// Makes the header that answers a 401. `None` if the challenge offers nothing that can be answered.
pub(super) async fn answer(
    transport: &Transport,
    endpoint: &Endpoint,
    scopes: &[String],
    headers: &HeaderMap,
    credential: Option<&Credential>,
) -> Result<Option<Authorization>> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let challenges: Vec<Challenge> = values.flat_map(parse).collect();
    if let Some(Credential::RegistryToken(token)) = credential {
        return Authorization::new("Bearer", token, None).map(Some);
    }
    let by_scheme = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme == scheme);
    if let Some(bearer) = by_scheme("bearer") {
        return fetch_token(transport, endpoint, scopes, bearer, credential).await.map(Some);
    }
    match (by_scheme("basic"), credential) {
        (Some(_), Some(Credential::Basic { username, password })) => {
            Authorization::new("Basic", &encode_basic(username, password), None).map(Some)
        }
        _ => Ok(None),
    }
}

fn encode_basic(username: &str, password: &str) -> String {
    STANDARD.encode(format!("{username}:{password}"))
}

async fn fetch_token(
    transport: &Transport,
    endpoint: &Endpoint,
    scopes: &[String],
    challenge: &Challenge,
    credential: Option<&Credential>,
) -> Result<Authorization> {
    let registry = &endpoint.host;
    let realm = challenge.parameter("realm").ok_or_else(|| {
        Error::new(ErrorKind::Denied, format!("log in to {registry}: it names no token service"))
    })?;
    let realm = parse_url(realm)?;
    check_realm(transport, endpoint, &realm).await?;
    let credential = match credential {
        Some(_) if !is_kin(transport, endpoint, &realm) => {
            tracing::warn!(
                registry,
                realm = host_of(&realm),
                "token service is foreign: no credentials sent"
            );
            None
        }
        other => other,
    };
    let request = token_request(realm.clone(), challenge.parameter("service"), scopes, credential);
    let authorization = match credential {
        Some(Credential::Basic { username, password }) => {
            Some(Authorization::new("Basic", &encode_basic(username, password), None)?)
        }
        _ => None,
    };
    let value = authorization.as_ref().map(|authorization| &authorization.value);
    let response = transport.send(&request, value).await?;
    if !response.status().is_success() {
        let attempt = format!("get a token for {registry} from {}", host_of(&realm));
        return Err(session::status_error(&attempt, response).await);
    }
    let bytes = read_body(response, ANSWER_LIMIT, transport.config.stall).await?;
    let answer: TokenAnswer = document::parse("token service's answer", &bytes, ANSWER_LIMIT)?;
    let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| {
        Error::new(
            ErrorKind::Denied,
            format!("log in to {registry}: its token service gave no token"),
        )
    })?;
    Authorization::new("Bearer", &token, Some(answer.expires_in.unwrap_or(DEFAULT_LIFE)))
}

fn token_request(
    mut realm: Url,
    service: Option<&str>,
    scopes: &[String],
    credential: Option<&Credential>,
) -> Request {
    if let Some(Credential::IdentityToken(token)) = credential {
        let mut form = Url::parse("form:/").unwrap_or_else(|_| realm.clone());
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", service.unwrap_or_default())
            .append_pair("client_id", "brig")
            .append_pair("scope", &scopes.join(" "))
            .append_pair("refresh_token", token);
        let mut request = Request::new(Method::POST, realm);
        request.body = Some(form.query().unwrap_or_default().as_bytes().to_vec());
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers.insert(CONTENT_TYPE, form);
        return request;
    }
    {
        let mut query = realm.query_pairs_mut();
        if let Some(service) = service {
            query.append_pair("service", service);
        }
        for scope in scopes {
            query.append_pair("scope", scope);
        }
        if let Some(Credential::Basic { username, .. }) = credential {
            query.append_pair("account", username);
        }
    }
    Request::new(Method::GET, realm)
}

/// A registry must not make its clients talk plain HTTP, nor to services of their own machine.
async fn check_realm(transport: &Transport, endpoint: &Endpoint, realm: &Url) -> Result<()> {
    let (registry, service) = (&endpoint.host, host_of(realm));
    let is_plain = transport.base(endpoint).await?.scheme() == "http";
    let wrong = if realm.scheme() == "http" && !is_plain {
        "it is not reached over TLS"
    } else if is_loopback(&service) && !is_loopback(registry) {
        "it would be a service of this machine"
    } else {
        return Ok(());
    };
    Err(Error::new(
        ErrorKind::Denied,
        format!("log in to {registry}: its token service {service} is not trusted: {wrong}"),
    ))
}

/// Whether the token service may see the registry's credentials.
fn is_kin(transport: &Transport, endpoint: &Endpoint, realm: &Url) -> bool {
    let service = host_of(realm);
    let configured = transport.config.host(&endpoint.host).map(|host| host.realms.as_slice());
    if configured.unwrap_or_default().contains(&service) {
        return true;
    }
    let registry = endpoint.base.host_str().unwrap_or_default();
    is_beside(registry, realm.host_str().unwrap_or_default())
}

/// Whether `service` is `registry`, or lives in or under the domain that `registry` lives in.
fn is_beside(registry: &str, service: &str) -> bool {
    if registry == service {
        return true;
    }
    let is_address = |host: &str| {
        host.starts_with('[') || host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    };
    let Some((_, domain)) = registry.split_once('.') else { return false };
    if is_address(registry) || is_address(service) {
        return false;
    }
    let labels: Vec<&str> = domain.split('.').collect();
    // `co.uk` and the like are not anybody's domain.
    let is_public = match labels.as_slice() {
        [_] => true,
        [second, top] => top.len() == 2 && second.len() <= 3,
        _ => false,
    };
    let within =
        service == domain || service.strip_suffix(domain).is_some_and(|s| s.ends_with('.'));
    !is_public && within
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kin_may_see_credentials() {
        for (registry, service, want) in [
            ("registry-1.docker.io", "auth.docker.io", true),
            ("registry.gitlab.example", "gitlab.example", true),
            ("ghcr.example", "ghcr.example", true),
            ("ghcr.example", "evil.example", false),
            ("registry.co.uk", "evil.co.uk", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "1.0.0.1", false),
            ("registry.git.example", "evilgit.example", false),
            ("localhost", "evil", false),
        ] {
            assert_eq!(is_beside(registry, service), want, "{registry} {service}");
        }
    }
}
