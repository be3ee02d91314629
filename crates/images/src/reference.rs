//! Image references: what people type, and the one full name it stands for.
//!
//! ```text
//! nginx                            docker.io/library/nginx:latest
//! user/app:1.2                     docker.io/user/app:1.2
//! localhost/app                    localhost/app:latest
//! registry.example:5000/a/b@sha256:…   the same, no tag
//! ```
//!
//! The grammar and the rules of shortening are Docker's: the first component is a registry host only if it holds a `.`,
//! a `:` or an upper-case letter, or is `localhost`; everything else lives on `docker.io`, single names in `library/`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{Digest, is_lower_hex};
use crate::{Error, Result};

/// The registry of names without a host.
pub const DEFAULT_DOMAIN: &str = "docker.io";
/// The tag of names without one.
pub const DEFAULT_TAG: &str = "latest";

const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";
/// Limits of the grammar: repository path, host with port, and tag.
const PATH_LENGTH: usize = 255;
const DOMAIN_LENGTH: usize = 255 + 6;
const TAG_LENGTH: usize = 128;

/// A normalised image reference. It always has a tag or a digest.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses and normalises `text`; without a tag and digest the tag is `latest`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput), saying which part is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| Error::invalid(format!("parse image reference {text:?}: {why}"));
        if text.is_empty() {
            return Err(wrong("it is empty"));
        }
        if text.len() == 64 && text.bytes().all(is_lower_hex) {
            return Err(wrong("64 hexadecimal characters are an image id, not a name"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(digest)?)),
            None => (text, None),
        };
        // A colon after the last slash starts a tag; one before it belongs to a port.
        let name_start = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[name_start..].find(':') {
            Some(colon) => {
                let (name, tag) = rest.split_at(name_start + colon);
                (name, Some(&tag[1..]))
            }
            None => (rest, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(wrong(
                "the tag must be 1 to 128 of [A-Za-z0-9_.-], not starting with . or -",
            ));
        }
        let (domain, path) = split_domain(name);
        if !is_domain(&domain) {
            return Err(wrong("the registry host is malformed"));
        }
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(wrong("the repository name must be lower-case"));
        }
        if !is_path(&path) {
            return Err(wrong(
                "the repository name must be components of [a-z0-9] joined by . _ __ or -, separated by /",
            ));
        }
        let tag = match (&digest, tag) {
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (_, tag) => tag.map(str::to_owned),
        };
        Ok(Self { domain, path, tag, digest })
    }

    /// The registry host, with its port if one was given: `docker.io`, `localhost:5000`.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry: `library/nginx`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, absent if only a digest was given.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, which names the content exactly; it wins over the tag.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Host and path, without tag and digest: `docker.io/library/nginx`.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// [`repository`](Self::repository) as people write it: `nginx`.
    #[must_use]
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.repository();
        }
        let short = match self.path.strip_prefix(OFFICIAL_PREFIX) {
            Some(official) if !official.contains('/') => official,
            _ => &self.path,
        };
        // `docker.io/a.b/c` must stay long: `a.b/c` would name the host `a.b`.
        match split_domain(short) == (self.domain.clone(), self.path.clone()) {
            true => short.to_owned(),
            false => self.repository(),
        }
    }

    /// The whole reference, fully written: `docker.io/library/nginx:latest`.
    #[must_use]
    pub fn canonical(&self) -> String {
        self.with_suffix(self.repository())
    }

    /// The whole reference as people write it: `nginx:latest`.
    #[must_use]
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_name())
    }

    /// What stands for the version in a registry's URLs: the digest, else the tag.
    #[must_use]
    pub fn version(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }

    /// The same repository at `digest`, without a tag.
    #[must_use]
    pub fn at_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The same repository at `tag`, without a digest.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if `tag` is malformed.
    pub fn at_tag(&self, tag: &str) -> Result<Self> {
        if !is_tag(tag) {
            return Err(Error::invalid(format!("parse tag {tag:?}: it is malformed")));
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The name a store files this under: a digest makes the tag irrelevant.
    pub(crate) fn key(&self) -> Self {
        match &self.digest {
            Some(digest) => self.at_digest(digest.clone()),
            None => self.clone(),
        }
    }

    fn with_suffix(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(&digest.to_string());
        }
        name
    }
}

/// Splits a name without tag into registry host and repository path, applying Docker's defaults.
fn split_domain(name: &str) -> (String, String) {
    let (domain, path) = match name.split_once('/') {
        Some((first, rest)) if is_host_like(first) => (first, rest),
        _ => (DEFAULT_DOMAIN, name),
    };
    let domain = if domain == LEGACY_DEFAULT_DOMAIN { DEFAULT_DOMAIN } else { domain };
    if domain == DEFAULT_DOMAIN && !path.contains('/') {
        return (domain.to_owned(), format!("{OFFICIAL_PREFIX}{path}"));
    }
    (domain.to_owned(), path.to_owned())
}

fn is_host_like(first: &str) -> bool {
    first == "localhost"
        || first.contains(['.', ':'])
        || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_domain(domain: &str) -> bool {
    if domain.len() > DOMAIN_LENGTH {
        return false;
    }
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, "")) => return is_ipv6(host),
            Some((host, port)) if is_ipv6(host) => match port.strip_prefix(':') {
                Some(port) => return is_port(port),
                None => return false,
            },
            _ => return false,
        },
        None => match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_ipv6(host: &str) -> bool {
    host.parse::<std::net::Ipv6Addr>().is_ok()
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

/// Whether `path` can be a repository's path within its registry: components of `[a-z0-9]+` joined by `.`, `_`, `__` or
/// any number of `-`, separated by `/`, 255 bytes at most.
#[must_use]
pub fn is_path(path: &str) -> bool {
    path.len() <= PATH_LENGTH && path.split('/').all(is_path_component)
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(*first) || !alphanumeric(*last) {
        return false;
    }
    component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).all(|separator| {
        matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
    })
}

/// Whether `tag` can be a tag: 1 to 128 of `[A-Za-z0-9_.-]`, not starting with `.` or `-`.
#[must_use]
pub fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    bytes.len() <= TAG_LENGTH
        && bytes.first().is_some_and(|b| word(*b))
        && bytes.iter().all(|b| word(*b) || matches!(b, b'.' | b'-'))
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical())
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical())
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
