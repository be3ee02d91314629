//! The compiler against libseccomp, against a model of what a profile means, and against the kernel.
//!
//! Every verdict of ours must be the model's. libseccomp's must be the same, but for the [`Difference`]s, each of which has a
//! rule for what libseccomp answers instead, or says that libseccomp is at fault.

use std::collections::BTreeMap;
use std::io::{BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::rules::{RET_ALLOW, RET_ERRNO, RET_KILL_PROCESS, RET_TRAP, X32_BIT, takes_32_bits};
use super::tests::{I386, X86_64, verdict};
use super::*;

/// How many random profiles are compared, unless `BRIG_SECCOMP_PROFILES` says otherwise.
const PROFILES: u64 = 10_000;
const ENOSYS: u32 = RET_ERRNO | 38;
const EPERM: u32 = RET_ERRNO | 1;
/// Columns of the table of calls: the architecture of each, and what its numbers are marked with.
const COLUMNS: [(u32, usize, u32); 3] = [(X86_64, 0, 0), (I386, 1, 0), (X86_64, 2, X32_BIT)];
/// Arguments and what they are compared with.
const VALUES: [u64; 9] = [0, 1, 7, 9, 0xffff_ffff, 1 << 32, (1 << 32) | 7, (7 << 32) | 1, u64::MAX];
/// Numbers of calls that libseccomp 2.5 knows on some architectures only, or on none.
const RECENT: std::ops::Range<u32> = 450..512;
const OPERATORS: [&str; 7] = [
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
];
const MASKED: usize = 6;
const EQUAL: usize = 3;

/// A condition on an argument: its index, the operator's place in [`OPERATORS`], and two values.
#[derive(Clone, Copy, Debug)]
struct Condition {
    index: usize,
    operator: usize,
    value: u64,
    two: u64,
}

impl Condition {
    fn holds(self, argument: u64) -> bool {
        match self.operator {
            0 => argument != self.value,
            1 => argument < self.value,
            2 => argument <= self.value,
            EQUAL => argument == self.value,
            4 => argument >= self.value,
            5 => argument > self.value,
            _ => argument & self.value == self.two,
        }
    }

    /// The value that the argument is compared with.
    fn datum(self) -> u64 {
        if self.operator == MASKED { self.two } else { self.value }
    }
}

#[derive(Clone, Debug)]
struct Rule {
    name: String,
    /// What the filter returns.
    action: u32,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug)]
struct Profile {
    default: u32,
    rules: Vec<Rule>,
}

/// One call, on one architecture.
#[derive(Clone, Copy, Debug)]
struct Call {
    name: &'static str,
    column: usize,
    number: u32,
    args: [u64; 6],
}

/// Where libseccomp's verdict is another one than ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    /// The kernel takes the argument as 32 bits, and so do we; libseccomp compares 64.
    LowWord,
    /// A number above all that a denying profile names is ENOSYS, so that programs fall back; runc has libseccomp's filters
    /// patched for that.
    Newer,
    /// libseccomp 2.5 does not know the call, or cannot express it on this architecture, and leaves it to the default.
    UnknownToLibrary,
    /// libseccomp 2.5 at fault: inequalities go astray when a high word is set (mended in 2.6).
    InequalityOfHighWords,
    /// libseccomp 2.5 at fault: on i386 and x32 what is compared with loses its high word.
    TruncatedDatum,
    /// libseccomp has rules of its own for what i386 multiplexes.
    Multiplexed,
}

impl Profile {
    /// What the profile means. With `short`, arguments that the kernel takes as 32 bits are compared as such.
    fn verdict(&self, call: Call, short: bool) -> u32 {
        let mut found = None;
        for rule in self.rules.iter().filter(|rule| rule.name == call.name) {
            if rule.action == self.default {
                continue;
            }
            if rule.conditions.is_empty() {
                return rule.action;
            }
            let holds = |condition: &Condition| {
                let argument = call.args[condition.index];
                let short = short
                    && takes_32_bits(call.name, condition.index)
                    && condition.value.max(condition.datum()) <= u64::from(u32::MAX);
                condition.holds(if short { argument & 0xffff_ffff } else { argument })
            };
            if found.is_none() && rule.conditions.iter().all(holds) {
                found = Some(rule.action);
            }
        }
        found.unwrap_or(self.default)
    }

