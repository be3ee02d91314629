//! Bodies that the generated [`models`](crate::models) lack, or describe for a newer version than the one served.

use serde::{Deserialize, Serialize};

use crate::models::{ContainerSummary, ImageSummary, Volume};

/// The answer to `POST /containers/{id}/exec`.
///
/// The generated type writes the key in lower case, which clients that match keys exactly do not find.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdResponse {
    /// The id of what was created.
    #[serde(rename = "Id", alias = "ID", alias = "id")]
    pub id: String,
}

/// The answer to `GET /system/df` up to API 1.51. Absent lists were not asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DiskUsage {
    /// Bytes that the layers of all images take on disk.
    #[serde(rename = "LayersSize", default)]
    pub layers_size: i64,
    /// Every image.
    #[serde(rename = "Images", default, skip_serializing_if = "Option::is_none")]
    pub images: Option<Vec<ImageSummary>>,
    /// Every container, with sizes.
    #[serde(rename = "Containers", default, skip_serializing_if = "Option::is_none")]
    pub containers: Option<Vec<ContainerSummary>>,
    /// Every volume, with usage.
    #[serde(rename = "Volumes", default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<Vec<Volume>>,
    /// The build cache.
    #[serde(rename = "BuildCache", default, skip_serializing_if = "Option::is_none")]
    pub build_cache: Option<Vec<serde_json::Value>>,
    /// Bytes that the builder takes.
    #[serde(rename = "BuilderSize", default)]
    pub builder_size: i64,
}

/// The answer to `GET /system/check` and `POST /system/check`, which Docker does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemCheck {
    /// Containers looked at.
    #[serde(rename = "Containers", default)]
    pub containers: i64,
    /// Images looked at.
    #[serde(rename = "Images", default)]
    pub images: i64,
    /// Networks looked at.
    #[serde(rename = "Networks", default)]
    pub networks: i64,
    /// What does not fit together; empty when all is well.
    #[serde(rename = "Findings", default)]
    pub findings: Vec<CheckFinding>,
}

/// Something that does not fit together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckFinding {
    /// What it is about.
    #[serde(rename = "Object", default)]
    pub object: String,
    /// What is wrong with it.
    #[serde(rename = "Problem", default)]
    pub problem: String,
    /// What to do about it.
    #[serde(rename = "Remedy", default)]
    pub remedy: String,
    /// This call put it right.
    #[serde(rename = "Repaired", default)]
    pub repaired: bool,
}

/// What `GET /_ping` says in its headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ping {
    /// The newest version that the daemon speaks (`Api-Version`).
    pub api_version: Option<crate::ApiVersion>,
    /// The daemon's operating system (`Ostype`).
    pub os_type: Option<String>,
    /// The daemon's name and version (`Server`).
    pub server: Option<String>,
}
