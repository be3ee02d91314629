use super::*;
use crate::metadata::{MountKind, MountRecord};
use crate::models::ContainerConfig;

fn record() -> ContainerRecord {
    ContainerRecord {
        id: "f".repeat(64),
        name: "web".into(),
        path: "/bin/sh".into(),
        args: vec!["-c".into(), "true".into()],
        config: ContainerConfig {
            hostname: Some("f0f0f0f0f0f0".into()),
            env: Some(vec!["PATH=/bin".into(), "A=1".into()]),
            ..ContainerConfig::default()
        },
        ..ContainerRecord::default()
    }
}

fn build_with(record: &ContainerRecord, user: &User) -> Result<Spec> {
    let config = Config::new("/r", "/s");
    let files = [("/etc/hosts", PathBuf::from("/r/containers/x/hosts"))];
    build(&Input {
        record,
        config: &config,
        user,
        network: Namespace::Join("/s/netns/x".into()),
        pid: Namespace::Private,
        ipc: Namespace::Private,
        files: &files,
        cgroup_v2: false,
    })
}

fn built(record: &ContainerRecord) -> serde_json::Value {
    serde_json::to_value(build_with(record, &User::default()).expect("a spec")).expect("json")
}

#[test]
fn the_default_container_is_dockers() {
    let spec = built(&record());
    assert_eq!(spec["process"]["args"], serde_json::json!(["/bin/sh", "-c", "true"]));
    assert_eq!(spec["process"]["cwd"], "/");
    assert_eq!(
        spec["process"]["env"],
        serde_json::json!(["PATH=/bin", "HOSTNAME=f0f0f0f0f0f0", "A=1", "HOME=/"])
    );
    assert_eq!(spec["process"]["capabilities"]["bounding"].as_array().map(Vec::len), Some(14));
    assert_eq!(spec["process"]["capabilities"]["ambient"].as_array().map(Vec::len), Some(0));
    assert_eq!(spec["process"]["noNewPrivileges"], false);
    assert_eq!(spec["root"], serde_json::json!({"path": "rootfs", "readonly": false}));
    assert_eq!(spec["linux"]["cgroupsPath"], format!("/brig/{}", "f".repeat(64)));
    assert!(spec["linux"]["seccomp"]["defaultAction"].is_string());
    let destinations: Vec<&str> = spec["mounts"]
        .as_array()
        .expect("mounts")
        .iter()
        .filter_map(|mount| mount["destination"].as_str())
        .collect();
    let expected = [
        "/proc",
        "/dev",
        "/dev/pts",
        "/sys",
        "/sys/fs/cgroup",
        "/dev/mqueue",
        "/dev/shm",
        "/etc/hosts",
    ];
    assert_eq!(destinations, expected);
    let kinds: Vec<&str> = spec["linux"]["namespaces"]
        .as_array()
        .expect("namespaces")
        .iter()
        .filter_map(|namespace| namespace["type"].as_str())
        .collect();
    assert_eq!(kinds, ["mount", "network", "uts", "pid", "ipc"]);
    assert!(
        spec["linux"]["maskedPaths"].as_array().expect("paths").contains(&"/proc/kcore".into())
    );
    assert_eq!(spec["linux"]["sysctl"]["net.ipv4.ip_unprivileged_port_start"], "0");
}

#[test]
fn a_user_other_than_root_starts_without_capabilities() {
    let user = User { uid: 1000, gid: 1000, groups: vec![1000], home: Some("/home/a".into()) };
    let spec = serde_json::to_value(build_with(&record(), &user).expect("a spec")).expect("json");
    let sets = &spec["process"]["capabilities"];
    assert_eq!(sets["bounding"].as_array().map(Vec::len), Some(14));
    for empty in ["effective", "permitted", "inheritable", "ambient"] {
        assert_eq!(sets[empty].as_array().map(Vec::len), Some(0), "{empty}");
    }
    assert!(spec["process"]["env"].as_array().expect("env").contains(&"HOME=/home/a".into()));
}

#[test]
fn privileged_lifts_what_docker_lifts() {
    let mut record = record();
    record.host_config.privileged = Some(true);
    let spec = built(&record);
    assert!(spec["linux"].get("seccomp").is_none());
    assert_eq!(spec["linux"]["maskedPaths"].as_array().map_or(0, Vec::len), 0);
    assert_eq!(spec["linux"]["resources"]["devices"][0]["allow"], true);
}

#[test]
fn mounts_of_the_request_come_parents_first_and_replace_ours() {
    let mut record = record();
    let bind = |destination: &str| MountRecord {
        source: "/src".into(),
        destination: destination.into(),
        ..MountRecord::default()
    };
    let tmpfs = MountRecord {
        kind: MountKind::Tmpfs,
        destination: "/run".into(),
        tmpfs_options: vec!["exec".into(), "size=1m".into()],
        ..MountRecord::default()
    };
    record.mounts = vec![bind("/a/b/c"), bind("/a"), tmpfs, bind("/dev/shm")];
    let spec = built(&record);
    let mounts = spec["mounts"].as_array().expect("mounts");
    let position =
        |path: &str| mounts.iter().position(|mount| mount["destination"] == path).expect("a mount");
    assert!(position("/a") < position("/a/b/c"));
    assert_eq!(mounts.iter().filter(|mount| mount["destination"] == "/dev/shm").count(), 1);
    assert_eq!(mounts[position("/a")]["options"], serde_json::json!(["rbind", "ro", "rprivate"]));
    assert_eq!(
        mounts[position("/run")]["options"],
        serde_json::json!(["nosuid", "nodev", "exec", "size=1m"])
    );
}

#[test]
fn requests_that_cannot_be_are_refused() {
    let mut relative = record();
    relative.config.working_dir = Some("tmp".into());
    assert!(build_with(&relative, &User::default()).is_err());
    let mut init = record();
    init.host_config.init = Some(true);
    assert!(build_with(&init, &User::default()).expect_err("no init").report().contains("tini"));
    let mut score = record();
    score.host_config.oom_score_adj = Some(2000);
    assert!(build_with(&score, &User::default()).is_err());
}

#[test]
fn the_daemons_oom_score_is_never_inherited() {
    let mut precious = record();
    precious.host_config.oom_score_adj = Some(-300);
    for (record, score) in [(record(), 0), (precious, -300)] {
        assert_eq!(built(&record)["process"]["oomScoreAdj"], score);
        let input = ExecInput {
            record: &record,
            config: &Config::new("/r", "/s"),
            exec: &ExecConfig::default(),
            user: &User::default(),
            console_size: None,
        };
        let executed = exec_process(&input).expect("a process");
        assert_eq!(executed.oom_score_adj(), Some(score));
    }
}

#[test]
fn variables_replace_in_place_and_bare_names_remove() {
    let mut variables = vec!["A=1".to_owned(), "B=2".to_owned()];
    override_variables(&mut variables, &["A=3".into(), "B".into(), "C=4".into(), "D".into()]);
    assert_eq!(variables, ["A=3", "C=4"]);
}
