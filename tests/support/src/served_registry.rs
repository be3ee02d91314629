//! `brig registry serve`, started for a test on a free port.
#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test may fail this way")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Starts one over `root`; `brig` is the program, as it is to be run. Answers its process, which the caller ends, and
/// `HOST:PORT`.
#[must_use]
pub fn serve(mut brig: Command, root: &Path, options: &[&str]) -> (Child, String) {
    let mut process = brig
        .args(["registry", "serve", "--listen", "127.0.0.1:0", "--root"])
        .arg(root)
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on ").unwrap().to_owned();
    (process, address)
}
