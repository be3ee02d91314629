//! Transient scopes: on a host that systemd runs, the cgroup of a container may be systemd's to make.
//!
//! `linux.cgroupsPath` is then `slice:prefix:name`, and the container is `prefix-name.scope` in that slice. systemd starts
//! a scope around a process, so the order is: spawn the container's init, [`Scope::start`] with its process id, then
//! [`super::Cgroup::adopt`] for the limits that systemd has no property for and for hierarchies that it leaves alone.
//! What systemd knows about is also said to it as properties, or it would write its own values at the next
//! `daemon-reload`. The scope is delegated: everything below it is the container's.

mod annotations;
mod bus;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

pub(crate) use self::annotations::PREFIX as ANNOTATION_PREFIX;
use self::bus::{Bus, CallError, Method, Value, Writer};
use super::failure::{self, Result};
use super::{Mode, cpu, devices};
use crate::error::{Error, ErrorKind};
use crate::ranges;

const FIELD: &str = "linux.cgroupsPath";
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
/// systemd's own socket, for root on a host without a bus daemon.
const PRIVATE_SOCKET: &str = "/run/systemd/private";
/// Longest unit name that systemd accepts (`UNIT_NAME_MAX`).
const NAME_LIMIT: usize = 255;

/// A scope unit and the slice it lies in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    slice: String,
    unit: String,
    /// The bus to reach systemd by, instead of the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bus: Option<PathBuf>,
    /// Made by the user's own systemd.
    #[serde(default)]
    user: bool,
}

impl Scope {
    /// Reads `slice:prefix:name`; without a path it is `system.slice:brig:<id>`, or `user.slice:brig:<id>` for a caller
    /// without the host's privileges, whose own systemd is asked. `bus` is the socket to reach systemd by, where it is not
    /// the usual one.
    ///
    /// # Errors
    /// The path does not have three parts, or systemd would not accept the slice or the name.
    pub fn parse(cgroups_path: Option<&Path>, id: &str, bus: Option<&Path>) -> Result<Self> {
        Self::parse_for(cgroups_path, id, bus, own_user() != 0)
    }

    fn parse_for(
        cgroups_path: Option<&Path>,
        id: &str,
        bus: Option<&Path>,
        user: bool,
    ) -> Result<Self> {
        let text = match cgroups_path {
            None => String::new(),
            Some(path) => path.to_string_lossy().into_owned(),
        };
        let invalid = |why| Err(failure::invalid(FIELD, &text, why));
        let (slice, prefix, name) = if text.is_empty() {
            ("", "brig", id)
        } else {
            let parts: Vec<&str> = text.split(':').collect();
            match parts[..] {
                [slice, prefix, name] if !name.is_empty() => (slice, prefix, name),
                _ => return invalid("the systemd driver takes slice:prefix:name"),
            }
        };
        let slice = match slice {
            "" if user => "user.slice",
            "" => "system.slice",
            "-" => "-.slice",
            slice => slice,
        };
        if name.ends_with(".slice") {
            return invalid("a container is a scope; a name of a slice is for pods");
        }
        if expand_slice(slice).is_none() {
            return invalid("not the name of a systemd slice such as machine.slice");
        }
        let unit = match prefix {
            "" => format!("{name}.scope"),
            prefix => format!("{prefix}-{name}.scope"),
        };
        let plain =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.' | '\\');
        if unit.len() > NAME_LIMIT || !unit.chars().all(plain) {
            return invalid(
                "systemd does not accept the unit name; use letters, digits and :-_.\\",
            );
        }
        Ok(Self { slice: slice.to_owned(), unit, bus: bus.map(Path::to_owned), user })
    }

    /// The absolute cgroup path at which systemd makes the scope. A user's systemd is asked where its own tree lies.
    ///
    /// # Errors
    /// As [`Scope::start`].
    pub fn cgroup_path(&self) -> Result<PathBuf> {
        let below = Path::new(&expand_slice(&self.slice).unwrap_or_default()).join(&self.unit);
        if !self.user {
            return Ok(below);
        }
        let mut body = Writer::default();
        body.text("org.freedesktop.systemd1.Manager");
        body.text("ControlGroup");
        let get = Method { interface: "org.freedesktop.DBus.Properties", ..manager("Get") };
        let reply = self.connect()?.call(get, "ss", &body.finish());
        let reply = reply.map_err(|error| self.failed("find the place of", error))?;
        let mut reader = reply.reader();
        let root = match reader.signature().as_deref() {
            Some("s") => reader.text().unwrap_or_default(),
            _ => String::new(),
        };
        Ok(Path::new(&root).join(below.strip_prefix("/").unwrap_or(&below)))
    }

