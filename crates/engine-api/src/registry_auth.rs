//! The `X-Registry-Auth` header: credentials for one registry, handed on with each pull and push.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};

/// The header's name.
pub const REGISTRY_AUTH_HEADER: &str = "x-registry-auth";

/// Longest header value accepted; identity tokens are a few kilobytes.
const MAX_HEADER: usize = 64 * 1024;

/// Docker pads, other clients do not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Credentials for one registry. `Debug` does not show the secrets.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryAuth {
    /// The user's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// The user's password, or a token used as one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub password: String,
    /// `username:password` in base64, as configuration files hold it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub auth: String,
    /// The registry's host or URL.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub serveraddress: String,
    /// A refresh token to exchange for an access token.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub identitytoken: String,
    /// A bearer token to send as it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub registrytoken: String,
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RegistryAuth")
            .field("username", &self.username)
            .field("serveraddress", &self.serveraddress)
            .finish_non_exhaustive()
    }
}

/// A header that does not hold credentials.
#[derive(Debug, thiserror::Error)]
#[error("the header X-Registry-Auth does not hold credentials as JSON in URL-safe base64")]
pub struct RegistryAuthError(#[source] Option<Box<dyn std::error::Error + Send + Sync>>);

impl RegistryAuth {
    /// The header's value.
    #[must_use]
    pub fn encode(&self) -> String {
        // A struct of strings always serialises.
        BASE64.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads a header's value. `None` where it holds no credentials: clients send `{}`, `null` or nothing.
    ///
    /// # Errors
    /// The value is too long, not base64, or not the JSON of credentials. The message does not quote it.
    pub fn decode(header: &str) -> Result<Option<Self>, RegistryAuthError> {
        if header.len() > MAX_HEADER {
            return Err(RegistryAuthError(None));
        }
        let json = BASE64.decode(header).map_err(|error| RegistryAuthError(Some(error.into())))?;
        if json.is_empty() {
            return Ok(None);
        }
        // serde_json's message could quote a secret of the wrong type.
        let auth: Option<Self> =
            serde_json::from_slice(&json).map_err(|_| RegistryAuthError(None))?;
        Ok(auth.map(Self::with_auth_split).filter(|auth| *auth != Self::default()))
    }

    /// Fills name and password from `auth` where they are not given.
    fn with_auth_split(mut self) -> Self {
        if self.username.is_empty() && !self.auth.is_empty() {
            let standard = base64::engine::general_purpose::STANDARD;
            let pair =
                standard.decode(&self.auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            if let Some((username, password)) =
                pair.as_deref().and_then(|pair| pair.split_once(':'))
            {
                self.username = username.to_owned();
                self.password = password.to_owned();
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_survive_their_header() {
        let auth = RegistryAuth {
            username: "me".into(),
            password: "p\u{e4}ss?>".into(),
            serveraddress: "127.0.0.1:5000".into(),
            ..RegistryAuth::default()
        };
        let header = auth.encode();
        assert_eq!(RegistryAuth::decode(&header).unwrap(), Some(auth.clone()));
        assert_eq!(RegistryAuth::decode(header.trim_end_matches('=')).unwrap(), Some(auth));
    }

    #[test]
    fn empty_credentials_are_none_and_garbage_is_refused() {
        for empty in ["", "e30=", "e30", "bnVsbA=="] {
            assert_eq!(RegistryAuth::decode(empty).unwrap(), None, "{empty}");
        }
        for bad in ["!", "eyJ1c2VybmFtZSI6MX0=", "WzFd"] {
            assert!(RegistryAuth::decode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_joined_pair_is_split_and_debug_hides_secrets() {
        let header = BASE64.encode(r#"{"auth":"bWU6c2VjcmV0"}"#);
        let auth = RegistryAuth::decode(&header).unwrap().unwrap();
        assert_eq!((auth.username.as_str(), auth.password.as_str()), ("me", "secret"));
        assert!(!format!("{auth:?}").contains("secret"));
    }
}
