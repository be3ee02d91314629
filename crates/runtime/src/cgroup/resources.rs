//! `linux.resources` of the runtime specification, handed to whichever version holds each controller.
//!
//! The small controllers (pids, hugetlb, rdma, `net_cls`, `net_prio`) and the `unified` map are here; memory, cpu, io and
//! devices have modules of their own.

use std::collections::BTreeMap;
use std::path::Path;

use oci_spec::runtime::{LinuxHugepageLimit, LinuxNetwork, LinuxPids, LinuxRdma, LinuxResources};

use super::directory::Directory;
use super::failure::{self, Result};
use super::{Cgroup, Located, cpu, devices, io, memory};

/// Longest value of the `unified` map, in bytes: the kernel takes at most a page.
const VALUE_LIMIT: usize = 4095;

/// Whether the cgroup is new or in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    /// A new cgroup: devices are denied unless listed.
    Create,
    /// A cgroup with processes: absent fields keep their value.
    Update,
}

/// Sets every limit that `resources` names. Returns warnings about settings that the kernel has made meaningless.
pub(super) fn apply(
    cgroup: &Cgroup,
    resources: &LinuxResources,
    occasion: Occasion,
) -> Result<Vec<String>> {
    let mut warnings = limit(cgroup, resources)?;
    warnings.extend(restrict_devices(cgroup, resources, occasion)?);
    Ok(warnings)
}

/// As [`apply`], of all but devices.
pub(super) fn limit(cgroup: &Cgroup, resources: &LinuxResources) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    if let Some(cpu) = resources.cpu() {
        cpu::set(cgroup, cpu)?;
    }
    if let Some(memory) = resources.memory() {
        memory::set(cgroup, memory, &mut warnings)?;
    }
    if let Some(pids) = resources.pids() {
        set_pids(cgroup, pids)?;
    }
    if let Some(block_io) = resources.block_io() {
        io::set(cgroup, block_io)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        set_hugepages(cgroup, limit)?;
    }
    for (device, limit) in resources.rdma().iter().flatten() {
        set_rdma(cgroup, device, limit)?;
    }
    if let Some(network) = resources.network() {
        set_network(cgroup, network)?;
    }
    // Last: the specification lets `unified` override what the typed fields said.
    if let Some(unified) = resources.unified() {
        set_unified(cgroup, unified.iter().collect())?;
    }
    Ok(warnings)
}

/// Says which devices may be used. Answers why that was not done for a caller who may not.
pub(super) fn restrict_devices(
    cgroup: &Cgroup,
    resources: &LinuxResources,
    occasion: Occasion,
) -> Result<Option<String>> {
    let set = match (resources.devices(), occasion) {
        (Some(rules), _) => devices::set(cgroup, rules),
        (None, Occasion::Create) => devices::set(cgroup, &[]),
        (None, Occasion::Update) => Ok(()),
    };
    match set {
        // The caller's own rights to devices are all that its containers have.
        Err(error) if cgroup.placement.unprivileged && occasion == Occasion::Create => {
            Ok(Some(error.chain()))
        }
        other => other.map(|()| None),
    }
}

/// Lets the cgroups along `relative` control what their parents can, down to the leaf's parent.
///
/// A controller that a level cannot pass on (processes live there, or a v1 hierarchy owns it) is skipped: it fails with
/// its name when a limit asks for it.
pub(super) fn delegate(mount: &Directory, relative: &Path) -> Result<()> {
    let mut below = None;
    let mut names = relative.iter().peekable();
    while let Some(name) = names.next() {
        let directory = below.as_ref().unwrap_or(mount);
        let available = directory.read("cgroup.controllers")?;
        let enabled = directory.read("cgroup.subtree_control")?;
        let missing: Vec<&str> = available
            .split_whitespace()
            .filter(|name| !enabled.split_whitespace().any(|enabled| enabled == *name))
            .collect();
        if !missing.is_empty() {
            let request = missing.iter().map(|name| format!("+{name}")).collect::<Vec<_>>();
            if directory.write("cgroup.subtree_control", &request.join(" ")).is_err() {
                for one in request {
                    drop(directory.write("cgroup.subtree_control", &one));
                }
            }
        }
        if names.peek().is_some() {
            below = Some(directory.make_child(name)?.0);
        }
    }
    Ok(())
}

