//! Making the processes of containers.
//!
//! ```text
//! caller (parent.rs)                       child (init.rs, exec.rs)
//!   clone3 ───────────────────────────────▶ born in new namespaces and, on cgroup2, in its cgroup
//!   id maps, cgroups, limits ── Go ───────▶ joins the other namespaces, mounts
//!   prestart, createRuntime  ◀── Mounted ── (only with such hooks)
//!                            ── Go ───────▶ createContainer hooks, pivot_root, credentials
//!   returns                  ◀── Ready ──── waits on the start socket
//!   start (any process) ──── connects ────▶ startContainer hooks, seccomp, exec: end of file is success
//! ```
//!
//! Where a PID or user namespace is joined by path, or for an exec, an intermediate process enters it and makes the
//! real one as its sibling (`CLONE_PARENT`), so that it is still a child of the caller, and exits.
//!
//! The child may be a copy of a threaded program. Everything it needs is prepared before it exists (strings,
//! descriptors, filters); it neither allocates nor locks until it execs. What fails there is sent as a step and an
//! error number ([`message::Failure`]), and the parent, which knows the plan, says it in words.

pub(crate) mod adjust;
pub(crate) mod agent;
pub(crate) mod channel;
pub(crate) mod exec;
pub(crate) mod id_maps;
pub(crate) mod init;
pub(crate) mod message;
pub(crate) mod parent;
pub(crate) mod plan;
pub(crate) mod setup;
