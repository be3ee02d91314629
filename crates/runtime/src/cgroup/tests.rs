//! What is written where, on recorded trees: plain files stand for controllers that the host may not have.

use std::collections::BTreeMap;

use super::*;
use crate::error::ErrorKind;

/// A cgroup made of plain files. Each file takes one write, so the last value is the whole content.
struct Tree {
    root: tempfile::TempDir,
    cgroup: Cgroup,
}

impl Tree {
    fn v2(controllers: &str, files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("cgroup.controllers"), controllers).unwrap();
        for (file, content) in files {
            std::fs::write(root.path().join(file), content).unwrap();
        }
        let directory = Directory::open_unverified(root.path()).unwrap();
        let cgroup = Cgroup {
            placement: Placement::default(),
            legacy: Vec::new(),
            unified: Some(Unified::new(directory).unwrap()),
            warnings: Vec::new(),
        };
        Self { root, cgroup }
    }

    fn v1(controllers: &[&str], files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        for (file, content) in files {
            std::fs::write(root.path().join(file), content).unwrap();
        }
        let directory = Directory::open_unverified(root.path()).unwrap();
        let controllers = controllers.iter().map(ToString::to_string).collect();
        let cgroup = Cgroup {
            placement: Placement::default(),
            legacy: vec![Legacy { controllers, directory }],
            unified: None,
            warnings: Vec::new(),
        };
        Self { root, cgroup }
    }

    fn set(&self, json: serde_json::Value) -> Result<Vec<String>> {
        self.cgroup.set(&serde_json::from_value(json).unwrap())
    }

    /// The files that are not empty.
    fn written(&self) -> BTreeMap<String, String> {
        std::fs::read_dir(self.root.path())
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let content = std::fs::read_to_string(entry.path()).unwrap();
                (entry.file_name().into_string().unwrap(), content)
            })
            .filter(|(name, content)| name != "cgroup.controllers" && !content.is_empty())
            .collect()
    }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn v2_memory_counts_swap_apart() {
    let files = [("memory.max", ""), ("memory.swap.max", ""), ("memory.low", "")];
    let cases: [(serde_json::Value, &[(&str, &str)]); 5] = [
        (
            serde_json::json!({"limit": 100, "swap": 250, "reservation": 50}),
            &[("memory.max", "100"), ("memory.swap.max", "150"), ("memory.low", "50")],
        ),
        (
            serde_json::json!({"limit": 100, "swap": 100}),
            &[("memory.max", "100"), ("memory.swap.max", "0")],
        ),
        (
            serde_json::json!({"limit": 100, "swap": -1}),
            &[("memory.max", "100"), ("memory.swap.max", "max")],
        ),
        (serde_json::json!({"limit": -1}), &[("memory.max", "max"), ("memory.swap.max", "max")]),
        (serde_json::json!({"reservation": -1}), &[("memory.low", "max")]),
    ];
    for (memory, expected) in cases {
        let tree = Tree::v2("memory", &files);
        tree.set(serde_json::json!({"memory": memory})).unwrap();
        assert_eq!(tree.written(), map(expected), "{memory}");
    }
}

#[test]
fn v2_refuses_memory_settings_it_cannot_keep() {
    let files = [("memory.max", ""), ("memory.swap.max", ""), ("memory.current", "500")];
    let cases = [
        (serde_json::json!({"swap": 100}), ErrorKind::InvalidInput),
        (serde_json::json!({"limit": 100, "swap": 50}), ErrorKind::InvalidInput),
        (serde_json::json!({"limit": 100, "checkBeforeUpdate": true}), ErrorKind::InvalidInput),
        (serde_json::json!({"disableOOMKiller": true}), ErrorKind::Unsupported),
    ];
    for (memory, kind) in cases {
        let tree = Tree::v2("memory", &files);
        let error = tree.set(serde_json::json!({"memory": memory})).unwrap_err();
        assert_eq!(error.kind(), kind, "{memory}: {error}");
    }
    let tree = Tree::v2("memory", &files);
    let warnings = tree.set(serde_json::json!({"memory": {"swappiness": 10}})).unwrap();
    assert_eq!(warnings.len(), 1);
}