fn set_pids(cgroup: &Cgroup, pids: &LinuxPids) -> Result<()> {
    let limit = match pids.limit() {
        // runc before 1.4 and docker leave 0 alone; a limit of no tasks at all could not hold the container's init.
        0 => return Ok(()),
        limit if limit < 0 => "max".to_owned(),
        limit => limit.to_string(),
    };
    let (Located::V1(directory) | Located::V2(directory)) =
        cgroup.require("linux.resources.pids", "pids", "pids")?;
    directory.write("pids.max", &limit)
}

fn set_hugepages(cgroup: &Cgroup, limit: &LinuxHugepageLimit) -> Result<()> {
    let field = "linux.resources.hugepageLimits";
    let size = limit.page_size();
    if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(failure::invalid(field, size, "not a huge page size such as 2MB"));
    }
    let (directory, plain, reserved) = match cgroup.require(field, "hugetlb", "hugetlb")? {
        Located::V1(directory) => (directory, "limit_in_bytes", "rsvd.limit_in_bytes"),
        Located::V2(directory) => (directory, "max", "rsvd.max"),
    };
    let value = limit.limit().to_string();
    directory.write(&format!("hugetlb.{size}.{plain}"), &value)?;
    // Reservations are charged apart from faults (kernel 5.7): without this limit an mmap succeeds that SIGBUSes later.
    directory.write_if_present(&format!("hugetlb.{size}.{reserved}"), &value)?;
    Ok(())
}

fn set_rdma(cgroup: &Cgroup, device: &str, limit: &LinuxRdma) -> Result<()> {
    let field = "linux.resources.rdma";
    if device.is_empty() || device.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(failure::invalid(field, device, "not an RDMA device name"));
    }
    let (Located::V1(directory) | Located::V2(directory)) =
        cgroup.require(field, "rdma", "rdma")?;
    let mut line = device.to_owned();
    if let Some(handles) = limit.hca_handles() {
        line += &format!(" hca_handle={handles}");
    }
    if let Some(objects) = limit.hca_objects() {
        line += &format!(" hca_object={objects}");
    }
    directory.write("rdma.max", &line)
}

/// `net_cls` and `net_prio` exist only as v1 controllers.
fn set_network(cgroup: &Cgroup, network: &LinuxNetwork) -> Result<()> {
    if let Some(class) = network.class_id().filter(|class| *class != 0) {
        let field = "linux.resources.network.classID";
        let directory = cgroup
            .legacy_controller("net_cls")
            .ok_or_else(|| failure::controller(field, "net_cls"))?;
        directory.write("net_cls.classid", &class.to_string())?;
    }
    for priority in network.priorities().iter().flatten() {
        let field = "linux.resources.network.priorities";
        let name = priority.name();
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(failure::invalid(field, name, "not an interface name"));
        }
        let directory = cgroup
            .legacy_controller("net_prio")
            .ok_or_else(|| failure::controller(field, "net_prio"))?;
        directory.write("net_prio.ifpriomap", &format!("{name} {}", priority.priority()))?;
    }
    Ok(())
}

/// Writes cgroup2 files by name. Keys are `controller.file` names in the container's own cgroup, nothing else.
fn set_unified(cgroup: &Cgroup, map: BTreeMap<&String, &String>) -> Result<()> {
    for (file, value) in map {
        let field = || format!("linux.resources.unified[{file:?}]");
        let Some(unified) = &cgroup.unified else {
            return Err(failure::unsupported(field(), "this host has only cgroup v1"));
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let Some((controller, _)) = file.split_once('.').filter(|_| file.chars().all(plain)) else {
            return Err(failure::invalid(field(), value, "the key is not a cgroup2 file name"));
        };
        if value.len() > VALUE_LIMIT {
            return Err(failure::invalid(field(), value.len(), "longer than 4095 bytes"));
        }
        let core = controller == "cgroup";
        if !core && !unified.controllers.iter().any(|name| name == controller) {
            let why = "its controller is not available to this cgroup in the cgroup2 hierarchy";
            return Err(failure::unsupported(field(), why));
        }
        unified.directory.write(file, value)?;
    }
    Ok(())
}
