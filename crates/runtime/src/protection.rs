//! Protections by name, so that a test can show what happens without each of them.
//!
//! A test of an attack proves something only if the attack works where nothing stands against it. With the feature
//! `unsafe-for-tests` one protection at a time can be switched off, in the very code that ships. Without the feature
//! every one of them is a constant; no program may enable it (`cargo xtask layers` checks that), and a build without
//! debug assertions, as programs are shipped, refuses to compile with it.

#[cfg(all(feature = "unsafe-for-tests", not(debug_assertions)))]
compile_error!("unsafe-for-tests takes protections away; nothing that is shipped is built with it");

#[cfg(feature = "unsafe-for-tests")]
mod switches;

#[cfg(feature = "unsafe-for-tests")]
pub use switches::without;
#[cfg(feature = "unsafe-for-tests")]
pub(crate) use switches::{leaked_descriptors, on};

/// What stands against one kind of attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Protection {
    /// Masks are made from the null device only.
    NullDevice,
    /// The terminal is not bound over what a link names.
    ConsoleLink,
    /// Targets are resolved beneath the container's root.
    RootConfinement,
    /// `/proc`, `/sys` and `/dev` are directories of the root filesystem, no links.
    RealDirectory,
    /// The kernel's files are reached through the mount that init made, never by a path.
    ProcDescriptor,
    /// Nothing that is mounted over a part of procfs is written to.
    ProcOvermount,
    /// The working directory is not entered through a descriptor.
    WorkingDirectory,
    /// The caller's descriptors end with the clone.
    Descriptors,
    /// Inheritable capabilities are those configured.
    Inheritable,
    /// The caller's supplementary groups are not the process's.
    Groups,
    /// The process leads a session of its own.
    Session,
    /// Masked paths are masked.
    MaskedPaths,
    /// Read-only paths are read-only.
    ReadOnlyPaths,
    /// Only kernel parameters that a namespace of the container owns are set.
    SysctlOwner,
    /// Arguments that the kernel takes as 32 bits are compared as such.
    LowWord,
    /// What is restored is held against the configuration.
    Checkpoint,
}

/// Whether a protection stands: it does. Child-safe.
#[cfg(not(feature = "unsafe-for-tests"))]
pub(crate) const fn on(_: Protection) -> bool {
    true
}

/// Descriptors of the caller that a child keeps although nobody asked for them: none.
#[cfg(not(feature = "unsafe-for-tests"))]
pub(crate) const fn leaked_descriptors() -> Vec<std::os::fd::RawFd> {
    Vec::new()
}
