//! Cgroups made by systemd: against a peer that speaks D-Bus and does with scopes what systemd does. (Against systemd itself
//! the same goes on in a virtual machine.)

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use brig_runtime::{ErrorKind, Runtime};
use serde_json::json;

use crate::support::{Fixture, exec, shell};

/// A call that the peer got: its method and body.
type Call = (String, Vec<u8>);

/// A peer on a socket of the fixture; answers calls until the test ends.
struct Systemd {
    calls: Receiver<Call>,
    slice: String,
}

impl Systemd {
    fn start(fixture: &mut Fixture) -> Self {
        let socket = fixture.path("bus");
        let listener = UnixListener::bind(&socket).unwrap();
        let slice = format!("brigtest{}.slice", fixture.id.as_str().replace('-', "_"));
        let (sender, calls) = sync_channel(256);
        let place = PathBuf::from(&slice);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), &sender, &place);
            }
        });
        fixture.runtime =
            Runtime::new(fixture.path("state")).systemd_cgroup(true).systemd_bus(Some(socket));
        fixture.set("/linux/cgroupsPath", json!(format!("{slice}:brig:{}", fixture.id)));
        Self { calls, slice }
    }

    fn call(&self, member: &str) -> Vec<u8> {
        let found = self.calls.try_iter().find(|(called, _)| called == member);
        found.unwrap_or_else(|| panic!("{member} was not called")).1
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        for hierarchy in hierarchies() {
            let _ = std::fs::remove_dir(hierarchy.join(&self.slice));
        }
    }
}

fn hierarchies() -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let cgroups = table.lines().filter(|line| line.contains(" - cgroup"));
    cgroups.map(|line| PathBuf::from(line.split(' ').nth(4).unwrap())).collect()
}

/// One connection. What it says is cut short, as the client does not read it.
fn serve(mut stream: UnixStream, calls: &SyncSender<Call>, slice: &Path) {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"BEGIN\r\n") {
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        line.push(byte[0]);
        if line.ends_with(b"\r\n") && !line.ends_with(b"BEGIN\r\n") {
            stream.write_all(b"OK 00\r\n").unwrap();
            line.clear();
        }
    }
    let mut header = [0; 16];
    while stream.read_exact(&mut header).is_ok() {
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        let (body, serial, fields) = (word(4) as usize, word(8), word(12) as usize);
        let mut rest = vec![0; fields.next_multiple_of(8) + body];
        stream.read_exact(&mut rest).unwrap();
        let body = rest.split_off(fields.next_multiple_of(8));
        let member = member(&rest);
        let starts = member == "StartTransientUnit";
        if starts {
            place(&body, slice);
        }
        let has_job = starts || member == "StopUnit";
        let _ = calls.send((member, body));
        let job = if has_job { text("/job/7") } else { Vec::new() };
        stream.write_all(&message(2, Some(serial), None, "o", &job)).unwrap();
        if has_job {
            let mut body = 7_u32.to_le_bytes().to_vec();
            for part in ["/job/7", "unit", "done"] {
                body.resize(body.len().next_multiple_of(4), 0);
                body.extend(text(part));
            }
            stream.write_all(&message(4, None, Some("JobRemoved"), "uoss", &body)).unwrap();
        }
    }
}

/// The header field with code 3.
fn member(fields: &[u8]) -> String {
    let at = fields.windows(4).position(|window| window == b"\x03\x01s\0");
    let at = at.unwrap() + 4;
    let length = u32::from_le_bytes(fields[at..at + 4].try_into().unwrap()) as usize;
    String::from_utf8(fields[at + 4..at + 4 + length].to_vec()).unwrap()
}

fn text(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap();
    [&length.to_le_bytes(), text.as_bytes(), b"\0"].concat()
}

fn message(
    kind: u8,
    reply: Option<u32>,
    member: Option<&str>,
    signature: &str,
    body: &[u8],
) -> Vec<u8> {
    let mut fields = Vec::new();
    if let Some(serial) = reply {
        fields.extend(b"\x05\x01u\0");
        fields.extend(serial.to_le_bytes());
    }
    if let Some(member) = member {
        fields.extend(b"\x03\x01s\0");
        fields.extend(text(member));
        fields.resize(fields.len().next_multiple_of(8), 0);
    }
    if !body.is_empty() {
        fields.extend(b"\x08\x01g\0");
        fields.push(u8::try_from(signature.len()).unwrap());
        fields.extend(signature.as_bytes());
        fields.push(0);
    }
    let mut bytes = vec![b'l', kind, 0, 1];
    for number in [body.len(), 1, fields.len()] {
        bytes.extend(u32::try_from(number).unwrap().to_le_bytes());
    }
    bytes.extend(&fields);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend(body);
    bytes
}

