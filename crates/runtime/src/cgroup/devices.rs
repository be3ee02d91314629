//! Which devices a container may use: the ordered rules of the specification, on v1 lists or as an eBPF program.
//!
//! The rules are read in order and the last one that matches decides, for each of read, write and mknod. Everything is
//! denied before the first rule, and the devices that every container has (the specification's "default devices", plus
//! making any node, which gives no access) are allowed after the last.
//!
//! ```text
//! rules ─┬─ v1:          Exceptions (default + list) ── difference to devices.list ──▶ devices.allow / devices.deny
//!        └─ v2, hybrid:  program::compile ── bpf(2) ──▶ attached, or replacing the one that is attached
//! ```

mod program;

use std::collections::BTreeSet;
use std::fmt;
use std::os::fd::AsFd;

use brig_linux::bpf;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::Cgroup;
use super::directory::Directory;
use super::failure::{self, Result};

const FIELD: &str = "linux.resources.devices";

/// More rules than any real container has; a program stays far below the verifier's limit.
const RULE_LIMIT: usize = 4096;

/// Read, write and mknod, in the kernel's bits (`BPF_DEVCG_ACC_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Access(u8);

impl Access {
    const MKNOD: Self = Self(1);
    const READ: Self = Self(2);
    const WRITE: Self = Self(4);
    const ALL: Self = Self(7);
}

/// What kind of device a rule speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Block,
    Character,
}

/// A device, or several: `None` is every kind or number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Selector {
    kind: Option<Kind>,
    major: Option<u32>,
    minor: Option<u32>,
}

/// A rule that needs no further checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    allow: bool,
    selector: Selector,
    access: Access,
}

/// Makes the rules effective. The default devices are added here, so every caller gets them.
pub(super) fn set(cgroup: &Cgroup, rules: &[LinuxDeviceCgroup]) -> Result<()> {
    let rules = parse(rules)?;
    if let Some(directory) = cgroup.legacy_controller("devices") {
        return set_v1(directory, &rules);
    }
    match &cgroup.unified {
        Some(unified) => attach(&unified.directory, &rules),
        None => Err(failure::controller(FIELD, "devices")),
    }
}

/// The allowed devices as systemd's `DeviceAllow` says them, or `None` when everything not denied is allowed, which
/// systemd cannot say.
pub(super) fn systemd_list(rules: &[LinuxDeviceCgroup]) -> Result<Option<Vec<(String, String)>>> {
    let exceptions = Exceptions::from_rules(&parse(rules)?)?;
    if exceptions.allow_by_default {
        return Ok(None);
    }
    let devices = exceptions.list.iter().map(|(selector, access)| {
        let kind = if selector.kind == Some(Kind::Block) { "block" } else { "char" };
        let device = match (selector.major, selector.minor) {
            (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
            // A number instead of a name from /proc/devices: systemd 240.
            (Some(major), None) => format!("{kind}-{major}"),
            (None, _) => format!("{kind}-*"),
        };
        (device, access.to_string())
    });
    Ok(Some(devices.collect()))
}

/// The specification's rules followed by the default ones.
fn parse(rules: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>> {
    if rules.len() > RULE_LIMIT {
        return Err(failure::invalid(FIELD, rules.len(), "more than 4096 rules"));
    }
    let mut parsed = rules.iter().map(parse_rule).collect::<Result<Vec<_>>>()?;
    parsed.extend(default_rules());
    Ok(parsed)
}

fn parse_rule(rule: &LinuxDeviceCgroup) -> Result<Rule> {
    let invalid = |why| Err(failure::invalid(FIELD, Shown(rule), why));
    let number = |value: Option<i64>| -> Result<Option<u32>> {
        match value {
            None | Some(-1) => Ok(None),
            // Device numbers have 12 and 20 bits; the program compares with signed constants.
            Some(value) => match u32::try_from(value) {
                Ok(number) if number <= i32::MAX.unsigned_abs() => Ok(Some(number)),
                _ => Err(failure::invalid(FIELD, Shown(rule), "not a device number")),
            },
        }
    };
    let mut access = Access(0);
    for letter in rule.access().as_deref().unwrap_or("").chars() {
        access.0 |= match letter {
            'r' => Access::READ.0,
            'w' => Access::WRITE.0,
            'm' => Access::MKNOD.0,
            _ => return invalid("access is made of the letters r, w and m"),
        };
    }
    if access == Access(0) {
        access = Access::ALL;
    }
    let kind = match rule.typ().unwrap_or(LinuxDeviceType::A) {
        LinuxDeviceType::A => None,
        LinuxDeviceType::B => Some(Kind::Block),
        LinuxDeviceType::C | LinuxDeviceType::U => Some(Kind::Character),
        LinuxDeviceType::P => return invalid("FIFOs are not devices to a cgroup"),
    };
    let selector = Selector { kind, major: number(rule.major())?, minor: number(rule.minor())? };
    if kind.is_none() && (selector.major.is_some() || selector.minor.is_some()) {
        return invalid("a rule for all types takes no numbers; say b or c");
    }
    Ok(Rule { allow: rule.allow(), selector, access })
}

/// Every container's devices: making any node, null, zero, full, random, urandom, tty, ptmx and pseudo terminals.
fn default_rules() -> impl Iterator<Item = Rule> {
    let character = |major, minor| Selector { kind: Some(Kind::Character), major, minor };
    let any_block = Selector { kind: Some(Kind::Block), major: None, minor: None };
    let nodes = [character(None, None), any_block];
    let devices = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)]
        .map(|(major, minor)| character(Some(major), Some(minor)));
    let terminals = [character(Some(136), None)];
    let allow = |access| move |selector| Rule { allow: true, selector, access };
    nodes
        .into_iter()
        .map(allow(Access::MKNOD))
        .chain(devices.into_iter().chain(terminals).map(allow(Access::ALL)))
}

