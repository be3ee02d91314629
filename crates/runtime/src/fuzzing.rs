//! Entry points for fuzzers: each takes any bytes, and must neither panic nor take long.

/// `config.json`, up to the checks that need no kernel.
pub fn config(bytes: &[u8]) {
    if let Ok(spec) = crate::bundle::parse_bytes(bytes)
        && crate::bundle::validate(&spec).is_ok()
        && let Some(linux) = spec.linux()
    {
        drop(crate::bundle::sysctls(linux));
    }
}

/// `state.json`.
pub fn state(bytes: &[u8]) {
    drop(crate::state::parse(bytes));
}

/// Mount options, one per line.
pub fn mount_options(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let options: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
    drop(crate::rootfs::options::parse(&options));
}

/// A message from a child.
pub fn message(bytes: &[u8]) {
    let _ = crate::process::message::Message::decode(bytes);
}