    /// The unit's name.
    #[must_use]
    pub fn unit(&self) -> &str {
        &self.unit
    }

    /// Starts the scope around a process and waits until systemd has moved it.
    ///
    /// # Errors
    /// systemd cannot be reached (`Unsupported` where it does not run), refuses, or the job does not succeed.
    pub fn start(
        &self,
        pid: Pid,
        mode: Mode,
        resources: &LinuxResources,
        annotations: &BTreeMap<String, String>,
    ) -> Result<()> {
        let properties = self.properties(pid, mode, resources, annotations)?;
        let mut bus = self.connect()?;
        self.watch_jobs(&mut bus)?;
        let job = match self.start_unit(&mut bus, &properties) {
            // A failed unit of that name from before stays loaded until it is reset.
            Err(CallError::Refused { name, .. })
                if name == "org.freedesktop.systemd1.UnitExists" =>
            {
                self.reset_failed(&mut bus)?;
                self.start_unit(&mut bus, &properties)
            }
            other => other,
        };
        let job = job.map_err(|error| self.failed("start", error))?;
        self.wait_for(&mut bus, &job)
    }

    /// Tells systemd changed limits, or it would set the old ones again when it next looks at the scope.
    ///
    /// # Errors
    /// As [`Scope::start`].
    pub fn update(&self, mode: Mode, resources: &LinuxResources) -> Result<()> {
        let limits = limits(mode, resources)?;
        if limits.is_empty() {
            return Ok(());
        }
        let mut body = Writer::default();
        body.text(&self.unit);
        // Until the unit ends; nothing is written to disk.
        body.number(1);
        put_properties(&mut body, &limits);
        self.connect()?
            .call(manager("SetUnitProperties"), "sba(sv)", &body.finish())
            .map(drop)
            .map_err(|error| self.failed("change the limits of", error))
    }

    /// Stops the scope, with whatever is still in it. A scope that is gone is success: systemd collects empty ones.
    ///
    /// # Errors
    /// As [`Scope::start`].
    pub fn stop(&self) -> Result<()> {
        let mut bus = self.connect()?;
        self.watch_jobs(&mut bus)?;
        let mut body = Writer::default();
        body.text(&self.unit);
        body.text("replace");
        match bus.call(manager("StopUnit"), "ss", &body.finish()) {
            Ok(reply) => {
                let job = reply.reader().text().unwrap_or_default();
                self.wait_for(&mut bus, &job)?;
            }
            Err(CallError::Refused { name, .. })
                if name == "org.freedesktop.systemd1.NoSuchUnit" => {}
            Err(error) => return Err(self.failed("stop", error)),
        }
        self.reset_failed(&mut bus)
    }

    fn connect(&self) -> Result<Bus> {
        let (bus, private) = match (&self.bus, self.user) {
            (Some(bus), _) => (bus.clone(), bus.clone()),
            (None, false) => (SYSTEM_BUS.into(), PathBuf::from(PRIVATE_SOCKET)),
            (None, true) => {
                let directory = PathBuf::from(format!("/run/user/{}", own_user()));
                (directory.join("bus"), directory.join("systemd/private"))
            }
        };
        Bus::connect(&bus).or_else(|error| {
            Bus::connect_peer(&private).map_err(|_| match error {
                CallError::Io(source) if source.kind() == io::ErrorKind::NotFound => {
                    let attempt = format!("reach systemd for {}", self.unit);
                    Error::new(ErrorKind::Unsupported, attempt)
                        .with_source(source)
                        .with_advice("this host is not run by systemd; use the cgroupfs driver")
                }
                error => self.failed("reach systemd for", error),
            })
        })
    }

    /// Asks for the signals of finished jobs. systemd's private socket has no bus to match signals and sends them anyway.
    fn watch_jobs(&self, bus: &mut Bus) -> Result<()> {
        let matching = Method {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member: "AddMatch",
        };
        let mut body = Writer::default();
        body.text("type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'");
        match bus.call(matching, "s", &body.finish()) {
            Ok(_) | Err(CallError::Refused { .. }) => {}
            Err(error) => return Err(self.failed("watch the jobs of", error)),
        }
        bus.call(manager("Subscribe"), "", &[])
            .map(drop)
            .map_err(|error| self.failed("watch the jobs of", error))
    }

