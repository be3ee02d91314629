//! The same command lines for Debian's runc and for this program: exit codes and the shape of what is printed.
//!
//! What differs on purpose is said in the table, by name, and printed; a difference that is not said fails, and so does
//! one that is said and is none.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::bundle::{Bundle, PROGRAM};
use crate::text;

/// Where Debian puts it.
const RUNC: &str = "/usr/sbin/runc";

/// One command line; `ID` and `DIR` stand for the container's id and the bundle.
struct Case {
    line: &'static str,
    /// Why the two differ.
    meant: Option<&'static str>,
}

const fn same(line: &'static str) -> Case {
    Case { line, meant: None }
}

const fn differs(line: &'static str, why: &'static str) -> Case {
    Case { line, meant: Some(why) }
}

/// In order: later lines find what earlier ones left.
const CASES: &[Case] = &[
    same(""),
    same("--help"),
    same("help"),
    same("-v"),
    same("frobnicate"),
    same("--frobnicate"),
    same("--log-format xml list"),
    differs("--rootless maybe list", "a value that means nothing is refused"),
    same("--rootless true list"),
    same("--rootless false list"),
    same("--rootless auto list"),
    same("state"),
    same("state x y"),
    same("state a/b"),
    same("state no-such"),
    same("start"),
    same("start no-such"),
    same("kill no-such"),
    same("delete no-such"),
    same("delete --force no-such"),
    same("delete -f no-such"),
    same("pause no-such"),
    same("resume no-such"),
    same("events no-such"),
    same("update no-such"),
    same("ps no-such"),
    same("exec no-such true"),
    same("exec"),
    same("run"),
    same("create"),
    same("create --frobnicate ID"),
    same("features frobnicate"),
    same("spec --bundle /no-such"),
    same("list frobnicate"),
    same("list --format xml"),
    same("list"),
    same("list --quiet"),
    differs("list --format json", "no container is [] rather than null"),
    same("create --bundle /no-such ID"),
    same("create --bundle DIR --preserve-fds 50 ID"),
    same("create --bundle DIR --console-socket /no-such ID"),
    same("create --bundle DIR --pid-file DIR/pid --no-new-keyring ID"),
    same("create --bundle DIR ID"),
    same("state ID"),
    same("pause ID"),
    same("resume ID"),
    same("start ID"),
    same("start ID"),
    same("state ID"),
    same("list"),
    same("list -q"),
    same("list -f json"),
    same("ps ID"),
    same("ps ID -o pid,comm"),
    same("ps --format json ID"),
    same("ps --format xml ID"),
    differs("events --stats ID", "pressure and cgroup2's huge pages, as runc has them since 1.2"),
    same("events --interval 0s ID"),
    same("exec ID true"),
    same("exec ID sh -c 'exit 7'"),
    same("exec ID sh -c 'kill -9 $$'"),
    same("exec ID no-such"),
    same("exec ID /"),
    same("exec ID"),
    same("exec --user 12:34 ID sh -c 'id -u; id -g'"),
    same("exec --user nobody ID true"),
    same("exec --additional-gids 7 ID sh -c 'id -G'"),
    same("exec --env A=b ID sh -c 'echo $A'"),
    same("exec --cwd /proc ID pwd"),
    same("exec --cwd relative ID true"),
    same("exec --no-new-privs ID true"),
    same("exec --cap CAP_NET_ADMIN ID true"),
    same("exec --cap CAP_FROBNICATE ID true"),
    same("exec --preserve-fds 50 ID true"),
    same("exec --process /no-such ID"),
    same("exec --tty --detach ID true"),
    same("exec --detach --pid-file DIR/exec.pid ID true"),
    same("exec --cgroup no-such ID true"),
    same("exec --ignore-paused ID true"),
    same("pause ID"),
    same("pause ID"),
    same("exec ID true"),
    same("state ID"),
    same("resume ID"),
    same("resume ID"),
    same("update --pids-limit 50 ID"),
    same("update --memory 64m --memory-swap 128m ID"),
    same("update --memory abc ID"),
    same("update --cpu-share abc ID"),
    same("update --cpu-period 100000 --cpu-quota 50000 ID"),
    same("update --cpuset-cpus 0 ID"),
    same("update --resources /no-such ID"),
    same("update --l3-cache-schema L3:0=f ID"),
    same("kill ID FROBNICATE"),
    same("kill ID 0"),
    same("kill --all ID 0"),
    same("delete ID"),
    same("delete --force ID"),
    same("state ID"),
    same("run --bundle DIR --detach --keep ID"),
    same("kill ID KILL"),
    same("delete --force ID"),
];

