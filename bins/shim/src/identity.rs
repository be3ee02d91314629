//! Who this shim is: what it was told when it was started.

use std::path::PathBuf;

/// What a shim was told at its start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identity {
    /// containerd's namespace; [`BRIG_NAMESPACE`] under brigd.
    pub(crate) namespace: String,
    /// The bundle it was started for, absolute.
    pub(crate) bundle: PathBuf,
    /// Say more in the shim's own log.
    pub(crate) debug: bool,
    /// Set under containerd.
    pub(crate) containerd: Option<Containerd>,
}

/// How to reach the containerd that started the shim.
#[derive(Clone, Debug, Default)]
pub(crate) struct Containerd {
    /// ttrpc address for events; may be empty.
    pub(crate) ttrpc_address: String,
    /// gRPC address, for the publishing program.
    pub(crate) grpc_address: String,
    /// The program that publishes events when ttrpc does not.
    pub(crate) publish_binary: String,
}

/// The namespace that brigd uses.
pub(crate) const BRIG_NAMESPACE: &str = "brig";

impl Identity {
    /// The runtime's state directory when nobody chose one.
    pub(crate) fn default_runtime_root(&self) -> PathBuf {
        match &self.containerd {
            Some(_) => PathBuf::from("/run/containerd/brig").join(&self.namespace),
            None => PathBuf::from("/run/brig/runtime"),
        }
    }
}
