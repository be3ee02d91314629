//! Messages shared by several parts of the API: `google.protobuf.*` and `containerd.types.*`.

use prost::Message;

use crate::error::{Cause, Result};

pub use crate::timestamp::Timestamp;

/// `google.protobuf.Any`: a message together with its type's name.
#[derive(Clone, PartialEq, Message)]
pub struct Any {
    /// The type's full name; containerd writes no `type.googleapis.com/` prefix.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded message (or JSON, for the OCI types that containerd registers by URL).
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

impl Any {
    /// Wraps a message of a type that has a name.
    pub fn pack<M: Named>(message: &M) -> Self {
        Self { type_url: M::TYPE_URL.to_owned(), value: message.encode_to_vec() }
    }

    /// True when the value claims to be an `M`; a `scheme://host/` prefix of the type's name is ignored.
    pub fn is<M: Named>(&self) -> bool {
        self.type_url.rsplit('/').next() == Some(M::TYPE_URL)
    }

    /// Decodes the value as `M`.
    ///
    /// # Errors
    /// `InvalidInput` when the value is of another type or malformed.
    pub fn unpack<M: Named>(&self) -> Result<M> {
        if !self.is::<M>() {
            let found = self.type_url.clone();
            return Err(Cause::TypeUrl { expected: M::TYPE_URL, found }.into());
        }
        M::decode(&*self.value)
            .map_err(|source| Cause::Decode { message: M::TYPE_URL, source }.into())
    }
}

/// A message that may travel in an [`Any`].
pub trait Named: Message + Default {
    /// The full protobuf name of the type.
    const TYPE_URL: &'static str;
}

/// `google.protobuf.Empty`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Empty {}

/// `containerd.types.Mount`: one mount(2) call, in fstab's vocabulary.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Mount {
    /// File system type, or `bind`.
    #[prost(string, tag = "1")]
    pub r#type: String,
    /// Device, directory or `overlay`.
    #[prost(string, tag = "2")]
    pub source: String,
    /// Where below the root file system; empty is the root itself.
    #[prost(string, tag = "3")]
    pub target: String,
    /// fstab-style options, one each.
    #[prost(string, repeated, tag = "4")]
    pub options: Vec<String>,
}

/// `containerd.v1.types.Status`: the state of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Status {
    /// Not known to the shim.
    Unknown = 0,
    /// Made, not started.
    Created = 1,
    /// Running.
    Running = 2,
    /// Ended; exit status available.
    Stopped = 3,
    /// Frozen.
    Paused = 4,
    /// Being frozen.
    Pausing = 5,
}

/// `containerd.v1.types.ProcessInfo`: one process of a container.
#[derive(Clone, PartialEq, Message)]
pub struct ProcessInfo {
    /// Process id in the shim's PID namespace.
    #[prost(uint32, tag = "1")]
    pub pid: u32,
    /// [`crate::options::ProcessDetails`] for exec processes that the shim manages.
    #[prost(message, optional, tag = "2")]
    pub info: Option<Any>,
}

/// `containerd.types.RuntimeInfo`: what `-info` prints.
#[derive(Clone, PartialEq, Message)]
pub struct RuntimeInfo {
    /// The runtime's name, as in `--runtime`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its version.
    #[prost(message, optional, tag = "2")]
    pub version: Option<RuntimeVersion>,
    /// The options it was asked with.
    #[prost(message, optional, tag = "3")]
    pub options: Option<Any>,
    /// OCI features.
    #[prost(message, optional, tag = "4")]
    pub features: Option<Any>,
    /// Free annotations.
    #[prost(map = "string, string", tag = "5")]
    pub annotations: std::collections::HashMap<String, String>,
}

/// `containerd.types.RuntimeVersion`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RuntimeVersion {
    /// Version number.
    #[prost(string, tag = "1")]
    pub version: String,
    /// Source revision.
    #[prost(string, tag = "2")]
    pub revision: String,
}