    fn start_unit(
        &self,
        bus: &mut Bus,
        properties: &[(String, Value)],
    ) -> std::result::Result<String, CallError> {
        let mut body = Writer::default();
        body.text(&self.unit);
        body.text("replace");
        put_properties(&mut body, properties);
        // No auxiliary units.
        body.array(8, |_| {});
        let reply = bus.call(manager("StartTransientUnit"), "ssa(sv)a(sa(sv))", &body.finish())?;
        Ok(reply.reader().text().unwrap_or_default())
    }

    fn reset_failed(&self, bus: &mut Bus) -> Result<()> {
        let mut body = Writer::default();
        body.text(&self.unit);
        match bus.call(manager("ResetFailedUnit"), "s", &body.finish()) {
            // Not loaded, hence not failed.
            Ok(_) | Err(CallError::Refused { .. }) => Ok(()),
            Err(error) => Err(self.failed("reset", error)),
        }
    }

    /// `JobRemoved(u id, o job, s unit, s result)`.
    fn wait_for(&self, bus: &mut Bus, job: &str) -> Result<()> {
        loop {
            let signal =
                bus.signal().map_err(|source| self.failed("wait for", CallError::Io(source)))?;
            let mut body = signal.reader();
            let (_, path, _, result) = (body.number(), body.text(), body.text(), body.text());
            if signal.member != "JobRemoved" || path.as_deref() != Some(job) {
                continue;
            }
            return match result.as_deref() {
                Some("done") => Ok(()),
                result => {
                    let attempt = format!(
                        "start {}: systemd's job ended as `{}`",
                        self.unit,
                        result.unwrap_or("unknown")
                    );
                    Err(Error::new(ErrorKind::Io, attempt)
                        .with_advice("see journalctl for systemd's reason"))
                }
            };
        }
    }

    fn failed(&self, action: &str, error: CallError) -> Error {
        let attempt = format!("{action} {} through systemd", self.unit);
        match error {
            CallError::Io(source) => Error::system(attempt, source),
            CallError::Refused { name, text } => {
                let kind = match name.rsplit('.').next() {
                    Some("UnitExists") => ErrorKind::AlreadyExists,
                    Some("NoSuchUnit") => ErrorKind::NotFound,
                    Some("AccessDenied" | "InteractiveAuthorizationRequired") => ErrorKind::Denied,
                    Some("InvalidArgs" | "PropertyReadOnly") => ErrorKind::InvalidInput,
                    _ => ErrorKind::Io,
                };
                Error::new(kind, format!("{attempt}: {text} ({name})"))
            }
        }
    }