/// The same for a caller who is not root, on the bundle of `spec --rootless`.
const ROOTLESS_CASES: &[Case] = &[
    same("list"),
    same("state no-such"),
    same("run --bundle DIR --detach ID"),
    same("run --bundle DIR --detach ID"),
    same("state ID"),
    same("list"),
    differs("ps ID", "the processes of a PID namespace are known without a cgroup"),
    differs("events --stats ID", "what has no cgroup has no statistics, rather than zeros"),
    same("exec ID true"),
    same("exec ID sh -c 'exit 7'"),
    same("exec ID sh -c 'id -u; id -g'"),
    same("exec --user 12:34 ID true"),
    same("exec --additional-gids 7 ID true"),
    same("pause ID"),
    same("update --pids-limit 50 ID"),
    same("kill ID 0"),
    differs("kill --all ID 0", "the processes of a PID namespace are known without a cgroup"),
    same("delete ID"),
    same("kill ID KILL"),
    same("delete --force ID"),
    same("create --bundle DIR ID"),
    same("state ID"),
    same("start ID"),
    same("delete --force ID"),
    same("list"),
];

/// Keys that Debian's runc 1.1 does not print and runc 1.5 does, by where they are.
const NEWER: [&str; 1] = [".ociVersion"];

/// A runtime with a container of its own.
struct Peer {
    program: PathBuf,
    bundle: Bundle,
    root: PathBuf,
}

impl Peer {
    fn new(program: &str, bundle: Option<Bundle>) -> Option<Self> {
        let bundle = bundle?;
        bundle.edit(|config| config["process"]["args"] = serde_json::json!(["sleep", "1000"]));
        bundle.link(&["id", "pwd"]);
        let root = bundle.directory.join("state");
        Some(Self { program: program.into(), bundle, root })
    }

    fn call(&self, line: &str) -> Output {
        let words = words(line)
            .into_iter()
            .map(|word| word.replace("ID", &self.bundle.id).replace("DIR", &self.bundle.path()));
        // A command that hangs is killed and differs, rather than keeping everything waiting.
        let mut command = self.bundle.called(Path::new("timeout"));
        command
            .args(["--signal=KILL", "20"])
            .arg(&self.program)
            .arg("--root")
            .arg(&self.root)
            .args(words)
            .stdin(Stdio::null());
        // A detached container keeps what it gets: files end, pipes would not.
        let file = |name: &str| std::fs::File::create(self.bundle.directory.join(name)).unwrap();
        command.stdout(file("stdout")).stderr(file("stderr"));
        let status = command.status().unwrap();
        let read = |name: &str| std::fs::read(self.bundle.directory.join(name)).unwrap();
        let stdout = text(&read("stdout")).replace(&self.bundle.id, "ID").into_bytes();
        Output { status, stdout, stderr: read("stderr") }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let line = format!("delete --force {}", self.bundle.id);
        self.call(&line);
    }
}

