//! The table: which fields, and how it is shown what becomes of them.

use super::Evidence::{Inside, Legacy, Recorded, Refused, Test};
use super::Row;

const fn row(fields: &'static [&'static str], evidence: super::Evidence) -> Row {
    Row { fields, evidence }
}

pub(super) const ROWS: &[Row] = &[
    row(&["ociVersion"], Refused { patch: &[("/ociVersion", "\"2.0.0\"")], words: "ociVersion" }),
    row(&["solaris"], Refused { patch: &[("/solaris", "{}")], words: "solaris" }),
    row(
        &["windows"],
        Refused { patch: &[("/windows", r#"{"layerFolders": ["x"]}"#)], words: "windows" },
    ),
    row(
        &["vm"],
        Refused { patch: &[("/vm", r#"{"kernel": {"path": "/x"}}"#)], words: "vm is for" },
    ),
    row(&["zos"], Refused { patch: &[("/zos", "{}")], words: "zos" }),
    row(
        &["uidMappings"],
        Refused {
            patch: &[("/uidMappings", r#"[{"containerID": 0, "hostID": 0, "size": 1}]"#)],
            words: "belong into linux",
        },
    ),
    row(
        &["gidMappings"],
        Refused {
            patch: &[("/gidMappings", r#"[{"containerID": 0, "hostID": 0, "size": 1}]"#)],
            words: "belong into linux",
        },
    ),
    row(
        &["hostname", "domainname"],
        Inside {
            patch: &[("/hostname", "\"web\""), ("/domainname", "\"example\"")],
            script: "cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname",
            prints: "web\nexample",
        },
    ),
    row(&["annotations.*"], Test("an_agent_answers_for_init")),
    row(&["root.path"], Test("default_devices_and_links_are_there")),
    row(&["root.readonly"], Test("a_read_only_root_refuses_writes")),
    row(
        &["mounts[].destination", "mounts[].type", "mounts[].source", "mounts[].options"],
        Test("bind_mounts_take_their_options"),
    ),
    row(
        &[
            "mounts[].uidMappings[].containerID",
            "mounts[].uidMappings[].hostID",
            "mounts[].uidMappings[].size",
            "mounts[].gidMappings[].containerID",
            "mounts[].gidMappings[].hostID",
            "mounts[].gidMappings[].size",
        ],
        Test("id_mapped_mounts_show_mapped_owners"),
    ),
    row(
        &[
            "hooks.prestart[].path",
            "hooks.prestart[].args",
            "hooks.createRuntime[].path",
            "hooks.createRuntime[].args",
            "hooks.createContainer[].path",
            "hooks.createContainer[].args",
            "hooks.startContainer[].path",
            "hooks.startContainer[].args",
            "hooks.poststart[].path",
            "hooks.poststart[].args",
            "hooks.poststop[].path",
            "hooks.poststop[].args",
            "hooks.prestart[].env",
            "hooks.createRuntime[].env",
            "hooks.createContainer[].env",
            "hooks.startContainer[].env",
            "hooks.poststart[].env",
            "hooks.poststop[].env",
        ],
        Test("all_hooks_run_in_order_and_where_they_should"),
    ),
    row(
        &[
            "hooks.prestart[].timeout",
            "hooks.createRuntime[].timeout",
            "hooks.createContainer[].timeout",
            "hooks.startContainer[].timeout",
            "hooks.poststart[].timeout",
            "hooks.poststop[].timeout",
        ],
        Test("a_hook_is_killed_at_its_timeout"),
    ),
    // The process.
    row(&["process.terminal"], Test("a_terminal_is_the_containers_own_console")),
    row(
        &["process.consoleSize.height", "process.consoleSize.width"],
        Test("a_terminal_is_the_containers_own_console"),
    ),
    row(
        &[
            "process.user.uid",
            "process.user.gid",
            "process.user.umask",
            "process.user.additionalGids",
        ],
        Test("users_groups_and_umask_are_exact"),
    ),
    row(
        &["process.user.username"],
        Refused { patch: &[("/process/user/username", "\"x\"")], words: "process.user.username" },
    ),
    row(
        &["process.commandLine"],
        Refused { patch: &[("/process/commandLine", "\"x\"")], words: "process.commandLine" },
    ),
    row(
        &["process.args", "process.env", "process.cwd"],
        Inside {
            patch: &[("/process/cwd", "\"/tmp\""), ("/process/env/-", "\"A=b c\"")],
            script: "pwd; echo $A; tr '\\0' ' ' < /proc/1/cmdline | head -c 5",
            prints: "/tmp\nb c\nsh -c",
        },
    ),
    row(
        &[
            "process.capabilities.bounding",
            "process.capabilities.effective",
            "process.capabilities.permitted",
            "process.noNewPrivileges",
        ],
        Test("capabilities_are_exactly_those_configured"),
    ),
    row(
        &["process.capabilities.inheritable", "process.capabilities.ambient"],
        Test("ambient_capabilities_survive_for_another_user"),
    ),
    row(
        &["process.rlimits[].type", "process.rlimits[].soft", "process.rlimits[].hard"],
        Test("every_rlimit_is_set_for_init_and_for_an_exec"),
    ),
    row(
        &["process.oomScoreAdj"],
        Inside {
            patch: &[("/process/oomScoreAdj", "678")],
            script: "cat /proc/self/oom_score_adj",
            prints: "678",
        },
    ),
    row(
        &["process.apparmorProfile"],
        Refused {
            patch: &[("/process/apparmorProfile", "\"brig-default\"")],
            words: "AppArmor is not active",
        },
    ),
    row(
        &["process.selinuxLabel"],
        Refused {
            patch: &[("/process/selinuxLabel", "\"system_u:system_r:container_t:s0\"")],
            words: "SELinux is not active",
        },
    ),
    row(
        &["linux.mountLabel"],
        Refused {
            patch: &[("/linux/mountLabel", "\"system_u:object_r:container_file_t:s0\"")],
            words: "SELinux is not active",
        },
    ),
    row(
        &["process.ioPriority.class", "process.ioPriority.priority"],
        Test("io_priority_is_applied_to_init_and_exec"),
    ),
    row(
        &["process.scheduler.policy", "process.scheduler.nice", "process.scheduler.flags"],
        Test("scheduler_policies_and_flags_are_applied"),
    ),
    row(&["process.scheduler.priority"], Test("real_time_schedulers_are_applied_with_a_budget")),
    row(
        &["process.scheduler.runtime", "process.scheduler.deadline", "process.scheduler.period"],
        Test("a_deadline_is_applied_or_refused_with_its_name"),
    ),
    row(
        &["process.execCPUAffinity.initial", "process.execCPUAffinity.final"],
        Test("an_exec_runs_on_its_processors"),
    ),
    // Linux.
    row(&["linux.netDevices.*.name"], Test("a_device_moves_with_its_addresses_and_its_new_name")),
    row(
        &[
            "linux.uidMappings[].containerID",
            "linux.uidMappings[].hostID",
            "linux.uidMappings[].size",
            "linux.gidMappings[].containerID",
            "linux.gidMappings[].hostID",
            "linux.gidMappings[].size",
        ],
        Test("a_user_namespace_maps_root_to_nobody_special"),
    ),
    row(&["linux.sysctl.*"], Test("sysctls_of_own_namespaces_are_set")),
    row(&["linux.cgroupsPath"], Test("exec_runs_in_the_containers_cgroup")),
    row(&["linux.namespaces[].type"], Test("every_namespace_is_new_and_exec_joins_them_all")),
    row(&["linux.namespaces[].path"], Test("namespaces_of_another_container_are_joined_by_path")),
    row(
        &[
            "linux.devices[].path",
            "linux.devices[].type",
            "linux.devices[].major",
            "linux.devices[].minor",
            "linux.devices[].fileMode",
            "linux.devices[].uid",
            "linux.devices[].gid",
        ],
        Inside {
            patch: &[(
                "/linux/devices",
                r#"[{"path": "/dev/a/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 416,
                     "uid": 7, "gid": 8}]"#,
            )],
            script: "stat -c '%F %t:%T %a %u %g' /dev/a/mine",
            prints: "character special file 1:5 640 7 8",
        },
    ),
    row(
        &[
            "linux.seccomp.defaultAction",
            "linux.seccomp.architectures",
            "linux.seccomp.syscalls[].names",
            "linux.seccomp.syscalls[].action",
        ],
        Test("seccomp_denies_what_the_profile_denies"),
    ),
    row(
        &[
            "linux.seccomp.syscalls[].errnoRet",
            "linux.seccomp.syscalls[].args[].index",
            "linux.seccomp.syscalls[].args[].value",
            "linux.seccomp.syscalls[].args[].valueTwo",
            "linux.seccomp.syscalls[].args[].op",
            "linux.seccomp.flags",
        ],
        Inside {
            // A mode with any of the bits for others.
            patch: &[(
                "/linux/seccomp",
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NATIVE"],
                    "flags": ["SECCOMP_FILTER_FLAG_LOG"],
                    "syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28,
                      "args": [{"index": 1, "value": 7, "valueTwo": 7, "op": "SCMP_CMP_MASKED_EQ"}]}]}"#,
            )],
            script: "touch /tmp/a; chmod 700 /tmp/a && chmod 707 /tmp/a 2>&1 | grep -o 'No space left'",
            prints: "No space left",
        },
    ),
    row(
        &["linux.seccomp.defaultErrnoRet"],
        Test("the_default_error_of_a_profile_is_what_callers_get"),
    ),
    row(
        &["linux.seccomp.listenerPath", "linux.seccomp.listenerMetadata"],
        Test("an_agent_answers_for_init"),
    ),
    row(&["linux.rootfsPropagation"], Test("root_propagation_is_set")),
    row(
        &["linux.maskedPaths", "linux.readonlyPaths"],
        Test("masked_and_read_only_paths_are_closed_to_root"),
    ),
    row(
        &[
            "linux.intelRdt.closID",
            "linux.intelRdt.enableMonitoring",
            "linux.intelRdt.enableCMT",
            "linux.intelRdt.enableMBM",
        ],
        Recorded("a_named_class_is_shared_and_stays"),
    ),
    row(
        &["linux.intelRdt.schemata", "linux.intelRdt.l3CacheSchema", "linux.intelRdt.memBwSchema"],
        Recorded("without_a_class_the_container_gets_its_own_and_takes_it_along"),
    ),
    row(
        &["linux.memoryPolicy.mode", "linux.memoryPolicy.nodes", "linux.memoryPolicy.flags"],
        Test("memory_comes_from_the_nodes_of_the_policy"),
    ),
    row(&["linux.personality.domain"], Test("the_personality_decides_the_machine")),
    row(
        &["linux.personality.flags"],
        Refused {
            patch: &[("/linux/personality", r#"{"domain": "LINUX", "flags": ["x"]}"#)],
            words: "linux.personality.flags",
        },
    ),
    row(
        &["linux.timeOffsets.*.secs", "linux.timeOffsets.*.nanosecs"],
        Test("time_offsets_shift_the_clocks"),
    ),
    // Resources.
    row(
        &[
            "linux.resources.devices[].allow",
            "linux.resources.devices[].type",
            "linux.resources.devices[].major",
            "linux.resources.devices[].minor",
            "linux.resources.devices[].access",
        ],
        Test("device_rules_decide_what_can_be_opened"),
    ),
    row(
        &[
            "linux.resources.memory.limit",
            "linux.resources.memory.reservation",
            "linux.resources.memory.swap",
            "linux.resources.memory.kernelTCP",
            "linux.resources.memory.swappiness",
            "linux.resources.memory.disableOOMKiller",
            "linux.resources.memory.useHierarchy",
        ],
        Legacy {
            controller: "memory",
            patch: &[(
                "/linux/resources",
                r#"{"memory": {"limit": 67108864, "reservation": 33554432, "swap": 134217728,
                    "kernelTCP": 16777216, "swappiness": 7, "disableOOMKiller": true,
                    "useHierarchy": true}}"#,
            )],
            script: "cd /sys/fs/cgroup/memory; cat memory.limit_in_bytes memory.soft_limit_in_bytes \
                     memory.memsw.limit_in_bytes memory.kmem.tcp.limit_in_bytes memory.swappiness \
                     memory.use_hierarchy; head -1 memory.oom_control",
            prints: "67108864\n33554432\n134217728\n16777216\n7\n1\noom_kill_disable 1",
        },
    ),
    row(&["linux.resources.memory.kernel"], Recorded("v2_memory_counts_swap_apart")),
    row(
        &["linux.resources.memory.checkBeforeUpdate"],
        Test("a_limit_below_use_is_refused_when_asked_to_check"),
    ),
    row(
        &[
            "linux.resources.cpu.shares",
            "linux.resources.cpu.quota",
            "linux.resources.cpu.burst",
            "linux.resources.cpu.period",
        ],
        Legacy {
            controller: "cpu",
            patch: &[(
                "/linux/resources",
                r#"{"cpu": {"shares": 512, "quota": 40000, "period": 80000, "burst": 20000}}"#,
            )],
            script: "cd /sys/fs/cgroup/cpu; cat cpu.shares cpu.cfs_quota_us cpu.cfs_period_us \
                     cpu.cfs_burst_us",
            prints: "512\n40000\n80000\n20000",
        },
    ),
    row(
        &["linux.resources.cpu.idle"],
        Legacy {
            controller: "cpu",
            patch: &[("/linux/resources", r#"{"cpu": {"idle": 1}}"#)],
            script: "cat /sys/fs/cgroup/cpu/cpu.idle",
            prints: "1",
        },
    ),
    row(
        &["linux.resources.cpu.realtimeRuntime", "linux.resources.cpu.realtimePeriod"],
        Legacy {
            controller: "cpu",
            patch: &[(
                "/linux/resources",
                r#"{"cpu": {"realtimeRuntime": 1000, "realtimePeriod": 500000}}"#,
            )],
            script: "cd /sys/fs/cgroup/cpu; cat cpu.rt_runtime_us cpu.rt_period_us",
            prints: "1000\n500000",
        },
    ),
    row(
        &["linux.resources.cpu.cpus", "linux.resources.cpu.mems"],
        Inside {
            patch: &[("/linux/resources", r#"{"cpu": {"cpus": "0", "mems": "0"}}"#)],
            script: "grep -E '^(Cpus|Mems)_allowed_list' /proc/self/status | tr -s '\\t' ' '",
            prints: "Cpus_allowed_list: 0\nMems_allowed_list: 0",
        },
    ),
    row(&["linux.resources.pids.limit"], Test("the_pids_limit_holds")),
    row(
        &[
            "linux.resources.blockIO.throttleReadBpsDevice[].major",
            "linux.resources.blockIO.throttleReadBpsDevice[].minor",
            "linux.resources.blockIO.throttleReadBpsDevice[].rate",
            "linux.resources.blockIO.throttleWriteBpsDevice[].major",
            "linux.resources.blockIO.throttleWriteBpsDevice[].minor",
            "linux.resources.blockIO.throttleWriteBpsDevice[].rate",
            "linux.resources.blockIO.throttleReadIOPSDevice[].major",
            "linux.resources.blockIO.throttleReadIOPSDevice[].minor",
            "linux.resources.blockIO.throttleReadIOPSDevice[].rate",
            "linux.resources.blockIO.throttleWriteIOPSDevice[].major",
            "linux.resources.blockIO.throttleWriteIOPSDevice[].minor",
            "linux.resources.blockIO.throttleWriteIOPSDevice[].rate",
        ],
        Legacy {
            controller: "blkio",
            patch: &[(
                "/linux/resources",
                r#"{"blockIO": {
                    "throttleReadBpsDevice": [{"major": @MAJOR, "minor": @MINOR, "rate": 1000001}],
                    "throttleWriteBpsDevice": [{"major": @MAJOR, "minor": @MINOR, "rate": 1000002}],
                    "throttleReadIOPSDevice": [{"major": @MAJOR, "minor": @MINOR, "rate": 103}],
                    "throttleWriteIOPSDevice": [{"major": @MAJOR, "minor": @MINOR, "rate": 104}]}}"#,
            )],
            script: "cd /sys/fs/cgroup/blkio; cat blkio.throttle.read_bps_device \
                     blkio.throttle.write_bps_device blkio.throttle.read_iops_device \
                     blkio.throttle.write_iops_device",
            prints: "@MAJOR:@MINOR 1000001\n@MAJOR:@MINOR 1000002\n@MAJOR:@MINOR 103\n@MAJOR:@MINOR 104",
        },
    ),
    row(
        &[
            "linux.resources.blockIO.weight",
            "linux.resources.blockIO.leafWeight",
            "linux.resources.blockIO.weightDevice[].major",
            "linux.resources.blockIO.weightDevice[].minor",
            "linux.resources.blockIO.weightDevice[].weight",
            "linux.resources.blockIO.weightDevice[].leafWeight",
        ],
        Recorded("v2_io_knows_both_weights_and_four_throttles"),
    ),
    row(
        &["linux.resources.hugepageLimits[].pageSize", "linux.resources.hugepageLimits[].limit"],
        Test("huge_pages_are_limited_where_their_controller_is"),
    ),
    row(
        &[
            "linux.resources.network.classID",
            "linux.resources.network.priorities[].name",
            "linux.resources.network.priorities[].priority",
            "linux.resources.rdma.*.hcaHandles",
            "linux.resources.rdma.*.hcaObjects",
        ],
        Recorded("small_controllers_write_one_line_each"),
    ),
    row(&["linux.resources.unified.*"], Test("unified_files_are_written_by_name_and_only_there")),
];