/// Attaches a program for the rules, in the place of the one that this cgroup has.
fn attach(directory: &Directory, rules: &[Rule]) -> Result<()> {
    let failed = |error| {
        let what = format!("set {FIELD} of {}", directory.path().display());
        crate::error::Error::from(error).context(what)
    };
    let program = bpf::load_device_program(&program::compile(rules)).map_err(failed)?;
    let old = bpf::attached_device_programs(directory.as_fd()).map_err(failed)?;
    match old.as_slice() {
        [only] => {
            let replaced = Some(only.as_fd());
            bpf::attach_device_program(directory.as_fd(), program.as_fd(), replaced).map_err(failed)
        }
        // All attached programs must agree, so adding the new one before the old ones go never allows too much.
        several => {
            bpf::attach_device_program(directory.as_fd(), program.as_fd(), None).map_err(failed)?;
            several.iter().try_for_each(|old| {
                bpf::detach_device_program(directory.as_fd(), old.as_fd()).map_err(failed)
            })
        }
    }
}

fn set_v1(directory: &Directory, rules: &[Rule]) -> Result<()> {
    let target = Exceptions::from_rules(rules)?;
    let current = Exceptions::parse_list(&directory.read("devices.list")?);
    for (file, line) in current.difference(&target) {
        directory.write(file, &line)?;
    }
    Ok(())
}

/// v1's model: one answer for all devices, and exceptions from it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Exceptions {
    allow_by_default: bool,
    list: BTreeSet<(Selector, Access)>,
}

impl Exceptions {
    /// Plays the rules. A rule against a device that a wider exception covers cannot be said in v1 and is refused: the
    /// kernel would silently keep the wider one.
    fn from_rules(rules: &[Rule]) -> Result<Self> {
        let mut state = Self { allow_by_default: false, list: BTreeSet::new() };
        for rule in rules {
            if rule.selector.kind.is_none() && rule.access == Access::ALL {
                state = Self { allow_by_default: rule.allow, list: BTreeSet::new() };
            } else if rule.selector.kind.is_none() {
                for kind in [Kind::Block, Kind::Character] {
                    let selector = Selector { kind: Some(kind), ..rule.selector };
                    state.play(Rule { selector, ..*rule })?;
                }
            } else {
                state.play(*rule)?;
            }
        }
        Ok(state)
    }

    fn play(&mut self, rule: Rule) -> Result<()> {
        if rule.allow == self.allow_by_default {
            return self.take_back(rule);
        }
        let bits = self.bits(rule.selector) | rule.access.0;
        self.replace(rule.selector, bits);
        Ok(())
    }

    /// Removes exceptions, the narrower ones that the rule covers included.
    fn take_back(&mut self, rule: Rule) -> Result<()> {
        let touched: Vec<_> = self
            .list
            .iter()
            .filter(|(selector, access)| {
                selector.overlaps(rule.selector) && access.0 & rule.access.0 != 0
            })
            .copied()
            .collect();
        for (selector, access) in touched {
            if !rule.selector.covers(selector) {
                let why = "cgroup v1 cannot except a device from a wider rule before it; \
                           list the devices of that rule one by one";
                return Err(failure::invalid(FIELD, rule, why));
            }
            self.replace(selector, access.0 & !rule.access.0);
        }
        Ok(())
    }

