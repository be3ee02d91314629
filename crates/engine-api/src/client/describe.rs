//! Objects as the daemon describes them, with the fields that the types of this crate do not have.

use super::request::segment;
use super::{Client, Result};
use crate::query;

/// What a daemon can describe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A network.
    Network,
    /// A volume.
    Volume,
}

impl ObjectKind {
    /// All, in the order in which a bare name is looked up.
    pub const ALL: [Self; 4] = [Self::Container, Self::Image, Self::Network, Self::Volume];

    fn path(self, name: &str) -> String {
        let name = segment(name);
        match self {
            Self::Container => format!("/containers/{name}/json"),
            Self::Image => format!("/images/{name}/json"),
            Self::Network => format!("/networks/{name}"),
            Self::Volume => format!("/volumes/{name}"),
        }
    }
}

impl Client {
    /// The description of an object exactly as the daemon gives it; `size` asks for a container's sizes too.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound).
    pub async fn describe(
        &self,
        kind: ObjectKind,
        name: &str,
        size: bool,
    ) -> Result<serde_json::Value> {
        let call = self.get(kind.path(name));
        let call = match kind {
            ObjectKind::Container => call.query(&query::InspectContainer { size }),
            _ => call,
        };
        call.answer().await
    }
}