/// The value of a property, after its name, the padding and the signature.
fn property<'a>(body: &'a [u8], name: &str, signature: &str) -> Option<&'a [u8]> {
    let name = text(name);
    let at = body.windows(name.len()).position(|window| window == name)? + name.len();
    let value = body.get(at + 1..at + 1 + signature.len())?;
    assert_eq!(value, signature.as_bytes());
    let after = at + signature.len() + 2;
    Some(&body[after..])
}

fn number(body: &[u8], name: &str) -> Option<u64> {
    let value = property(body, name, "t")?;
    let at = body.len() - value.len();
    let at = at.next_multiple_of(8);
    Some(u64::from_le_bytes(body[at..at + 8].try_into().unwrap()))
}

/// As systemd does it: a cgroup where it keeps track of units, with the process in it.
fn place(body: &[u8], slice: &Path) {
    let length = u32::from_le_bytes(body[..4].try_into().unwrap()) as usize;
    let unit = String::from_utf8(body[4..4 + length].to_vec()).unwrap();
    let value = property(body, "PIDs", "au").unwrap();
    let at = (body.len() - value.len()).next_multiple_of(4) + 4;
    let pid = u32::from_le_bytes(body[at..at + 4].try_into().unwrap());
    let tracked = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    let root = tracked.iter().map(Path::new).find(|path| path.join("cgroup.procs").exists());
    let directory = root.unwrap().join(slice).join(unit);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("cgroup.procs"), pid.to_string()).unwrap();
}

#[test]
fn a_scope_holds_the_container_and_is_stopped_with_it() {
    let Some(mut fixture) = Fixture::new("a_scope_holds_the_container_and_is_stopped_with_it")
    else {
        return;
    };
    let systemd = Systemd::start(&mut fixture);
    fixture.set("/linux/resources", json!({"pids": {"limit": 123}}));
    fixture.set("/annotations", json!({"org.systemd.property.TimeoutStopSec": "7"}));
    fixture.namespace("cgroup", None);
    fixture.push(
        "/mounts",
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["ro"]}),
    );
    fixture.set("/process/args", json!(["sleep", "1000"]));
    let created = fixture.start();
    let body = systemd.call("StartTransientUnit");
    let unit = format!("brig-{}.scope", fixture.id);
    assert!(body.starts_with(&text(&unit)));
    assert_eq!(number(&body, "TasksMax"), Some(123));
    assert_eq!(number(&body, "TimeoutStopUSec"), Some(7_000_000));
    let below = format!("{}/{unit}", systemd.slice);
    let own = std::fs::read_to_string(format!("/proc/{}/cgroup", created.pid)).unwrap();
    assert!(own.lines().all(|line| line.ends_with(&below)), "{own}");
    let output = exec(&created.container, &shell("cat /proc/self/cgroup; ls /sys/fs/cgroup"));
    let output = output.unwrap().stdout;
    assert!(output.lines().filter(|line| line.contains(':')).all(|line| line.ends_with(&below)));
    let resources = json!({"pids": {"limit": 99}});
    created.container.update(&serde_json::from_value(resources).unwrap()).unwrap();
    assert_eq!(number(&systemd.call("SetUnitProperties"), "TasksMax"), Some(99));
    created.container.delete(true).unwrap();
    assert!(systemd.call("StopUnit").starts_with(&text(&unit)));
    for hierarchy in hierarchies() {
        assert!(!hierarchy.join(&below).exists(), "{}", hierarchy.display());
    }
}

#[test]
fn a_container_that_fails_stops_its_scope() {
    let Some(mut fixture) = Fixture::new("a_container_that_fails_stops_its_scope") else { return };
    let systemd = Systemd::start(&mut fixture);
    fixture.set("/process/args", json!(["no-such-program"]));
    fixture.run().unwrap_err();
    systemd.call("StopUnit");
    assert!(fixture.runtime.container(&fixture.id).is_err());
}

#[test]
fn paths_and_annotations_that_systemd_cannot_take_are_refused() {
    let test = "paths_and_annotations_that_systemd_cannot_take_are_refused";
    let Some(mut fixture) = Fixture::new(test) else { return };
    let _systemd = Systemd::start(&mut fixture);
    fixture.set("/annotations", json!({"org.systemd.property.Slice": "'system.slice'"}));
    let error = fixture.run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{}", error.chain());
    fixture.set("/annotations", json!({}));
    fixture.set("/linux/cgroupsPath", json!("/a/plain/path"));
    let error = fixture.run().unwrap_err();
    assert!(error.chain().contains("slice:prefix:name"), "{}", error.chain());
}