    fn bits(&self, selector: Selector) -> u8 {
        self.list.iter().filter(|(known, _)| *known == selector).fold(0, |bits, (_, a)| bits | a.0)
    }

    fn replace(&mut self, selector: Selector, bits: u8) {
        self.list.retain(|(known, _)| *known != selector);
        if bits != 0 {
            self.list.insert((selector, Access(bits)));
        }
    }

    /// Reads `devices.list`, which shows `a *:* rwm` for an allowing default (and then not its exceptions).
    fn parse_list(text: &str) -> Self {
        let mut state = Self { allow_by_default: false, list: BTreeSet::new() };
        for line in text.lines() {
            let mut fields = line.split([' ', ':']);
            let (Some(kind), Some(major), Some(minor), Some(access)) =
                (fields.next(), fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let kind = match kind {
                "b" => Kind::Block,
                "c" => Kind::Character,
                _ => {
                    state.allow_by_default = true;
                    continue;
                }
            };
            let bit = |letter, access: Access| if letter { access.0 } else { 0 };
            let bits = bit(access.contains('r'), Access::READ)
                | bit(access.contains('w'), Access::WRITE)
                | bit(access.contains('m'), Access::MKNOD);
            let selector =
                Selector { kind: Some(kind), major: major.parse().ok(), minor: minor.parse().ok() };
            state.replace(selector, bits);
        }
        state
    }

    /// The writes that lead from this state to `target`: additions before removals where both are exceptions that allow,
    /// so that a running container loses nothing it keeps.
    fn difference(&self, target: &Self) -> Vec<(&'static str, String)> {
        let (add, remove) = if target.allow_by_default {
            ("devices.deny", "devices.allow")
        } else {
            ("devices.allow", "devices.deny")
        };
        let mut writes = Vec::new();
        // An allowing default hides its exceptions in devices.list, so it is always set anew.
        let reset = self.allow_by_default || self.allow_by_default != target.allow_by_default;
        let empty = BTreeSet::new();
        let known = if reset {
            let file = if target.allow_by_default { "devices.allow" } else { "devices.deny" };
            writes.push((file, "a *:* rwm".to_owned()));
            &empty
        } else {
            &self.list
        };
        for (selector, access) in target.list.difference(known) {
            writes.push((add, line(*selector, *access)));
        }
        for (selector, access) in known.difference(&target.list) {
            let kept = target.bits(*selector);
            let gone = Access(access.0 & !kept);
            if gone.0 != 0 {
                writes.push((remove, line(*selector, gone)));
            }
        }
        writes
    }
}

impl Selector {
    /// Whether every device of `other` is one of this.
    fn covers(self, other: Self) -> bool {
        (self.kind.is_none() || self.kind == other.kind)
            && (self.major.is_none() || self.major == other.major)
            && (self.minor.is_none() || self.minor == other.minor)
    }

    /// Whether some device is one of both.
    fn overlaps(self, other: Self) -> bool {
        fn meet<T: PartialEq + Copy>(a: Option<T>, b: Option<T>) -> bool {
            a.is_none() || b.is_none() || a == b
        }
        meet(self.kind, other.kind)
            && meet(self.major, other.major)
            && meet(self.minor, other.minor)
    }
}

/// A line of `devices.allow`.
fn line(selector: Selector, access: Access) -> String {
    let kind = match selector.kind {
        None => 'a',
        Some(Kind::Block) => 'b',
        Some(Kind::Character) => 'c',
    };
    let number =
        |value: Option<u32>| value.map_or_else(|| "*".to_owned(), |value| value.to_string());
    format!("{kind} {}:{} {access}", number(selector.major), number(selector.minor))
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in [(Self::READ, "r"), (Self::WRITE, "w"), (Self::MKNOD, "m")] {
            if self.0 & bit.0 != 0 {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.allow { "allow" } else { "deny" };
        write!(f, "{verb} {}", line(self.selector, self.access))
    }
}

/// A rule of the specification as the reader wrote it.
struct Shown<'a>(&'a LinuxDeviceCgroup);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.0;
        let number =
            |value: Option<i64>| value.map_or_else(|| "*".to_owned(), |value| value.to_string());
        write!(
            f,
            "{} {} {}:{} {}",
            if rule.allow() { "allow" } else { "deny" },
            rule.typ().unwrap_or(LinuxDeviceType::A).as_str(),
            number(rule.major()),
            number(rule.minor()),
            rule.access().as_deref().unwrap_or("")
        )
    }
}

#[cfg(test)]
mod tests;
