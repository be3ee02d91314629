//! bpf(2) as far as a container needs it: a device program for a cgroup2 directory.
//!
//! A program is loaded, attached beside whatever is attached already (`BPF_F_ALLOW_MULTI`, so that all programs along the
//! path must agree), found again by query, and replaced in one step (`BPF_F_REPLACE`, kernel 5.6). The program belongs to
//! the cgroup: it stays when its descriptors are closed, and goes with the directory.
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper in rustix, nix or libc")]

use std::ffi::c_long;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::error::{Error, Result};

const PROG_LOAD: c_long = 5;
const PROG_ATTACH: c_long = 8;
const PROG_DETACH: c_long = 9;
const PROG_GET_FD_BY_ID: c_long = 13;
const PROG_QUERY: c_long = 16;

/// `BPF_PROG_TYPE_CGROUP_DEVICE`, kernel 4.15.
const TYPE_CGROUP_DEVICE: u32 = 15;
/// `BPF_CGROUP_DEVICE`.
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 1 << 1;
const REPLACE: u32 = 1 << 2;

/// `BPF_CGROUP_MAX_PROGS`: the kernel takes no more programs on one cgroup.
const PROGRAM_LIMIT: usize = 64;

/// One eBPF instruction, as `struct bpf_insn` of `linux/bpf.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation class, operation and source.
    pub code: u8,
    /// Destination register in the low four bits, source register in the high four.
    pub registers: u8,
    /// Jump distance or memory offset.
    pub offset: i16,
    /// Constant operand.
    pub immediate: i32,
}

