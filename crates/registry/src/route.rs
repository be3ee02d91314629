//! From a request's method and target to what it asks for. Pure: everything a stranger writes in a URL ends here.

use brig_images::Digest;
use brig_images::reference::{is_path, is_tag};
use http::{Method, StatusCode};
use percent_encoding::percent_decode_str;

use crate::refusal::Refusal;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Whether this is a registry, and whether the caller may in.
    Base,
    /// All repositories.
    Catalog(Page),
    /// The tags of a repository.
    Tags { name: String, page: Page },
    /// A manifest.
    Manifest { name: String, version: Version },
    /// A blob.
    Blob { name: String, digest: Digest },
    /// Start an upload, mount a blob, or send one whole.
    Uploads { name: String, mount: Option<Mount>, digest: Option<Digest> },
    /// An upload under way. `digest` ends it.
    Upload { name: String, id: String, digest: Option<Digest> },
    /// What says something about a manifest.
    Referrers { name: String, subject: Digest, artifact_type: Option<String>, page: Page },
}

/// A part of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// Entries wanted.
    pub(crate) count: Option<usize>,
    /// The last entry of the page before.
    pub(crate) last: Option<String>,
}

/// Which manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Tag(String),
    Digest(Digest),
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// A blob to take over from another repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) digest: Digest,
    pub(crate) from: Option<String>,
}

impl Route {
    /// Understands a request's path and query.
    pub(crate) fn parse(method: &Method, path: &str, query: Option<&str>) -> Result<Self, Refusal> {
        let path = percent_decode_str(path).decode_utf8().map_err(|_| no_such_page())?;
        let query = Query::parse(query.unwrap_or_default());
        let Some(rest) = path.strip_prefix("/v2") else { return Err(no_such_page()) };
        if matches!(rest, "" | "/") {
            return Ok(Self::Base).and_then(|route| route.allowed(method));
        }
        let rest = rest.strip_prefix('/').ok_or_else(no_such_page)?;
        let route = Self::parse_rest(method, rest, &query)?;
        route.allowed(method)
    }

    /// What follows `/v2/`. Repositories may be called like endpoints, so the end of the path decides.
    fn parse_rest(method: &Method, rest: &str, query: &Query) -> Result<Self, Refusal> {
        if rest == "_catalog" {
            return Ok(Self::Catalog(query.page()?));
        }
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return Ok(Self::Tags { name: repository(name)?, page: query.page()? });
        }
        if let Some(name) =
            rest.strip_suffix("/blobs/uploads/").or_else(|| rest.strip_suffix("/blobs/uploads"))
        {
            let name = repository(name)?;
            let (mount, digest) = (query.mount()?, query.digest("digest")?);
            return Ok(Self::Uploads { name, mount, digest });
        }
        let (before, last) = rest.rsplit_once('/').ok_or_else(no_such_page)?;
        if let Some(name) = before.strip_suffix("/blobs/uploads") {
            let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            if last.len() > 64 || !last.bytes().all(good) {
                return Err(Refusal::upload_unknown("of that name"));
            }
            let (name, id) = (repository(name)?, last.to_owned());
            return Ok(Self::Upload { name, id, digest: query.digest("digest")? });
        }
        if let Some(name) = before.strip_suffix("/blobs") {
            return Ok(Self::Blob { name: repository(name)?, digest: digest(last)? });
        }
        if let Some(name) = before.strip_suffix("/manifests") {
            return Ok(Self::Manifest { name: repository(name)?, version: version(method, last)? });
        }
        if let Some(name) = before.strip_suffix("/referrers") {
            let artifact_type = query.value("artifactType").map(str::to_owned);
            let (name, subject, page) = (repository(name)?, digest(last)?, query.page()?);
            return Ok(Self::Referrers { name, subject, artifact_type, page });
        }
        Err(no_such_page())
    }

    /// The methods that this may be asked with.
    fn methods(&self) -> &'static [Method] {
        const READ: &[Method] = &[Method::GET, Method::HEAD];
        match self {
            Self::Base | Self::Catalog(_) | Self::Tags { .. } | Self::Referrers { .. } => READ,
            Self::Manifest { .. } => &[Method::GET, Method::HEAD, Method::PUT, Method::DELETE],
            Self::Blob { .. } => &[Method::GET, Method::HEAD, Method::DELETE],
            Self::Uploads { .. } => &[Method::POST],
            Self::Upload { .. } => &[Method::GET, Method::PATCH, Method::PUT, Method::DELETE],
        }
    }

    fn allowed(self, method: &Method) -> Result<Self, Refusal> {
        let methods = self.methods();
        if methods.contains(method) {
            return Ok(self);
        }
        let list: Vec<&str> = methods.iter().map(Method::as_str).collect();
        let message = format!("this takes {}, not {method}", list.join(", "));
        Err(Refusal::unsupported(message).with(http::header::ALLOW, &list.join(", ")))
    }
}

