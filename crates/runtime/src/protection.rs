//! Protections by name, so that a test can show what happens without each of them.
//!
//! A test of an attack proves something only if the attack works where nothing stands against it. With the feature
//! `unsafe-for-tests` one protection at a time can be switched off, in the very code that ships; without the feature,
//! which no program enables (`cargo xtask layers` checks that), every one of them is a constant.

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
    /// Nothing that is mounted over a part of procfs is written to.
    ProcOvermount,
    /// The working directory is not entered through a descriptor.
    WorkingDirectory,
    /// The caller's descriptors end with the clone.
    Descriptors,
    /// Inheritable capabilities are those configured.
    Inheritable,
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
}

#[cfg(feature = "unsafe-for-tests")]
static OFF: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

/// Whether a protection stands. Child-safe.
pub(crate) fn on(protection: Protection) -> bool {
    #[cfg(feature = "unsafe-for-tests")]
    return OFF.load(std::sync::atomic::Ordering::Relaxed) & (1 << protection as u8) == 0;
    #[cfg(not(feature = "unsafe-for-tests"))]
    {
        let _ = protection;
        true
    }
}

/// Runs `attack` with some protections switched off, in the whole process.
#[cfg(feature = "unsafe-for-tests")]
pub fn without<T>(protections: &[Protection], attack: impl FnOnce() -> T) -> T {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            OFF.store(0, std::sync::atomic::Ordering::Relaxed);
        }
    }
    let bits = protections.iter().fold(0, |bits, protection| bits | 1 << *protection as u8);
    let _restore = Restore;
    OFF.store(bits, std::sync::atomic::Ordering::Relaxed);
    attack()
}
