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

/// A seccomp profile, up to the program.
pub fn seccomp(bytes: &[u8]) {
    if let Ok(profile) = serde_json::from_slice(bytes)
        && let Ok(program) = crate::security::seccomp::compile(&profile)
    {
        assert!(program.instructions().len() <= 4096, "the kernel takes no more");
    }
}

/// What `exec --process` reads, up to the plan.
pub fn process(bytes: &[u8]) {
    if let Ok(process) = serde_json::from_slice(bytes) {
        let context = crate::bundle::ProcessContext::default();
        drop(crate::bundle::prepare_process(&process, context));
    }
}

/// Id maps, up to the text that the kernel reads.
pub fn id_maps(bytes: &[u8]) {
    let Ok(maps) = serde_json::from_slice::<Vec<oci_spec::runtime::LinuxIdMapping>>(bytes) else {
        return;
    };
    let text = crate::process::id_maps::text(&maps);
    assert_eq!(text.lines().count(), maps.len(), "a line for each");
}

/// The kernel's tables and a `cgroupsPath`, each after a zero byte: a container's cgroup is below the hierarchies.
pub fn cgroup_path(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.splitn(3, '\0').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    let (path, mountinfo, membership) = (next(), next(), next());
    let hierarchies = crate::cgroup::Hierarchies::parse(&mountinfo, &membership);
    let Ok(placement) = hierarchies.placement(Some(path.as_ref()), "id") else { return };
    let parent = std::path::Component::ParentDir;
    for (_, directory) in placement.directories() {
        // What the kernel's own tables say may hold anything; what was asked for must not climb.
        let climbs = directory.components().any(|each| each == parent);
        assert!(!climbs || mountinfo.contains("..") || membership.contains(".."), "{directory:?}");
    }
    drop(crate::cgroup::systemd::Scope::parse(Some(path.as_ref()), "id", None));
}

/// A message from a child.
pub fn message(bytes: &[u8]) {
    let _ = crate::process::message::Message::decode(bytes);
}