    /// The highest number that the profile names, by column.
    fn highest(&self) -> [Option<u32>; 3] {
        COLUMNS.map(|(_, column, bit)| {
            let rows = table::TABLE.iter();
            let named = rows.filter(|row| self.rules.iter().any(|rule| rule.name == row.0));
            named.filter_map(|row| u32::try_from(row.1[column]).ok()).max().map(|it| it | bit)
        })
    }

    fn to_runtime(&self) -> LinuxSeccomp {
        let action = |value: u32| match value {
            RET_ALLOW => ("SCMP_ACT_ALLOW", None),
            RET_TRAP => ("SCMP_ACT_TRAP", None),
            RET_KILL_PROCESS => ("SCMP_ACT_KILL_PROCESS", None),
            errno => ("SCMP_ACT_ERRNO", Some(errno & 0xffff)),
        };
        let condition = |it: &Condition| {
            serde_json::json!({"index": it.index, "value": it.value, "valueTwo": it.two,
                "op": OPERATORS[it.operator]})
        };
        let rule = |rule: &Rule| {
            let (action, errno) = action(rule.action);
            let args: Vec<_> = rule.conditions.iter().map(condition).collect();
            let mut json =
                serde_json::json!({"names": [rule.name], "action": action, "args": args});
            if let Some(errno) = errno {
                json["errnoRet"] = errno.into();
            }
            json
        };
        let rules: Vec<_> = self.rules.iter().map(rule).collect();
        serde_json::from_value(serde_json::json!({
            "defaultAction": action(self.default).0,
            "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"], "syscalls": rules
        }))
        .unwrap()
    }
}

/// libseccomp in a small C program that is asked again and again.
struct Oracle {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    _directory: tempfile::TempDir,
}

/// libseccomp's answer to one profile.
struct Answer {
    program: Vec<Instruction>,
    refused: Vec<String>,
}