#[derive(Default)]
#[repr(C)]
struct LoadAttribute {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[derive(Default)]
#[repr(C)]
struct AttachAttribute {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
    replaced: u32,
}

#[derive(Default)]
#[repr(C)]
struct QueryAttribute {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    program_count: u32,
    padding: u32,
}

#[derive(Default)]
#[repr(C)]
struct IdAttribute {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Loads a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`.
///
/// # Errors
/// The verifier rejects it (EINVAL, EACCES), the caller lacks `CAP_BPF`/`CAP_SYS_ADMIN` (EPERM; before kernel 5.11 also a
/// small `RLIMIT_MEMLOCK`), or the kernel has no bpf(2) (ENOSYS).
pub fn load_device_program(instructions: &[Instruction]) -> Result<OwnedFd> {
    let attempt = || format!("load a device program of {} instructions", instructions.len());
    let count = u32::try_from(instructions.len())
        .map_err(|_| Error::system(attempt(), io::Error::from_raw_os_error(libc::E2BIG)))?;
    let attribute = LoadAttribute {
        program_type: TYPE_CGROUP_DEVICE,
        instruction_count: count,
        instructions: address(instructions.as_ptr()),
        license: address(c"Apache-2.0".as_ptr()),
        name: *b"brig_devices\0\0\0\0",
        ..LoadAttribute::default()
    };
    // SAFETY: the attribute points to `instructions` and to a C string literal, which both outlive this call; the kernel
    // copies them and writes nothing, since no log buffer is given.
    let fd = unsafe {
        bpf(PROG_LOAD, (&raw const attribute).cast_mut().cast(), size_of_val(&attribute))
    }
    .map_err(|source| Error::system(attempt(), source))?;
    owned(fd, attempt)
}

/// Attaches a device program to a cgroup2 directory, beside others, or in the place of `replaced`.
///
/// # Errors
/// The directory is not a cgroup2 one (EBADF, EINVAL), an ancestor forbids it (EPERM), or too many are attached (E2BIG).
pub fn attach_device_program(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let attribute = AttachAttribute {
        target: number(cgroup.as_raw_fd()),
        program: number(program.as_raw_fd()),
        attach_type: ATTACH_CGROUP_DEVICE,
        flags: if replaced.is_some() { ALLOW_MULTI | REPLACE } else { ALLOW_MULTI },
        replaced: replaced.map_or(0, |fd| number(fd.as_raw_fd())),
    };
    // SAFETY: the attribute holds numbers only, and the kernel reads `size_of_val` bytes of it.
    unsafe { bpf(PROG_ATTACH, (&raw const attribute).cast_mut().cast(), size_of_val(&attribute)) }
        .map(drop)
        .map_err(|source| Error::system("attach a device program to a cgroup", source))
}

/// Detaches a device program from a cgroup2 directory.
///
/// # Errors
/// It is not attached there (ENOENT), or the caller may not.
pub fn detach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let attribute = AttachAttribute {
        target: number(cgroup.as_raw_fd()),
        program: number(program.as_raw_fd()),
        attach_type: ATTACH_CGROUP_DEVICE,
        ..AttachAttribute::default()
    };
    // SAFETY: the attribute holds numbers only, and the kernel reads `size_of_val` bytes of it.
    unsafe { bpf(PROG_DETACH, (&raw const attribute).cast_mut().cast(), size_of_val(&attribute)) }
        .map(drop)
        .map_err(|source| Error::system("detach a device program from a cgroup", source))
}

/// The device programs attached to a cgroup2 directory itself, oldest first.
///
/// # Errors
/// The kernel cannot be asked. A program that goes away meanwhile is left out.
pub fn attached_device_programs(cgroup: BorrowedFd<'_>) -> Result<Vec<OwnedFd>> {
    let mut ids = [0_u32; PROGRAM_LIMIT];
    let mut attribute = QueryAttribute {
        target: number(cgroup.as_raw_fd()),
        attach_type: ATTACH_CGROUP_DEVICE,
        program_ids: address(ids.as_mut_ptr()),
        program_count: u32::try_from(PROGRAM_LIMIT).unwrap_or(u32::MAX),
        ..QueryAttribute::default()
    };
    // SAFETY: the attribute is exclusively ours for the call and the kernel writes at most `program_count` numbers to
    // `ids`, which has room for exactly that many.
    unsafe { bpf(PROG_QUERY, (&raw mut attribute).cast(), size_of_val(&attribute)) }
        .map_err(|source| Error::system("list the device programs of a cgroup", source))?;
    let count = usize::try_from(attribute.program_count).unwrap_or(0).min(PROGRAM_LIMIT);
    ids[..count].iter().filter_map(|id| open_by_id(*id).transpose()).collect()
}

fn open_by_id(id: u32) -> Result<Option<OwnedFd>> {
    let attempt = || format!("open device program {id}");
    let attribute = IdAttribute { id, ..IdAttribute::default() };
    // SAFETY: the attribute holds numbers only, and the kernel reads `size_of_val` bytes of it.
    match unsafe {
        bpf(PROG_GET_FD_BY_ID, (&raw const attribute).cast_mut().cast(), size_of_val(&attribute))
    } {
        Ok(fd) => owned(fd, attempt).map(Some),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(source) => Err(Error::system(attempt(), source)),
    }
}

/// # Safety
/// `attribute` must be valid for the kernel's reads and writes of `size` bytes in the layout of `command`, and so must be
/// everything it points to.
unsafe fn bpf(command: c_long, attribute: *mut libc::c_void, size: usize) -> io::Result<c_long> {
    // SAFETY: the caller vouches for the attribute; bpf(2) touches no other memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attribute, size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(fd: c_long, attempt: impl Fn() -> String) -> Result<OwnedFd> {
    let fd = RawFd::try_from(fd)
        .map_err(|_| Error::system(attempt(), io::Error::from_raw_os_error(libc::EBADF)))?;
    // SAFETY: bpf(2) has just returned this descriptor (close-on-exec), so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

/// A descriptor as bpf(2) takes it; open descriptors are never negative.
fn number(fd: RawFd) -> u32 {
    u32::try_from(fd).unwrap_or(u32::MAX)
}