#[test]
fn a_kernel_without_swap_accounting_limits_memory_alone() {
    let tree = Tree::v2("memory", &[("memory.max", "")]);
    let warnings = tree.set(serde_json::json!({"memory": {"limit": 100, "swap": 100}})).unwrap();
    assert_eq!((tree.written(), warnings.len()), (map(&[("memory.max", "100")]), 1));
    let error = tree.set(serde_json::json!({"memory": {"limit": 100, "swap": 200}})).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn v2_cpu_writes_quota_and_period_together() {
    let cases: [(serde_json::Value, &[(&str, &str)]); 5] = [
        (serde_json::json!({"quota": 5000, "period": 100_000}), &[("cpu.max", "5000 100000")]),
        (serde_json::json!({"quota": -1}), &[("cpu.max", "max")]),
        (serde_json::json!({"period": 50_000}), &[("cpu.max", "7 50000")]),
        (serde_json::json!({"shares": 1024}), &[("cpu.max", "7"), ("cpu.weight", "100")]),
        (
            serde_json::json!({"burst": 9, "idle": 1, "cpus": "0-1", "mems": "0"}),
            &[
                ("cpu.max", "7"),
                ("cpu.max.burst", "9"),
                ("cpu.idle", "1"),
                ("cpuset.cpus", "0-1"),
                ("cpuset.mems", "0"),
            ],
        ),
    ];
    let files = [
        ("cpu.max", "7"),
        ("cpu.weight", ""),
        ("cpu.max.burst", ""),
        ("cpu.idle", ""),
        ("cpuset.cpus", ""),
        ("cpuset.mems", ""),
    ];
    for (cpu, expected) in cases {
        let tree = Tree::v2("cpu cpuset", &files);
        tree.set(serde_json::json!({"cpu": cpu})).unwrap();
        assert_eq!(tree.written(), map(expected), "{cpu}");
    }
    let tree = Tree::v2("cpu", &files);
    let error = tree.set(serde_json::json!({"cpu": {"realtimeRuntime": 5}})).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn shares_become_weights_on_a_curve_through_the_defaults() {
    for (shares, weight) in [
        (0, 1),
        (1, 1),
        (2, 1),
        (1024, 100),
        (512, 59),
        (2048, 174),
        (262_144, 10_000),
        (u64::MAX, 10_000),
    ] {
        assert_eq!(cpu::weight_from_shares(shares), weight, "{shares}");
    }
}

#[test]
fn v2_io_knows_both_weights_and_four_throttles() {
    let rate = |rate: u64| serde_json::json!([{"major": 8, "minor": 0, "rate": rate}]);
    let tree = Tree::v2("io", &[("io.max", ""), ("io.weight", "")]);
    tree.set(serde_json::json!({"blockIO": {"weight": 10, "throttleReadBpsDevice": rate(77)}}))
        .unwrap();
    assert_eq!(tree.written(), map(&[("io.max", "8:0 rbps=77"), ("io.weight", "1")]));
    let tree = Tree::v2("io", &[("io.max", ""), ("io.bfq.weight", "")]);
    let weights = serde_json::json!([{"major": 8, "minor": 0, "weight": 300}]);
    tree.set(serde_json::json!({"blockIO":
        {"weightDevice": weights, "throttleWriteIOPSDevice": rate(0)}}))
        .unwrap();
    assert_eq!(tree.written(), map(&[("io.bfq.weight", "8:0 300"), ("io.max", "8:0 wiops=max")]));
    let tree = Tree::v2("io", &[]);
    let error = tree.set(serde_json::json!({"blockIO": {"weight": 100}})).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(io::io_weight(1000), 10_000);
}

#[test]
fn small_controllers_write_one_line_each() {
    let tree = Tree::v1(
        &["pids", "hugetlb", "rdma", "net_cls", "net_prio"],
        &[
            ("pids.max", ""),
            ("hugetlb.2MB.limit_in_bytes", ""),
            ("hugetlb.2MB.rsvd.limit_in_bytes", ""),
            ("rdma.max", ""),
            ("net_cls.classid", ""),
            ("net_prio.ifpriomap", ""),
        ],
    );
    tree.set(serde_json::json!({
        "pids": {"limit": -1},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4096}],
        "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}},
        "network": {"classID": 1_048_577, "priorities": [{"name": "eth0", "priority": 5}]}
    }))
    .unwrap();
    let expected = map(&[
        ("pids.max", "max"),
        ("hugetlb.2MB.limit_in_bytes", "4096"),
        ("hugetlb.2MB.rsvd.limit_in_bytes", "4096"),
        ("rdma.max", "mlx5_1 hca_handle=3 hca_object=10000"),
        ("net_cls.classid", "1048577"),
        ("net_prio.ifpriomap", "eth0 5"),
    ]);
    assert_eq!(tree.written(), expected);
    let injections = [
        serde_json::json!({"hugepageLimits": [{"pageSize": "../2MB", "limit": 1}]}),
        serde_json::json!({"rdma": {"a b": {"hcaHandles": 3}}}),
        serde_json::json!({"network": {"priorities": [{"name": "eth0 9\neth1", "priority": 5}]}}),
    ];
    for json in injections {
        assert_eq!(tree.set(json.clone()).unwrap_err().kind(), ErrorKind::InvalidInput, "{json}");
    }
}

#[test]
fn v2_statistics_are_read_in_v1s_units() {
    let tree = Tree::v2(
        "memory pids io",
        &[
            (
                "cpu.stat",
                "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_throttled 1\nthrottled_usec 7\n",
            ),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.peak", "8192\n"),
            ("memory.swap.current", "0\n"),
            ("memory.swap.max", "4096\n"),
            ("memory.events", "low 0\nhigh 0\nmax 4\noom 2\noom_kill 1\n"),
            ("memory.stat", "anon 1\nfile 2\nkernel 3\n"),
            ("pids.current", "2\n"),
            ("pids.max", "9\n"),
            ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n"),
            ("cpu.pressure", "some avg10=1.50 avg60=0.00 avg300=0.00 total=9\n"),
        ],
    );
    let stats = tree.cgroup.stats().unwrap();
    let cpu = stats.cpu.unwrap();
    assert_eq!((cpu.usage_nanoseconds, cpu.throttled_nanoseconds), (5000, 7000));
    let memory = stats.memory.unwrap();
    assert_eq!((memory.usage_bytes, memory.limit_bytes), (4096, None));
    assert_eq!((memory.max_usage_bytes, memory.swap_limit_bytes), (Some(8192), Some(4096)));
    assert_eq!((memory.fail_count, memory.oom_kills), (4, 1));
    assert_eq!(memory.kernel_usage_bytes, Some(3));
    assert_eq!(stats.pids.unwrap(), PidsStats { current: 2, limit: Some(9) });
    assert_eq!(stats.io[0].write_bytes, 2);
    assert_eq!(stats.cpu_pressure.unwrap().some.total_microseconds, 9);
    assert!(stats.memory_pressure.is_none() && tree.cgroup.oom_killed().unwrap());
}
