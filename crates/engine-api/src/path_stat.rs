//! The `X-Docker-Container-Path-Stat` header of the archive endpoints.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// The header's name.
pub const PATH_STAT_HEADER: &str = "x-docker-container-path-stat";

/// Longest header value accepted: a name and a link target of `PATH_MAX` bytes each, escaped, in base64.
const MAX_HEADER: usize = 64 * 1024;

/// What a path in a container is; sent as JSON in base64.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathStat {
    /// The last component of the path.
    pub name: String,
    /// Size in bytes.
    pub size: i64,
    /// Type and permissions as Go's `os.FileMode`, not as `st_mode`; see [`go_mode`].
    pub mode: u32,
    /// Modification time, RFC 3339 with nanoseconds.
    pub mtime: String,
    /// The resolved target when the path is a symbolic link, else empty.
    #[serde(rename = "linkTarget", default)]
    pub link_target: String,
}

/// A header that does not hold a path stat.
#[derive(Debug, thiserror::Error)]
#[error("the header {PATH_STAT_HEADER} does not hold a path stat")]
pub struct PathStatError(#[source] Option<Box<dyn std::error::Error + Send + Sync>>);

impl PathStat {
    /// The header's value.
    #[must_use]
    pub fn encode(&self) -> String {
        // A struct of strings and integers always serialises.
        STANDARD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads a header's value.
    ///
    /// # Errors
    /// The value is too long, not base64, or not the JSON of a path stat.
    pub fn decode(header: &str) -> Result<Self, PathStatError> {
        if header.len() > MAX_HEADER {
            return Err(PathStatError(None));
        }
        let json = STANDARD.decode(header).map_err(|error| PathStatError(Some(error.into())))?;
        serde_json::from_slice(&json).map_err(|error| PathStatError(Some(error.into())))
    }

    /// Whether the path is a directory.
    #[must_use]
    pub const fn is_directory(&self) -> bool {
        self.mode & GO_DIRECTORY != 0
    }

    /// Whether the path is a symbolic link.
    #[must_use]
    pub const fn is_symlink(&self) -> bool {
        self.mode & GO_SYMLINK != 0
    }
}

const GO_DIRECTORY: u32 = 1 << 31;
const GO_SYMLINK: u32 = 1 << 27;
const GO_DEVICE: u32 = 1 << 26;
const GO_NAMED_PIPE: u32 = 1 << 25;
const GO_SOCKET: u32 = 1 << 24;
const GO_SETUID: u32 = 1 << 23;
const GO_SETGID: u32 = 1 << 22;
const GO_CHARACTER_DEVICE: u32 = 1 << 21;
const GO_STICKY: u32 = 1 << 20;

/// Converts `st_mode` (inode(7)) to Go's `os.FileMode`, whose type bits differ.
#[must_use]
pub const fn go_mode(st_mode: u32) -> u32 {
    let kind = match st_mode & 0o170_000 {
        0o040_000 => GO_DIRECTORY,
        0o120_000 => GO_SYMLINK,
        0o060_000 => GO_DEVICE,
        0o020_000 => GO_DEVICE | GO_CHARACTER_DEVICE,
        0o010_000 => GO_NAMED_PIPE,
        0o140_000 => GO_SOCKET,
        _ => 0,
    };
    let setuid = if st_mode & 0o4000 == 0 { 0 } else { GO_SETUID };
    let setgid = if st_mode & 0o2000 == 0 { 0 } else { GO_SETGID };
    let sticky = if st_mode & 0o1000 == 0 { 0 } else { GO_STICKY };
    kind | setuid | setgid | sticky | (st_mode & 0o777)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_survives_its_header() {
        let stat = PathStat {
            name: "büro".into(),
            size: 42,
            mode: go_mode(0o120_777),
            mtime: "2026-01-02T03:04:05.000000006Z".into(),
            link_target: "/etc/passwd".into(),
        };
        assert_eq!(PathStat::decode(&stat.encode()).unwrap(), stat);
        assert!(stat.is_symlink() && !stat.is_directory());
        assert!(PathStat::decode("%%").is_err());
        assert!(PathStat::decode("e30=").is_err());
    }

    #[test]
    fn modes_use_the_bits_of_go() {
        assert_eq!(go_mode(0o100_644), 0o644);
        assert_eq!(go_mode(0o041_777), 0x8010_01ff);
        assert_eq!(go_mode(0o104_755), 0x0080_01ed);
        assert_eq!(go_mode(0o020_620), 0x0420_0190);
    }
}
