//! Platforms: operating system, architecture and variant, in Go's vocabulary as the OCI image specification asks.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What an image was built to run on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// Go's `GOARCH`, such as `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// Go's `GOOS`, such as `linux`.
    #[serde(default)]
    pub os: String,
    /// Version of the operating system; used by Windows images.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// CPU variant, such as `v7` of `arm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Which platforms of an image an operation is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PlatformChoice {
    /// The one that suits this machine best.
    #[default]
    Host,
    /// This one.
    Exactly(Platform),
    /// All that the image has.
    All,
}

impl PlatformChoice {
    /// The platform asked for, or `None` for all.
    #[must_use]
    pub fn single(&self) -> Option<Platform> {
        match self {
            Self::Host => Some(Platform::host()),
            Self::Exactly(platform) => Some(platform.clone()),
            Self::All => None,
        }
    }
}

impl Platform {
    /// The platform of this machine.
    #[must_use]
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", None),
            "arm" => ("arm", Some("v7")),
            "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", None),
            "powerpc64" => ("ppc64", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Self {
            architecture: architecture.to_owned(),
            os: std::env::consts::OS.to_owned(),
            os_version: None,
            variant: variant.map(str::to_owned),
        }
    }

    /// Parses `os`, `architecture`, `os/architecture` or `os/architecture/variant`, with the usual aliases
    /// (`x86_64`, `aarch64`, `armhf`, ...). What is left out is the host's.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when malformed.
    pub fn parse(text: &str) -> Result<Self> {
        let malformed = || {
            Error::invalid(format!(
                "parse platform {text:?}: want os/architecture[/variant], such as linux/arm64"
            ))
        };
        let word = |part: &str| {
            let legal = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
            part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.len() <= 64
                && part.bytes().all(legal)
        };
        let parts: Vec<&str> = text.split('/').collect();
        if parts.len() > 3 || !parts.iter().all(|part| word(part)) {
            return Err(malformed());
        }
        let host = Self::host();
        let platform = |os: &str, architecture: &str, variant: Option<&str>| Self {
            architecture: architecture.to_ascii_lowercase(),
            os: os.to_ascii_lowercase(),
            os_version: None,
            variant: variant.map(str::to_ascii_lowercase),
        };
        let parsed = match parts.as_slice() {
            [one] if is_known_os(one) => platform(one, &host.architecture, host.variant.as_deref()),
            [one] => platform(&host.os, one, None),
            [os, architecture] => platform(os, architecture, None),
            [os, architecture, variant] => platform(os, architecture, Some(variant)),
            _ => return Err(malformed()),
        };
        Ok(parsed.normalized())
    }

    /// The same platform with aliases and default variants written one way.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let variant = self.variant.as_deref().filter(|variant| !variant.is_empty());
        let (architecture, variant) = match (self.architecture.as_str(), variant) {
            ("x86_64" | "x86-64" | "amd64", None | Some("v1")) => ("amd64", None),
            ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
            ("i386" | "i486" | "i586" | "i686" | "x86" | "386", _) => ("386", None),
            ("aarch64" | "arm64", None | Some("8" | "v8")) => ("arm64", None),
            ("aarch64" | "arm64", variant) => ("arm64", variant),
            ("armhf", _) | ("arm", None | Some("7")) => ("arm", Some("v7")),
            ("armel", _) | ("arm", Some("6")) => ("arm", Some("v6")),
            ("arm", Some("5")) => ("arm", Some("v5")),
            ("arm", Some("8")) => ("arm", Some("v8")),
            (other, variant) => (other, variant),
        };
        let os = match self.os.as_str() {
            "macos" => "darwin",
            other => other,
        };
        Self {
            architecture: architecture.to_owned(),
            os: os.to_owned(),
            os_version: self.os_version.clone(),
            variant: variant.map(str::to_owned),
        }
    }

    /// How well an image built for `candidate` suits `self`: `None` not at all, else the smaller the better.
    ///
    /// An older variant of the same architecture runs on a newer one (`arm/v6` on `arm/v7`), never the reverse.
    #[must_use]
    pub fn rank(&self, candidate: &Self) -> Option<u32> {
        let (wanted, candidate) = (self.normalized(), candidate.normalized());
        if wanted.os != candidate.os || wanted.architecture != candidate.architecture {
            return None;
        }
        if wanted.os_version.is_some() && wanted.os_version != candidate.os_version {
            return None;
        }
        if wanted.variant == candidate.variant {
            return Some(0);
        }
        wanted.level()?.checked_sub(candidate.level()?)
    }

    /// Whether this is the `unknown/unknown` that build attestations are filed under.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }

    /// The variant as a number, where variants of the architecture are ordered.
    fn level(&self) -> Option<u32> {
        let implied = match self.architecture.as_str() {
            "amd64" => 1,
            "arm64" => 8,
            "arm" => 7,
            _ => return None,
        };
        match self.variant.as_deref() {
            None => Some(implied),
            Some(variant) => variant.strip_prefix('v')?.parse().ok(),
        }
    }
}

fn is_known_os(word: &str) -> bool {
    ["linux", "windows", "darwin", "macos", "freebsd"].contains(&word.to_ascii_lowercase().as_str())
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_normalised() {
        for (text, want) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("Linux/ARM64/v8", "linux/arm64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/i686", "linux/386"),
            ("linux/s390x", "linux/s390x"),
        ] {
            assert_eq!(Platform::parse(text).unwrap().to_string(), want, "{text}");
        }
        assert_eq!(Platform::parse("linux").unwrap().architecture, Platform::host().architecture);
        assert_eq!(Platform::parse("arm64").unwrap().to_string(), "linux/arm64");
    }

    #[test]
    fn malformed_platforms_are_refused() {
        for text in ["", "/", "linux/", "a/b/c/d", "linux/amd 64", "linux/../x"] {
            assert!(Platform::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn older_variants_run_on_newer_ones_only() {
        let parse = |text| Platform::parse(text).unwrap();
        assert_eq!(parse("linux/arm/v7").rank(&parse("linux/arm/v7")), Some(0));
        assert_eq!(parse("linux/arm/v7").rank(&parse("linux/arm/v6")), Some(1));
        assert_eq!(parse("linux/arm/v6").rank(&parse("linux/arm/v7")), None);
        assert_eq!(parse("linux/amd64").rank(&parse("linux/amd64/v3")), None);
        assert_eq!(parse("linux/amd64/v3").rank(&parse("linux/amd64")), Some(2));
        assert_eq!(parse("linux/amd64").rank(&parse("linux/arm64")), None);
        assert_eq!(parse("linux/s390x").rank(&parse("windows/s390x")), None);
    }
}
