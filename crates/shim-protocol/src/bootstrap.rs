//! What the shim's `start` command prints.

use serde::{Deserialize, Serialize};

use crate::error::{Cause, Result};

/// The shim socket's name in a bundle that brigd made.
pub const SOCKET_NAME: &str = "shim.sock";

/// Where and how to reach a started shim.
///
/// containerd up to 1.6 wants the plain address, 1.7 accepts version 2, 2.0 and brigd version 3.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootstrapParams {
    /// Version of the task API that the address serves.
    pub version: u32,
    /// `unix://` and an absolute path.
    pub address: String,
    /// Always `ttrpc`.
    pub protocol: String,
}

impl BootstrapParams {
    /// Parameters for a shim that listens at `address`.
    pub fn ttrpc(version: u32, address: String) -> Self {
        Self { version, address, protocol: "ttrpc".to_owned() }
    }

    /// Parses what `start` printed, in any of the forms above.
    ///
    /// # Errors
    /// `InvalidInput` when it is none of them.
    pub fn parse(output: &str) -> Result<Self> {
        let text = output.trim();
        if let Ok(params) = serde_json::from_str::<Self>(text) {
            return Ok(params);
        }
        if text.starts_with("unix://") && !text.contains(char::is_whitespace) {
            return Ok(Self::ttrpc(2, text.to_owned()));
        }
        Err(Cause::Bootstrap { text: text.chars().take(200).collect() }.into())
    }

    /// The socket's path, when the address is a Unix socket.
    pub fn socket_path(&self) -> Option<&std::path::Path> {
        self.address.strip_prefix("unix://").map(std::path::Path::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_of_the_answer_parse() {
        let json = r#"{"version":3,"address":"unix:///run/x/shim.sock","protocol":"ttrpc"}"#;
        let params = BootstrapParams::parse(json).unwrap();
        assert_eq!(params.version, 3);
        assert_eq!(params.socket_path().unwrap().to_str(), Some("/run/x/shim.sock"));
        assert_eq!(serde_json::to_string(&params).unwrap(), json);
        assert_eq!(BootstrapParams::parse("unix:///a\n").unwrap().version, 2);
        assert!(BootstrapParams::parse("error: no").is_err());
    }
}
