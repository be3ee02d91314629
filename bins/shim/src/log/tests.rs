use std::fs;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::*;

fn open(path: &Path, max_size_bytes: u64, max_files: u32, compress: bool) -> Log {
    let options = LogOptions {
        driver: "json-file".into(),
        path: path.to_str().unwrap().into(),
        max_size_bytes,
        max_files,
        compress,
        ..Default::default()
    };
    Log::open(&options).unwrap()
}

fn entries(bytes: &[u8]) -> Vec<(String, String)> {
    let text = std::str::from_utf8(bytes).unwrap();
    let parse = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap();
        let field = |name: &str| value[name].as_str().unwrap().to_owned();
        Timestamp::parse(&field("time")).unwrap();
        (field("stream"), field("log"))
    };
    text.lines().map(parse).collect()
}

fn joined(entries: &[(String, String)], stream: &str) -> String {
    entries.iter().filter(|entry| entry.0 == stream).map(|entry| &*entry.1).collect()
}

#[test]
fn streams_are_split_into_lines_and_joined_exactly() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut log = open(&path, 0, 1, false);
    let now = Timestamp::now();
    log.write(Stream::Stdout, b"one\ntw", now);
    log.write(Stream::Stderr, b"error \"quoted\" \\ \x01\t\r\n", now);
    log.write(Stream::Stdout, b"o\n\nlast", now);
    log.finish(Stream::Stdout, now);
    log.finish(Stream::Stderr, now);
    let entries = entries(&fs::read(&path).unwrap());
    let stdout: Vec<_> = entries.iter().filter(|entry| entry.0 == "stdout").collect();
    assert_eq!(
        stdout.iter().map(|entry| &*entry.1).collect::<Vec<_>>(),
        ["one\n", "two\n", "\n", "last"]
    );
    assert_eq!(joined(&entries, "stderr"), "error \"quoted\" \\ \u{1}\t\r\n");
}

#[test]
fn long_lines_are_cut_at_characters() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut log = open(&path, 0, 1, false);
    let line = format!("x{}\n", "ß€😀".repeat(5000));
    for piece in line.as_bytes().chunks(1000) {
        log.write(Stream::Stdout, piece, Timestamp::now());
    }
    let entries = entries(&fs::read(&path).unwrap());
    assert_eq!(joined(&entries, "stdout"), line);
    let (last, cut) = entries.split_last().unwrap();
    assert!(last.1.ends_with('\n') && cut.len() == 2);
    assert!(cut.iter().all(|entry| (16_380..=16_384).contains(&entry.1.len())));
}

#[test]
fn bytes_that_are_not_utf8_do_not_break_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut log = open(&path, 0, 1, false);
    log.write(Stream::Stdout, b"a\xff\xfeb\n", Timestamp::now());
    log.write(Stream::Stdout, &[0x80; 40_000], Timestamp::now());
    log.finish(Stream::Stdout, Timestamp::now());
    let entries = entries(&fs::read(&path).unwrap());
    assert_eq!(entries[0].1, "a\u{fffd}\u{fffd}b\n");
    assert_eq!(joined(&entries, "stdout").chars().count(), 40_005);
}

#[test]
fn rotation_keeps_the_newest_lines_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut log = open(&path, 4096, 3, false);
    for number in 0..1000 {
        log.write(Stream::Stdout, format!("line {number}\n").as_bytes(), Timestamp::now());
    }
    let mut names: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["log", "log.1", "log.2"]);
    let mut all = Vec::new();
    for name in ["log.2", "log.1", "log"] {
        let bytes = fs::read(directory.path().join(name)).unwrap();
        assert!(bytes.len() <= 4096);
        all.extend(entries(&bytes));
    }
    let first = 1000 - all.len();
    for (offset, entry) in all.iter().enumerate() {
        assert_eq!(entry.1, format!("line {}\n", first + offset));
    }
}

#[test]
fn compression_follows_files_that_are_renamed_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut log = open(&path, 200, 4, true);
    log.write(Stream::Stdout, b"first\nsecond\nthird\n", Timestamp::now());
    let job = log.compress_job().unwrap();
    assert!(log.compress_job().is_none());
    compress(&job).unwrap();
    log.write(Stream::Stdout, b"fourth\nfifth\n", Timestamp::now());
    log.compressed(true);
    let mut text = String::new();
    let file = File::open(directory.path().join("log.2.gz")).unwrap();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    assert_eq!(joined(&entries(text.as_bytes()), "stdout"), "first\nsecond\n");
    assert!(!directory.path().join("log.2").exists());
    assert!(log.compress_job().is_some());
}

#[test]
fn one_file_is_emptied_when_it_is_full() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut log = open(&path, 300, 1, false);
    for number in 0..100 {
        log.write(Stream::Stdout, format!("{number}\n").as_bytes(), Timestamp::now());
    }
    let bytes = fs::read(&path).unwrap();
    assert!(bytes.len() <= 300);
    assert_eq!(entries(&bytes).last().unwrap().1, "99\n");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_full_disk_drops_whole_lines_and_says_so() {
    let mut log = open(Path::new("/dev/full"), 0, 1, false);
    log.write(Stream::Stdout, b"lost\nlost too\n", Timestamp::now());
    assert_eq!(log.dropped, 2);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    log.file = open_log(&path).unwrap();
    log.write(Stream::Stdout, b"kept\n", Timestamp::now());
    let entries = entries(&fs::read(&path).unwrap());
    assert_eq!(entries[0].1, "brig: 2 log lines are missing: the disk was full\n");
    assert_eq!(entries[1].1, "kept\n");
    assert_eq!(log.dropped, 0);
}

#[test]
fn unknown_drivers_are_refused() {
    let options = |driver: &str| LogOptions { driver: driver.into(), ..LogOptions::default() };
    assert!(Sink::open(&options("syslog")).unwrap_err().contains("json-file"));
    assert!(Sink::open(&options("none")).unwrap().is_none());
    assert!(Sink::open(&options("json-file")).unwrap_err().contains("not absolute"));
}
