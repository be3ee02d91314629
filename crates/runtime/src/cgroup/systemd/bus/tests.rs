use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;

use super::*;

const DAEMON: Method<'_> = Method {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
    member: "NameHasOwner",
};

/// Ends with the test, however that ends.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn calls_are_encoded_as_the_specification_says() {
    let method = Method { destination: "a.b", path: "/x", interface: "c.d", member: "M" };
    let mut writer = Writer::default();
    writer.text("hi");
    let bytes = encode_call(7, method, "s", &writer.finish()).unwrap();
    let mut expected = b"l\x01\x00\x01\x07\0\0\0\x07\0\0\0".to_vec();
    // Length of the fields, which start at byte 16 and are padded to eight between them.
    expected.extend(b"\x47\0\0\0");
    expected.extend(b"\x01\x01o\0\x02\0\0\0/x\0\0\0\0\0\0");
    expected.extend(b"\x02\x01s\0\x03\0\0\0c.d\0\0\0\0\0");
    expected.extend(b"\x03\x01s\0\x01\0\0\0M\0\0\0\0\0\0\0");
    expected.extend(b"\x06\x01s\0\x03\0\0\0a.b\0\0\0\0\0");
    expected.extend(b"\x08\x01g\0\x01s\0\0");
    expected.extend(b"\x02\0\0\0hi\0");
    // The last field's padding belongs to the header, not to the array.
    assert_eq!(bytes[16..], expected[16..]);
    assert_eq!(bytes[..12], expected[..12]);
    assert_eq!(bytes[12], u8::try_from(16 * 4 + 7).unwrap());
}

#[test]
fn arrays_of_structures_are_aligned_after_their_length() {
    let mut writer = Writer::default();
    writer.variant(&Value::Pairs(vec![("a".to_owned(), "b".to_owned())]));
    let bytes = writer.finish();
    assert_eq!(bytes[..8], *b"\x05a(ss)\0\0");
    // The length is at 8, the first structure at 16: two strings of six bytes with two of padding between.
    assert_eq!(bytes[8..16], *b"\x0e\0\0\0\0\0\0\0");
    assert_eq!(bytes[16..], *b"\x01\0\0\0a\0\0\0\x01\0\0\0b\0");
}

#[test]
fn peers_that_refuse_or_babble_are_errors() {
    for answer in [&b"REJECTED EXTERNAL\r\n"[..], &[b'x'; 2048][..], b""] {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let peer = thread::spawn(move || {
            let mut dialogue = [0_u8; 64];
            let _ = theirs.read(&mut dialogue);
            let _ = theirs.write_all(answer);
        });
        assert!(Bus::authenticate(ours).is_err());
        peer.join().unwrap();
    }
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"l\x02\0\x01\xff\xff\xff\x7f\0\0\0\0\0\0\0\0").unwrap();
    let mut bus = Bus { stream: ours, serial: 0, signals: VecDeque::new() };
    assert!(bus.receive().is_err(), "a body of 2 GiB is not read");
}

#[test]
fn header_fields_that_lie_about_their_length_are_refused() {
    for fields in [&b"\x05\x01u\0"[..], b"\x03\x01s\0\xff\xff\xff\xff", b"\x03\xff", b"\x01\x01a\0"]
    {
        assert!(Message::default().read_fields(fields).is_none(), "{fields:?}");
    }
}

#[test]
fn a_real_bus_daemon_answers() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("bus");
    let configuration = directory.path().join("bus.conf");
    let text = format!(
        "<busconfig><type>session</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>\
         <policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/>\
         <allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>",
        socket.display()
    );
    std::fs::write(&configuration, text).unwrap();
    let daemon = Command::new("dbus-daemon")
        .arg(format!("--config-file={}", configuration.display()))
        .args(["--nofork", "--print-address"])
        .stdout(Stdio::piped())
        .spawn();
    let Ok(daemon) = daemon else {
        eprintln!("SKIPPED a_real_bus_daemon_answers: needs dbus-daemon");
        return;
    };
    let mut daemon = Daemon(daemon);
    // The address is printed once the socket listens.
    let mut address = String::new();
    BufReader::new(daemon.0.stdout.take().unwrap()).read_line(&mut address).unwrap();
    let mut bus = Bus::connect(&socket).unwrap();
    let mut writer = Writer::default();
    writer.text("org.freedesktop.DBus");
    let reply = bus.call(DAEMON, "s", &writer.finish()).unwrap();
    assert_eq!(reply.reader().number(), Some(1));
    let refused = bus.call(Method { member: "NoSuchMethod", ..DAEMON }, "", &[]);
    match refused.unwrap_err() {
        CallError::Refused { name, .. } => {
            assert_eq!(name, "org.freedesktop.DBus.Error.UnknownMethod");
        }
        CallError::Io(error) => panic!("{error}"),
    }
    // NameAcquired arrived with the answer to Hello.
    assert_eq!(bus.signal().unwrap().member, "NameAcquired");
}
