//! Messages: to standard error for people, and to `--log` as runc writes them, for engines.

use std::io::Write as _;

use crate::arguments::{Global, LogFormat};

/// Reports a failure.
#[expect(clippy::print_stderr, reason = "this is the command line's own output")]
pub(crate) fn error(global: &Global, message: &str) {
    record(global, "error", message);
    eprintln!("brig-runtime: {message}");
}

/// Says what does not stop the command: to the log file, or where there is none to standard error.
#[expect(clippy::print_stderr, reason = "this is the command line's own output")]
pub(crate) fn warning(global: &Global, message: &str) {
    match global.log {
        Some(_) => record(global, "warning", message),
        None => eprintln!("brig-runtime: warning: {message}"),
    }
}

/// Appends one line to the log file. A log that cannot be written must not stop a container.
fn record(global: &Global, level: &str, message: &str) {
    let Some(path) = &global.log else { return };
    let file = std::fs::File::options().append(true).create(true).open(path);
    let Ok(mut file) = file else { return };
    let time = brig_runtime::timestamp();
    let line = match global.log_format {
        LogFormat::Json => {
            serde_json::json!({"level": level, "msg": message, "time": time}).to_string()
        }
        LogFormat::Text => format!("time={time:?} level={level} msg={message:?}"),
    };
    drop(writeln!(file, "{line}"));
}

/// Prints to standard output; a reader that went away is not an error.
pub(crate) fn print(text: &str) {
    let mut output = std::io::stdout().lock();
    drop(output.write_all(text.as_bytes()).and_then(|()| output.flush()));
}