fn no_such_page() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "there is nothing at this address")
}

fn repository(name: &str) -> Result<String, Refusal> {
    if is_path(name) {
        return Ok(name.to_owned());
    }
    let message =
        "a repository's name is components of [a-z0-9] joined by . _ __ or -, separated by /";
    Err(Refusal::new(StatusCode::BAD_REQUEST, "NAME_INVALID", message))
}

fn digest(text: &str) -> Result<Digest, Refusal> {
    Digest::parse(text).map_err(|error| Refusal::digest_invalid(error.to_string()))
}

fn version(method: &Method, text: &str) -> Result<Version, Refusal> {
    if text.contains(':') {
        return digest(text).map(Version::Digest);
    }
    match is_tag(text) {
        true => Ok(Version::Tag(text.to_owned())),
        // What cannot exist is not there; only giving such a name is wrong.
        false if *method != Method::PUT => Err(Refusal::manifest_unknown("of that name")),
        false => {
            let message = "a tag is 1 to 128 of [A-Za-z0-9_.-] and starts with neither . nor -";
            Err(Refusal::new(StatusCode::BAD_REQUEST, "TAG_INVALID", message))
        }
    }
}

/// A query string, decoded. The first of several values counts.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Self {
        let decode = |text: &str| {
            let spaced = text.replace('+', " ");
            percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
        };
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).take(64);
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (decode(name), decode(value)))
                .collect(),
        )
    }

    fn value(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    fn digest(&self, name: &str) -> Result<Option<Digest>, Refusal> {
        self.value(name).map(digest).transpose()
    }

    fn mount(&self) -> Result<Option<Mount>, Refusal> {
        let Some(digest) = self.digest("mount")? else { return Ok(None) };
        let from = self.value("from").map(repository).transpose()?;
        Ok(Some(Mount { digest, from }))
    }

    fn page(&self) -> Result<Page, Refusal> {
        let count = self.value("n").map(str::parse).transpose().map_err(|_| {
            let message = "n is not a number";
            Refusal::new(StatusCode::BAD_REQUEST, "PAGINATION_NUMBER_INVALID", message)
        })?;
        Ok(Page { count, last: self.value("last").map(str::to_owned) })
    }
}

/// The part of a blob that a `Range` header asks for: first byte and length. `Ok(None)` for the whole, also where the
/// header is not understood, as RFC 9110 has it; `Err` where nothing of it is there.
pub(crate) fn range(header: &str, size: u64) -> Result<Option<(u64, u64)>, ()> {
    let Some(spec) = header.strip_prefix("bytes=") else { return Ok(None) };
    let Some((first, last)) = spec.trim().split_once('-') else { return Ok(None) };
    if first.is_empty() {
        let Ok(suffix) = last.parse::<u64>() else { return Ok(None) };
        let length = suffix.min(size);
        return if length == 0 { Err(()) } else { Ok(Some((size - length, length))) };
    }
    let Ok(first) = first.parse::<u64>() else { return Ok(None) };
    let last = match last {
        "" => u64::MAX,
        last => match last.parse::<u64>() {
            Ok(last) if last >= first => last,
            _ => return Ok(None),
        },
    };
    if first >= size {
        return Err(());
    }
    Ok(Some((first, last.min(size - 1) - first + 1)))
}