impl Oracle {
    /// `None`, said aloud, where there is no compiler or library.
    fn start(test: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("oracle.c");
        std::fs::write(&source, include_str!("oracle.c")).unwrap();
        let program = directory.path().join("oracle");
        let mut build = Command::new("cc");
        build.arg("-o").args([&program, &source]).arg("-lseccomp").stderr(Stdio::null());
        if !build.status().is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED {test}: needs cc and libseccomp; install Debian's libseccomp-dev");
            return None;
        }
        let mut oracle = Command::new(&program);
        let mut child = oracle.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Some(Self { child, stdin, stdout, _directory: directory })
    }

    fn ask(&mut self, profile: &Profile) -> Answer {
        let mut text = format!("profile {}\n", profile.default);
        // As runc does, since libseccomp refuses them.
        let rules: Vec<_> =
            profile.rules.iter().filter(|rule| rule.action != profile.default).collect();
        for rule in &rules {
            text += &format!("rule {} {} {}", rule.name, rule.action, rule.conditions.len());
            for it in &rule.conditions {
                text += &format!(" {} {} {} {}", it.index, it.operator + 1, it.value, it.two);
            }
            text.push('\n');
        }
        text += "end\n";
        self.stdin.write_all(text.as_bytes()).unwrap();
        let count = self.number();
        let refused =
            (0..count).map(|_| rules[usize::try_from(self.number()).unwrap()].name.clone());
        let refused = refused.collect();
        let mut bytes = vec![0; usize::try_from(self.number()).unwrap()];
        self.stdout.read_exact(&mut bytes).unwrap();
        let program = bytes
            .chunks_exact(8)
            .map(|bytes| Instruction {
                code: u16::from_le_bytes([bytes[0], bytes[1]]),
                jump_true: bytes[2],
                jump_false: bytes[3],
                constant: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            })
            .collect();
        Answer { program, refused }
    }

    fn number(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.stdout.read_exact(&mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Compares the verdicts on `calls`, and counts where libseccomp's differ.
fn compare(
    profile: &Profile,
    theirs: &Answer,
    calls: impl Iterator<Item = Call>,
    seen: &mut BTreeMap<Difference, u64>,
) -> u64 {
    let ours = compile_for(&profile.to_runtime(), Architecture::X86_64).unwrap();
    let highest = profile.highest();
    let mut count = 0;
    for call in calls {
        let (arch, _, _) = COLUMNS[call.column];
        let beyond = highest[call.column].is_none_or(|highest| call.number > highest);
        let newer = beyond && profile.default != RET_ALLOW;
        let meant = if newer { ENOSYS } else { profile.verdict(call, true) };
        let got = verdict(ours.instructions(), arch, call.number, call.args);
        assert_eq!(got, meant, "ours on {call:?} under {profile:?}");
        let library = verdict(&theirs.program, arch, call.number, call.args);
        match difference(profile, theirs, call, newer) {
            None => assert_eq!(library, meant, "libseccomp's on {call:?} under {profile:?}"),
            Some(difference) => {
                let expected = match difference {
                    Difference::LowWord => profile.verdict(call, false),
                    Difference::Newer => profile.default,
                    Difference::UnknownToLibrary if library != meant => profile.default,
                    // Whatever its fault makes of it.
                    _ => library,
                };
                assert_eq!(library, expected, "{difference:?}: {call:?} under {profile:?}");
                *seen.entry(difference).or_default() += u64::from(library != meant);
            }
        }
        count += 1;
    }
    count
}

fn difference(profile: &Profile, theirs: &Answer, call: Call, newer: bool) -> Option<Difference> {
    let rules = profile.rules.iter().filter(|rule| rule.name == call.name);
    let conditions: Vec<_> = rules.flat_map(|rule| &rule.conditions).collect();
    let high = |value: u64| value > u64::from(u32::MAX);
    let argument = |it: &Condition| call.args[it.index];
    if call.column == 1 && ["socketcall", "ipc"].contains(&call.name) {
        return Some(Difference::Multiplexed);
    }
    if newer {
        return Some(Difference::Newer);
    }
    let recent = RECENT.contains(&(call.number & !X32_BIT));
    if recent || theirs.refused.iter().any(|name| name == call.name) {
        return Some(Difference::UnknownToLibrary);
    }
    let truncated = |it: &&Condition| high(it.value) || high(it.two);
    if call.column != 0 && conditions.iter().any(truncated) {
        return Some(Difference::TruncatedDatum);
    }
    let astray = |it: &&Condition| {
        ![EQUAL, MASKED].contains(&it.operator) && (high(argument(it)) || high(it.value))
    };
    if conditions.iter().any(astray) {
        return Some(Difference::InequalityOfHighWords);
    }
    let short = |it: &&Condition| high(argument(it)) && takes_32_bits(call.name, it.index);
    conditions.iter().any(short).then_some(Difference::LowWord)
}

/// Numbers that are the same on every run: a failure can be looked at again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap() % limit
    }

    fn value(&mut self) -> u64 {
        VALUES[self.below(VALUES.len())]
    }

    fn condition(&mut self, index: usize) -> Condition {
        let operator = self.below(OPERATORS.len());
        let (value, two) = (self.value(), self.value());
        // Under a mask only the masked bits of the value count; libseccomp insists on it.
        let two = if operator == MASKED { two & value } else { two };
        Condition { index, operator, value, two }
    }

    fn profile(&mut self, names: &[&'static str]) -> Profile {
        let default = if self.below(2) == 0 { RET_ALLOW } else { EPERM };
        let mut rules = Vec::new();
        // One rule for a call: the order among several is not libseccomp's to promise.
        for name in self.some(names, 16) {
            let errno = RET_ERRNO | u32::try_from(2 + self.below(40)).unwrap();
            let actions = [errno, errno, errno, RET_ALLOW, RET_TRAP, RET_KILL_PROCESS];
            let action = actions[self.below(actions.len())];
            let first = self.below(6);
            let count = self.below(3);
            let conditions = (0..count).map(|each| self.condition((first + each) % 6)).collect();
            rules.push(Rule { name: name.to_owned(), action, conditions });
        }
        Profile { default, rules }
    }

    /// Up to `count` different names, at least one.
    fn some(&mut self, names: &[&'static str], count: usize) -> Vec<&'static str> {
        let wanted = 1 + self.below(count);
        let mut found: Vec<_> = (0..wanted).map(|_| names[self.below(names.len())]).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Calls of the profile with all kinds of arguments, and some that it does not name, on every architecture.
    fn calls(&mut self, profile: &Profile) -> Vec<Call> {
        let others: Vec<_> = table::TABLE.iter().map(|row| row.0).collect();
        let others = self.some(&others, 6);
        let named = |row: &&(&'static str, _)| {
            others.contains(&row.0) || profile.rules.iter().any(|rule| rule.name == row.0)
        };
        let mut calls = Vec::new();
        for row in table::TABLE.iter().filter(named) {
            for (column, (_, place, bit)) in COLUMNS.into_iter().enumerate() {
                let Ok(number) = u32::try_from(row.1[place]) else { continue };
                for _ in 0..4 {
                    // To libseccomp, i386 and x32 have no high words.
                    let width = if column == 0 { u64::MAX } else { 0xffff_ffff };
                    let args = [0; 6].map(|_: u64| self.value() & width);
                    calls.push(Call { name: row.0, column, number: number | bit, args });
                }
            }
        }
        calls
    }
}

/// Calls that every architecture has, to libseccomp too, which in 2.5 forgets to load the number when only x86-64 has the first call.
fn names_everywhere() -> Vec<&'static str> {
    let known = |number: &i32| u32::try_from(*number).is_ok_and(|it| !RECENT.contains(&it));
    let rows = table::TABLE.iter().filter(|row| row.1[..3].iter().all(known));
    // Where an argument has 32 bits, comparing differs; those calls come up more often.
    let weight = |name| if (0..6).any(|index| takes_32_bits(name, index)) { 10 } else { 1 };
    rows.flat_map(|row| std::iter::repeat_n(row.0, weight(row.0))).collect()
}

#[test]
fn random_profiles_get_the_verdicts_of_libseccomp() {
    let Some(mut oracle) = Oracle::start("random_profiles_get_the_verdicts_of_libseccomp") else {
        return;
    };
    let names = names_everywhere();
    let asked = std::env::var("BRIG_SECCOMP_PROFILES").ok().and_then(|text| text.parse().ok());
    let profiles = asked.unwrap_or(PROFILES);
    let (mut seen, mut verdicts) = (BTreeMap::new(), 0);
    for number in 0..profiles {
        let mut random = Random(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let profile = random.profile(&names);
        let answer = oracle.ask(&profile);
        let calls = random.calls(&profile);
        verdicts += compare(&profile, &answer, calls.into_iter(), &mut seen);
    }
    eprintln!("{profiles} profiles, {verdicts} verdicts, differences: {seen:?}");
    for difference in [Difference::LowWord, Difference::Newer] {
        assert!(seen.contains_key(&difference), "{difference:?} was never met");
    }
}

/// Docker's default profile for a container without further capabilities, on every call that there is.
#[test]
fn the_default_profile_gets_the_verdicts_of_libseccomp() {
    let Some(mut oracle) = Oracle::start("the_default_profile_gets_the_verdicts_of_libseccomp")
    else {
        return;
    };
    let profile = default_profile();
    assert!(profile.rules.len() > 300, "{}", profile.rules.len());
    let answer = oracle.ask(&profile);
    let mut random = Random(1);
    let mut calls = Vec::new();
    for row in table::TABLE {
        for (column, (_, place, bit)) in COLUMNS.into_iter().enumerate() {
            let Ok(number) = u32::try_from(row.1[place]) else { continue };
            let call = |args| Call { name: row.0, column, number: number | bit, args };
            let width = if column == 0 { u64::MAX } else { 0xffff_ffff };
            let families = (0..48).chain([8, 0x20000, 0x20008, 0x1000_0000, 0x7e02_0000]);
            for value in families.chain(VALUES) {
                let mut args = [0; 6].map(|_: u64| random.value() & width);
                args[0] = value & width;
                calls.push(call(args));
                args[0] = (value | 1 << 32) & width;
                calls.push(call(args));
            }
        }
    }
    let mut seen = BTreeMap::new();
    let verdicts = compare(&profile, &answer, calls.into_iter(), &mut seen);
    eprintln!("{verdicts} verdicts, differences: {seen:?}");
    // A socket of a denied family, by its high word (SECURITY.md, R15).
    assert!(seen.contains_key(&Difference::LowWord), "{seen:?}");
}

fn default_profile() -> Profile {
    let text = include_str!("../../../../manager/src/container/default_seccomp.json");
    let json: serde_json::Value = serde_json::from_str(text).unwrap();
    let has = |rule: &serde_json::Value, pointer: &str, word: &str| {
        let list = rule.pointer(pointer).and_then(serde_json::Value::as_array);
        list.is_some_and(|list| list.iter().any(|it| it == word))
    };
    let mut rules = Vec::new();
    for rule in json["syscalls"].as_array().unwrap() {
        let arches =
            rule.pointer("/includes/arches").is_none() || has(rule, "/includes/arches", "amd64");
        if rule.pointer("/includes/caps").is_some() || !arches {
            continue;
        }
        let number = |value: &serde_json::Value| value.as_u64().unwrap_or(0);
        let condition = |arg: &serde_json::Value| Condition {
            index: usize::try_from(number(&arg["index"])).unwrap(),
            operator: OPERATORS.iter().position(|word| arg["op"] == *word).unwrap(),
            value: number(&arg["value"]),
            two: number(&arg["valueTwo"]),
        };
        let action = match rule["action"].as_str().unwrap() {
            "SCMP_ACT_ALLOW" => RET_ALLOW,
            _ => RET_ERRNO | u32::try_from(number(&rule["errnoRet"])).unwrap(),
        };
        for name in rule["names"].as_array().unwrap() {
            let conditions = rule["args"].as_array().into_iter().flatten().map(condition);
            let name = name.as_str().unwrap().to_owned();
            rules.push(Rule { name, action, conditions: conditions.collect() });
        }
    }
    Profile { default: EPERM, rules }
}

/// Calls that do nothing but answer, whatever their arguments are.
const HARMLESS: [&str; 7] = [
    "getpriority",
    "getpgid",
    "getsid",
    "sched_get_priority_max",
    "sched_get_priority_min",
    "sched_getscheduler",
    "sysfs",
];

/// The kernel's own verdicts: filters are installed and calls made. Error numbers that no call has tell which rule it was.
#[test]
fn the_kernel_gives_the_verdicts_that_are_meant() {
    const UNUSED_ERRNO: u32 = 1000;
    let mut calls = 0;
    for number in 1..=200 {
        let mut random = Random(number * 77);
        let mut profile = random.profile(&HARMLESS);
        profile.default = RET_ALLOW;
        for (place, rule) in profile.rules.iter_mut().enumerate() {
            rule.action = RET_ERRNO | (UNUSED_ERRNO + u32::try_from(place).unwrap());
        }
        let program = compile(&profile.to_runtime()).unwrap();
        let made = random.calls(&profile);
        let made: Vec<_> = made
            .into_iter()
            .filter(|call| call.column == 0 && HARMLESS.contains(&call.name))
            .collect();
        calls += made.len();
        // A filter without TSYNC binds its own thread, and ends with it.
        let answers = std::thread::spawn(move || {
            assert!(program.install().unwrap().is_none());
            made.into_iter().map(|call| (call, error_of(call))).collect::<Vec<_>>()
        });
        for (call, errno) in answers.join().unwrap() {
            let meant = profile.verdict(call, true);
            let got = if errno >= UNUSED_ERRNO { RET_ERRNO | errno } else { RET_ALLOW };
            assert_eq!(got, meant, "{call:?} under {profile:?}");
        }
    }
    assert!(calls > 1000, "{calls}");
}

/// Makes a call; answers its error number, or 0.
#[expect(unsafe_code, reason = "the safe wrappers take no arbitrary arguments")]
fn error_of(call: Call) -> u32 {
    let Call { number, args: [a, b, c, d, e, f], .. } = call;
    // SAFETY: the calls of HARMLESS only look at numbers; sysfs(2) copies a string from or to a pointer, of which none of
    // VALUES is one.
    let answer = unsafe { libc::syscall(number.into(), a, b, c, d, e, f) };
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    if answer == -1 { errno.unsigned_abs() } else { 0 }
}