/// Words of a line, of which one in single quotes may have spaces.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        match index % 2 {
            0 => words.extend(part.split_whitespace().map(ToOwned::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}

/// What programs rely on: names of JSON, the columns of a table, or the text itself where it is the container's.
fn shape(line: &str, output: &Output) -> BTreeSet<String> {
    let printed = text(&output.stdout);
    // runc shows the whole help with a mistake; here one line says what is wrong, on standard error.
    let help = line.is_empty() || line.contains("help") || line == "-v";
    if !output.status.success() || help {
        return BTreeSet::new();
    }
    if let Ok(value) = serde_json::from_str::<Value>(&printed) {
        let mut names = BTreeSet::new();
        keys(&value, "", &mut names);
        return names;
    }
    if line.starts_with("list") || line.starts_with("ps") {
        let columns = printed.lines().next().unwrap_or_default().split_whitespace();
        let count = format!("{} lines", printed.lines().count());
        return columns.map(ToOwned::to_owned).chain([count]).collect();
    }
    printed.lines().map(ToOwned::to_owned).collect()
}

fn keys(value: &Value, path: &str, names: &mut BTreeSet<String>) {
    match value {
        // The kernel's own names, which come and go with what happens.
        Value::Object(_) if path.ends_with(".raw") => drop(names.insert(path.to_owned())),
        Value::Object(map) if !map.is_empty() => {
            map.iter().for_each(|(key, value)| keys(value, &format!("{path}.{key}"), names));
        }
        Value::Array(values) if !values.is_empty() => {
            values.iter().for_each(|value| keys(value, &format!("{path}[]"), names));
        }
        Value::Null => drop(names.insert(format!("{path}: null"))),
        Value::String(_) => drop(names.insert(format!("{path}: text"))),
        Value::Number(_) => drop(names.insert(format!("{path}: number"))),
        Value::Bool(_) => drop(names.insert(format!("{path}: switch"))),
        _ => drop(names.insert(format!("{path}: nothing"))),
    }
}

/// Counters that were zero for one of the two only.
fn is_counter(name: &str) -> bool {
    let name = name.trim_end_matches(": number");
    ["usage", "max", "value", "cache", "total", "percpu[]", "percpu_user[]", "percpu_kernel[]"]
        .iter()
        .any(|counter| name.ends_with(&format!(".{counter}")))
        || name.contains(".throttling.")
        || name.contains(".blkio")
        || name.ends_with(".throttling: nothing")
}

fn difference(line: &str, runc: &Output, ours: &Output) -> Option<String> {
    let codes = (runc.status.code(), ours.status.code());
    if codes.0 != codes.1 {
        return Some(format!("exit codes {codes:?}"));
    }
    let (theirs, ours) = (shape(line, runc), shape(line, ours));
    let differing: Vec<_> = theirs
        .symmetric_difference(&ours)
        .filter(|name| !is_counter(name) && !NEWER.contains(&name.as_str()))
        .collect();
    (!differing.is_empty()).then(|| format!("printed: {differing:?}"))
}

#[test]
fn command_lines_are_runcs() {
    let test = "command_lines_are_runcs";
    if !has_runc(test) {
        return;
    }
    let runc = Peer::new(RUNC, Bundle::new(&format!("{test}-theirs")));
    let ours = Peer::new(PROGRAM, Bundle::new(&format!("{test}-ours")));
    let (Some(runc), Some(ours)) = (runc, ours) else { return };
    compare(&runc, &ours, CASES);
}

#[test]
fn command_lines_of_a_user_are_runcs() {
    let test = "command_lines_of_a_user_are_runcs";
    if !has_runc(test) {
        return;
    }
    let theirs = Bundle::rootless(&format!("{test}-theirs"));
    let ours = Bundle::rootless(&format!("{test}-ours"));
    let (Some(theirs), Some(ours)) = (theirs, ours) else { return };
    let program = ours.directory.join("brig-runtime").display().to_string();
    let (runc, ours) = (Peer::new(RUNC, Some(theirs)), Peer::new(&program, Some(ours)));
    let (Some(runc), Some(ours)) = (runc, ours) else { return };
    compare(&runc, &ours, ROOTLESS_CASES);
}

fn has_runc(test: &str) -> bool {
    let there = Path::new(RUNC).exists();
    if !there {
        eprintln!("SKIPPED {test}: needs {RUNC} (Debian's runc)");
    }
    there
}

fn compare(runc: &Peer, ours: &Peer, cases: &[Case]) {
    let mut wrong = Vec::new();
    for Case { line, meant } in cases {
        let (theirs, own) = (runc.call(line), ours.call(line));
        match (difference(line, &theirs, &own), meant) {
            (None, None) => {}
            (Some(what), Some(why)) => eprintln!("meant: {line:?}: {why} ({what})"),
            (None, Some(why)) => wrong.push(format!("{line:?} does not differ: {why}")),
            (Some(what), None) => wrong.push(format!(
                "{line:?}: {what}\n  runc: {}{}\n  ours: {}{}",
                text(&theirs.stdout),
                text(&theirs.stderr),
                text(&own.stdout),
                text(&own.stderr)
            )),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Flags of a help text, in long form.
fn flags(help: &str) -> BTreeSet<String> {
    help.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .filter(|word| word.starts_with("--") && word.len() > 2)
        .map(ToOwned::to_owned)
        .collect()
}

#[test]
fn every_flag_of_runc_is_in_the_help_and_understood() {
    if !Path::new(RUNC).exists() {
        eprintln!("SKIPPED every_flag_of_runc_is_in_the_help_and_understood: needs {RUNC}");
        return;
    }
    let help = |program: &str, command: &str| {
        let output = Command::new(program).args([command, "--help"]).output().unwrap();
        assert!(output.status.success(), "{program} {command}: {output:?}");
        text(&output.stdout)
    };
    for command in [
        "create", "delete", "events", "exec", "features", "kill", "list", "pause", "ps", "resume",
        "run", "spec", "start", "state", "update",
    ] {
        let (theirs, ours) = (flags(&help(RUNC, command)), flags(&help(PROGRAM, command)));
        let examples = BTreeSet::from(["--rootless".to_owned(), "--help".to_owned()]);
        let missing: Vec<_> = theirs.difference(&ours).filter(|f| !examples.contains(*f)).collect();
        // `--help` of list and spec mention flags of the program itself.
        let missing: Vec<_> = missing.into_iter().filter(|flag| *flag != "--root").collect();
        assert!(missing.is_empty(), "{command}: {missing:?}");
        for flag in ours {
            // Switches take this value, other flags too; only what is unknown is called invalid.
            let directory = tempfile::tempdir().unwrap();
            let mut with_flag = Command::new(PROGRAM);
            with_flag.args([command, &format!("{flag}=1")]).current_dir(&directory);
            let errors = text(&with_flag.output().unwrap().stderr);
            assert!(!errors.contains("invalid option"), "{command} {flag}: {errors}");
        }
    }
}