    /// systemd.resource-control(5), by the names of its D-Bus interface.
    fn properties(
        &self,
        pid: Pid,
        mode: Mode,
        resources: &LinuxResources,
        annotations: &BTreeMap<String, String>,
    ) -> Result<Vec<(String, Value)>> {
        let number = pid.as_raw_nonzero().get().unsigned_abs();
        let mut found = [
            ("Description", Value::Text(format!("brig container {}", self.unit))),
            ("Slice", Value::Text(self.slice.clone())),
            ("PIDs", Value::U32s(vec![number])),
            ("Delegate", Value::Bool(true)),
            // A scope whose last process failed goes too; its name may be used again.
            ("CollectMode", Value::Text("inactive-or-failed".to_owned())),
            // The container's own order of dying is the runtime's business.
            ("DefaultDependencies", Value::Bool(false)),
            ("MemoryAccounting", Value::Bool(true)),
            ("CPUAccounting", Value::Bool(true)),
            ("TasksAccounting", Value::Bool(true)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec();
        found.extend(limits(mode, resources)?);
        let rules = resources.devices().as_deref().unwrap_or_default();
        if let Some(allowed) = devices::systemd_list(rules)? {
            found.push(("DevicePolicy".to_owned(), Value::Text("strict".to_owned())));
            found.push(("DeviceAllow".to_owned(), Value::Pairs(allowed)));
        }
        for (name, value) in annotations::properties(annotations)? {
            // What follows from the configuration cannot be two things; the rest may be said otherwise.
            let limit = limits(mode, resources)?.iter().any(|(limit, _)| *limit == name);
            if limit {
                let text = format!("annotation for systemd's {name}: linux.resources says it too");
                return Err(Error::new(ErrorKind::InvalidInput, text));
            }
            found.retain(|(present, _)| *present != name);
            found.push((name, value));
        }
        Ok(found)
    }
}

/// What systemd has properties for.
fn limits(mode: Mode, resources: &LinuxResources) -> Result<Vec<(String, Value)>> {
    let mut found = Vec::new();
    let unlimited = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    if let Some(memory) = resources.memory() {
        if let Some(limit) = memory.limit().filter(|limit| *limit != 0) {
            let name = if mode == Mode::V2 { "MemoryMax" } else { "MemoryLimit" };
            found.push((name, Value::U64(unlimited(limit))));
        }
        let low = memory.reservation().filter(|low| *low != 0 && mode == Mode::V2);
        found.extend(low.map(|low| ("MemoryLow", Value::U64(unlimited(low)))));
        if let (Mode::V2, Some(swap), Some(limit)) = (mode, memory.swap(), memory.limit())
            && swap != 0
            && limit > 0
        {
            let alone = if swap < 0 { u64::MAX } else { unlimited((swap - limit).max(0)) };
            found.push(("MemorySwapMax", Value::U64(alone)));
        }
    }
    if let Some(cpu) = resources.cpu() {
        if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
            found.push(match mode {
                Mode::V2 => ("CPUWeight", Value::U64(cpu::weight_from_shares(shares))),
                Mode::V1 | Mode::Hybrid => ("CPUShares", Value::U64(shares)),
            });
        }
        if let Some(quota) = cpu.quota().filter(|quota| *quota != 0) {
            let period = cpu.period().filter(|period| *period != 0).unwrap_or(100_000);
            found.push(("CPUQuotaPeriodUSec", Value::U64(period)));
            found.push(("CPUQuotaPerSecUSec", Value::U64(quota_per_second(quota, period))));
        }
        let sets = [("AllowedCPUs", cpu.cpus()), ("AllowedMemoryNodes", cpu.mems())];
        for (name, list) in sets {
            if let (Mode::V2, Some(list)) = (mode, list.as_deref().filter(|l| !l.is_empty())) {
                found.push((name, Value::Bytes(bitmap(list)?)));
            }
        }
    }
    if let Some(limit) = resources.pids().as_ref().map(oci_spec::runtime::LinuxPids::limit)
        && limit != 0
    {
        found.push(("TasksMax", Value::U64(unlimited(limit))));
    }
    Ok(found.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn put_properties(body: &mut Writer, properties: &[(String, Value)]) {
    body.array(8, |body| {
        for (name, value) in properties {
            body.align(8);
            body.text(name);
            body.variant(value);
        }
    });
}

/// The caller's user as the host numbers it, from inside a user namespace too: that is whom a bus believes.
fn own_user() -> u32 {
    let user = rustix::process::geteuid().as_raw();
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let outside = map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let (inside, outside) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        let length = numbers.next()?.ok()?;
        let offset = user.checked_sub(inside).filter(|offset| *offset < length)?;
        outside.checked_add(offset)
    });
    outside.unwrap_or(user)
}

fn manager(member: &str) -> Method<'_> {
    Method {
        destination: "org.freedesktop.systemd1",
        path: "/org/freedesktop/systemd1",
        interface: "org.freedesktop.systemd1.Manager",
        member,
    }
}

