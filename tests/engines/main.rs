//! Debian's own engines drive our runtime and shim, as an operator would point them at it: containerd by its shim
//! contract, dockerd and podman by the OCI command line.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot be set up fails, and one that is skipped says so"
)]

mod containerd;
mod cri;
mod dockerd;
mod host;
mod podman;