/// The `Content-Range` of a chunk: first byte and length.
pub(crate) fn content_range(header: &str) -> Option<(u64, u64)> {
    let spec = header.strip_prefix("bytes ").unwrap_or(header);
    let (first, last) = spec.split('/').next()?.trim().split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    Some((first, last.checked_sub(first)?.checked_add(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn get(path: &str) -> Result<Route, Refusal> {
        let (path, query) =
            path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        Route::parse(&Method::GET, path, query)
    }

    #[test]
    fn names_may_look_like_endpoints() {
        let name = "a/manifests/blobs/tags/list".to_owned();
        let found = get("/v2/a/manifests/blobs/tags/list/manifests/latest").unwrap();
        assert_eq!(found, Route::Manifest { name, version: Version::Tag("latest".into()) });
        let found = get(&format!("/v2/blobs/uploads/blobs/{DIGEST}")).unwrap();
        let digest = Digest::parse(DIGEST).unwrap();
        assert_eq!(found, Route::Blob { name: "blobs/uploads".into(), digest });
    }

    #[test]
    fn a_path_can_never_leave_its_place() {
        for path in [
            "/v2/../x/manifests/1",
            "/v2/%2e%2e/x/manifests/1",
            "/v2/a/%2E%2E/manifests/1",
            "/v2/a/manifests/..",
            "/v2/a/manifests/%2e%2e",
            "/v2/a%00/manifests/1",
            "/v2//manifests/1",
            "/v2/a/blobs/uploads/../x",
            "/v2/a/blobs/sha256:../../x",
            "/v2/_tags/manifests/1",
            "/v1/a",
            "/",
            "",
            "*",
        ] {
            let refusal = get(path).unwrap_err();
            assert!(refusal.status.is_client_error(), "{path}");
        }
    }

    #[test]
    fn methods_are_checked_and_the_answer_says_which() {
        let refusal = Route::parse(&Method::POST, "/v2/a/tags/list", None).unwrap_err();
        assert_eq!(refusal.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(refusal.headers[0].1, "GET, HEAD");
        assert!(Route::parse(&Method::POST, "/v2/a/blobs/uploads/", Some("mount=x")).is_err());
        let mounted = format!("mount={}&from=b%2Fc", DIGEST.replace(':', "%3A"));
        let found = Route::parse(&Method::POST, "/v2/a/blobs/uploads/", Some(&mounted)).unwrap();
        let Route::Uploads { mount: Some(mount), .. } = found else { panic!("{found:?}") };
        assert_eq!(mount.from.as_deref(), Some("b/c"));
    }

    #[test]
    fn ranges_are_those_of_http() {
        for (header, want) in [
            ("bytes=0-", Ok(Some((0, 10)))),
            ("bytes=3-5", Ok(Some((3, 3)))),
            ("bytes=3-50", Ok(Some((3, 7)))),
            ("bytes=-4", Ok(Some((6, 4)))),
            ("bytes=-40", Ok(Some((0, 10)))),
            ("bytes=10-", Err(())),
            ("bytes=-0", Err(())),
            ("bytes=5-3", Ok(None)),
            ("bytes=1-2,4-5", Ok(None)),
            ("lines=1-2", Ok(None)),
            ("bytes=x-", Ok(None)),
        ] {
            assert_eq!(range(header, 10), want, "{header}");
        }
        assert_eq!(content_range("0-9"), Some((0, 10)));
        assert_eq!(content_range("bytes 5-9/10"), Some((5, 5)));
        assert_eq!(content_range("9-5"), None);
        assert_eq!(content_range("0-18446744073709551615"), None);
    }
}