/// `a-b.slice` lies in `a.slice`: systemd.slice(5). `None` for names that systemd refuses.
fn expand_slice(slice: &str) -> Option<String> {
    let name = slice.strip_suffix(".slice")?;
    if name == "-" {
        return Some("/".to_owned());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.' | '\\');
    if slice.len() > NAME_LIMIT || !name.chars().all(plain) || name.split('-').any(str::is_empty) {
        return None;
    }
    let mut path = String::new();
    let mut prefix = String::new();
    for part in name.split('-') {
        prefix += part;
        path += &format!("/{prefix}.slice");
        prefix.push('-');
    }
    Some(path)
}

/// Microseconds of CPU in each second, rounded up to systemd's ten milliseconds; all ones for no limit.
fn quota_per_second(quota: i64, period: u64) -> u64 {
    const STEP: u64 = 10_000;
    match u64::try_from(quota) {
        Err(_) => u64::MAX,
        Ok(quota) => {
            let exact = u128::from(quota) * 1_000_000 / u128::from(period.max(1));
            u64::try_from(exact).unwrap_or(u64::MAX - STEP).next_multiple_of(STEP)
        }
    }
}

/// `0-2,5` as the bitmap that systemd takes.
fn bitmap(list: &str) -> Result<Vec<u8>> {
    /// The kernel's own limit (`CONFIG_NR_CPUS`).
    const NUMBER_LIMIT: usize = 8192;
    ranges::bitmap(list, NUMBER_LIMIT)
        .ok_or_else(|| failure::invalid("linux.resources.cpu", list, "not a list such as 0-2,5"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_a_slice_a_prefix_and_a_name() {
        let cases = [
            (None, "/system.slice/brig-abc.scope"),
            (Some("machine.slice:libpod:abc"), "/machine.slice/libpod-abc.scope"),
            (Some(":cri:abc"), "/system.slice/cri-abc.scope"),
            (Some("-.slice::abc"), "/abc.scope"),
            (Some("-:x:abc"), "/x-abc.scope"),
            (
                Some("kubepods-besteffort-pod1.slice:cri:abc"),
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/cri-abc.scope",
            ),
        ];
        for (path, expected) in cases {
            let scope = Scope::parse_for(path.map(Path::new), "abc", None, false).unwrap();
            assert_eq!(scope.cgroup_path().unwrap(), Path::new(expected));
        }
    }

    #[test]
    fn paths_that_systemd_would_not_take_are_refused() {
        let long = format!("a.slice:b:{}", "c".repeat(256));
        for path in [
            "/a/b",
            "a:b:c",
            "a.slice:b",
            "a.slice:b:",
            "a.slice:b:c.slice",
            "a--b.slice:c:d",
            "../a.slice:b:c",
            "a.slice:b:c/d",
            "a.slice:b:c\nExecStart=x",
            "-a.slice:b:c",
            &long,
        ] {
            let error = Scope::parse(Some(Path::new(path)), "abc", None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{path}");
        }
    }

    #[test]
    fn limits_are_said_in_systemds_terms() {
        let resources: LinuxResources = serde_json::from_value(serde_json::json!({
            "memory": {"limit": 1000, "swap": 1500, "reservation": 500},
            "cpu": {"shares": 1024, "quota": 50_000, "period": 100_000, "cpus": "0-1,8"},
            "pids": {"limit": 7}
        }))
        .unwrap();
        let scope = Scope::parse_for(None, "abc", None, false).unwrap();
        let pid = Pid::from_raw(42).unwrap();
        let found = scope.properties(pid, Mode::V2, &resources, &BTreeMap::new()).unwrap();
        let value = |name: &str| found.iter().find(|(n, _)| n == name).map(|(_, value)| value);
        assert_eq!(value("PIDs"), Some(&Value::U32s(vec![42])));
        assert_eq!(value("MemoryMax"), Some(&Value::U64(1000)));
        assert_eq!(value("MemorySwapMax"), Some(&Value::U64(500)));
        assert_eq!(value("CPUWeight"), Some(&Value::U64(100)));
        assert_eq!(value("CPUQuotaPerSecUSec"), Some(&Value::U64(500_000)));
        assert_eq!(value("AllowedCPUs"), Some(&Value::Bytes(vec![3, 1])));
        assert_eq!(value("TasksMax"), Some(&Value::U64(7)));
        assert_eq!(value("DevicePolicy"), Some(&Value::Text("strict".to_owned())));
        let old = scope.properties(pid, Mode::V1, &resources, &BTreeMap::new()).unwrap();
        assert!(old.iter().any(|(name, _)| *name == "MemoryLimit"));
        assert!(old.iter().any(|(name, _)| *name == "CPUShares"));
        let annotation = |name: &str, value: &str| {
            let key = format!("org.systemd.property.{name}");
            let annotations = BTreeMap::from([(key, value.to_owned())]);
            scope.properties(pid, Mode::V2, &resources, &annotations)
        };
        let found = annotation("CollectMode", "'inactive'").unwrap();
        let modes: Vec<_> = found.iter().filter(|(name, _)| name == "CollectMode").collect();
        assert_eq!(modes.len(), 1);
        assert!(annotation("MemoryMax", "uint64 1").is_err());
    }

    #[test]
    fn a_host_without_systemd_is_told_so() {
        if Path::new(PRIVATE_SOCKET).exists() || Path::new(SYSTEM_BUS).exists() {
            eprintln!("SKIPPED a_host_without_systemd_is_told_so: systemd or a bus runs here");
            return;
        }
        let scope = Scope::parse_for(None, "abc", None, false).unwrap();
        assert_eq!(scope.stop().unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
