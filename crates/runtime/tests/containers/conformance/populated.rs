//! A configuration with every field of the specification for Linux, by the names that the types have. It makes no sense and
//! is never run.

use serde_json::{Value, json};

pub(super) fn spec() -> Value {
    let hook = json!([{"path": "/x", "args": ["x"], "env": ["A=b"], "timeout": 1}]);
    json!({
        "ociVersion": "1.3.0",
        "process": process(),
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "h",
        "domainname": "d",
        "mounts": [{
            "destination": "/x", "type": "bind", "source": "x", "options": ["bind"],
            "uidMappings": map(), "gidMappings": map()
        }],
        "hooks": {
            "prestart": hook, "createRuntime": hook, "createContainer": hook,
            "startContainer": hook, "poststart": hook, "poststop": hook
        },
        "annotations": {"a": "b"},
        "linux": linux()
    })
}

fn map() -> Value {
    json!([{"containerID": 0, "hostID": 0, "size": 1}])
}

fn process() -> Value {
    let names = ["CAP_KILL"];
    json!({
        "terminal": true,
        "consoleSize": {"height": 1, "width": 2},
        "user": {"uid": 0, "gid": 0, "umask": 18, "additionalGids": [1], "username": "x"},
        "args": ["x"],
        "commandLine": "x",
        "env": ["A=b"],
        "cwd": "/",
        "capabilities": {
            "bounding": names, "effective": names, "inheritable": names, "permitted": names,
            "ambient": names
        },
        "rlimits": [{"type": "RLIMIT_CORE", "hard": 1, "soft": 1}],
        "noNewPrivileges": true,
        "apparmorProfile": "x",
        "oomScoreAdj": 1,
        "selinuxLabel": "x",
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 1},
        "scheduler": {
            "policy": "SCHED_DEADLINE", "nice": 1, "priority": 1,
            "flags": ["SCHED_RESET_ON_FORK"], "runtime": 1, "deadline": 1, "period": 1
        },
        "execCPUAffinity": {"initial": "0", "final": "0"}
    })
}

fn linux() -> Value {
    json!({
        "netDevices": {"eth0": {"name": "x"}},
        "uidMappings": map(),
        "gidMappings": map(),
        "sysctl": {"net.x": "1"},
        "resources": resources(),
        "cgroupsPath": "/x",
        "namespaces": [{"type": "pid", "path": "/x"}],
        "devices": [{
            "path": "/dev/x", "type": "c", "major": 1, "minor": 1, "fileMode": 1, "uid": 1, "gid": 1
        }],
        "seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW",
            "defaultErrnoRet": 1,
            "architectures": ["SCMP_ARCH_X86_64"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "listenerPath": "/x",
            "listenerMetadata": "x",
            "syscalls": [{
                "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
                "args": [{"index": 0, "value": 1, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}]
            }]
        },
        "rootfsPropagation": "slave",
        "maskedPaths": ["/x"],
        "readonlyPaths": ["/x"],
        "mountLabel": "x",
        "intelRdt": {
            "closID": "x", "schemata": ["L3:0=f"], "l3CacheSchema": "L3:0=f",
            "memBwSchema": "MB:0=1", "enableCmt": true, "enableMbm": true, "enableMonitoring": true
        },
        "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
        "personality": {"domain": "LINUX", "flags": ["x"]},
        "timeOffsets": {"boottime": {"secs": 1, "nanosecs": 1}}
    })
}

fn resources() -> Value {
    let throttle = json!([{"major": 1, "minor": 1, "rate": 1}]);
    json!({
        "devices": [{"allow": true, "type": "c", "major": 1, "minor": 1, "access": "r"}],
        "memory": {
            "limit": 1, "reservation": 1, "swap": 1, "kernel": 1, "kernelTCP": 1, "swappiness": 1,
            "disableOOMKiller": true, "useHierarchy": true, "checkBeforeUpdate": true
        },
        "cpu": {
            "shares": 1, "quota": 1, "burst": 1, "period": 1, "realtimeRuntime": 1,
            "realtimePeriod": 1, "cpus": "0", "mems": "0", "idle": 1
        },
        "pids": {"limit": 1},
        "blockIO": {
            "weight": 10, "leafWeight": 10,
            "weightDevice": [{"major": 1, "minor": 1, "weight": 10, "leafWeight": 10}],
            "throttleReadBpsDevice": throttle, "throttleWriteBpsDevice": throttle,
            "throttleReadIOPSDevice": throttle, "throttleWriteIOPSDevice": throttle
        },
        "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
        "network": {"classID": 1, "priorities": [{"name": "x", "priority": 1}]},
        "rdma": {"mlx": {"hcaHandles": 1, "hcaObjects": 1}},
        "unified": {"memory.high": "1"}
    })
}
