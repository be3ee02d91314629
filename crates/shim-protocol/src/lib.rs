//! The containerd shim protocol: task API messages and ttrpc framing.
