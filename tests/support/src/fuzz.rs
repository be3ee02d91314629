//! What is fuzzed: one function for each parser of what comes from outside, taking any bytes and only ever panicking on
//! a fault. `fuzz/` wraps each for the fuzzer; the `fuzz_corpus` test feeds each its saved inputs.

/// A fuzz target: its name, which is also its corpus's directory, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("api_filters", brig_engine_api::fuzzing::filters),
    ("api_frames", brig_engine_api::fuzzing::frames),
    ("api_lines", brig_engine_api::fuzzing::lines),
    ("api_queries", brig_engine_api::fuzzing::queries),
    ("api_registry_auth", brig_engine_api::fuzzing::registry_auth),
    ("image_archive", load_archive),
    ("image_challenge", brig_images::fuzzing::challenge),
    ("image_config", brig_images::fuzzing::config),
    ("image_manifest", brig_images::fuzzing::manifest),
    ("image_reference", brig_images::fuzzing::reference),
    ("image_user", brig_manager::fuzzing::user),
    ("layer_archive", brig_storage::fuzzing::read_archive),
    ("layer_extract", extract_layer),
    ("netlink_reply", brig_linux::netlink::fuzzing::decode_answer),
    ("network_connection", brig_network::fuzzing::tracked_connection),
    ("network_dns_query", brig_network::fuzzing::dns_query),
    ("network_texts", network_texts),
    ("registry_request", brig_registry::fuzzing::request),
    ("runtime_cgroup_path", brig_runtime::fuzzing::cgroup_path),
    ("runtime_config", brig_runtime::fuzzing::config),
    ("runtime_id_maps", brig_runtime::fuzzing::id_maps),
    ("runtime_message", brig_runtime::fuzzing::message),
    ("runtime_mount_options", brig_runtime::fuzzing::mount_options),
    ("runtime_process", brig_runtime::fuzzing::process),
    ("runtime_seccomp", brig_runtime::fuzzing::seccomp),
    ("runtime_state", brig_runtime::fuzzing::state),
];

/// Runs the target called `name`.
///
/// # Panics
/// There is no such target, or the input found a fault.
pub fn run(name: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    let Some((_, target)) = found else { panic!("no fuzz target is called {name}") };
    target(data);
}

/// Extracts an archive into a directory of its own.
fn extract_layer(data: &[u8]) {
    let Ok(directory) = tempfile::tempdir() else { return };
    brig_storage::fuzzing::extract_layer(data, directory.path());
}

/// Loads an archive into a store of its own.
fn load_archive(data: &[u8]) {
    let Ok(directory) = tempfile::tempdir() else { return };
    let Ok(store) = brig_images::Store::open(directory.path()) else { return };
    brig_images::fuzzing::archive(&store, data);
}

fn network_texts(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        brig_network::fuzzing::texts(text);
    }
}
