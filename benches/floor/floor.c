/*
 * The floor: what the kernel asks for a container of `spec`'s configuration, and nothing else. It is what the runtimes
 * are compared with, not a runtime.
 *
 * It does what an OCI runtime's `run` does of that configuration, in straight lines: a cgroup in every hierarchy with its
 * device rules (and a memory limit where one is given), clone3 with the same new namespaces, the cgroup namespace, host
 * name, loopback, the same mounts, device nodes, links, masked and read-only paths, pivot_root, the read-only root, the
 * session keyring, rlimit, capabilities, no_new_privs, exec, waiting, removing the cgroup. `exec` enters the namespaces
 * and cgroups of a running container and does the last part of that.
 *
 * What it leaves out, all of it a runtime's duty: reading a configuration, keeping a state, a start apart from the
 * create, protecting its own executable and memory, resolving paths so that an image or a neighbour cannot lead them
 * astray (it mounts by plain paths), looking whether things are what they should be, hooks, terminals, seccomp, passing
 * signals on, and explaining what failed.
 *
 * Usage: floor run ROOTFS NAME MEMORY_LIMIT HIERARCHY... -- PROGRAM ARGUMENT...
 *        floor exec PID NAME HIERARCHY... -- PROGRAM ARGUMENT...
 *
 * NAME is the cgroup's directory below each HIERARCHY, which is `DIRECTORY|OPTIONS`: the mount options of a v1 hierarchy,
 * or nothing for cgroup2. MEMORY_LIMIT is in bytes, `-` for none.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define HIERARCHIES_MAX 32
#define COUNT(array) (sizeof(array) / sizeof(*(array)))

struct hierarchy {
	const char *directory;	/* the caller's own cgroup */
	const char *name;	/* what the container sees it as */
	const char *options;	/* of a v1 mount; empty: cgroup2 */
	int cgroup;		/* the container's, open */
	int tasks;		/* its tasks, of v1 */
};

static struct hierarchy hierarchies[HIERARCHIES_MAX];
static int hierarchy_count;
static int unified = -1;	/* the index of cgroup2 */
static char *path_of_shell[] = {
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", NULL
};

static long must(long result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
		_exit(125);
	}
	return result;
}

static void put(int directory, const char *file, const char *text)
{
	int fd = must(openat(directory, file, O_WRONLY | O_CLOEXEC), file);
	must(write(fd, text, strlen(text)), file);
	close(fd);
}

static void copy(int from, int to, const char *file)
{
	char text[4096];
	int fd = must(openat(from, file, O_RDONLY | O_CLOEXEC), file);
	long length = must(read(fd, text, sizeof(text) - 1), file);
	close(fd);
	text[length] = 0;
	put(to, file, text);
}

/* --- cgroups ------------------------------------------------------------------------------------------------------ */

static char **parse_hierarchies(char **words)
{
	for (; *words && strcmp(*words, "--"); words++) {
		struct hierarchy *it = &hierarchies[hierarchy_count];
		char *options = strrchr(*words, '|');
		if (!options || hierarchy_count == HIERARCHIES_MAX) {
			fprintf(stderr, "floor: not a hierarchy: %s\n", *words);
			_exit(125);
		}
		*options++ = 0;
		it->directory = *words;
		it->options = options;
		it->name = strncmp(options, "none,name=", 10) ? options : options + 10;
		if (!*options)
			unified = hierarchy_count;
		hierarchy_count++;
	}
	return *words ? words + 1 : words;
}

static int open_below(const char *directory, const char *name)
{
	int parent = must(open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC), directory);
	int fd = must(openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC), name);
	close(parent);
	return fd;
}

static const char *device_rules[] = {
	"c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm",
	"c 136:* rwm",
};

static void restrict_devices_v1(int cgroup)
{
	put(cgroup, "devices.deny", "a");
	for (size_t i = 0; i < COUNT(device_rules); i++)
		put(cgroup, "devices.allow", device_rules[i]);
}

#define OP(c, d, s, o, i) ((struct bpf_insn){ .code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i) })
#define JUMP_UNLESS(reg, value, distance) OP(BPF_JMP | BPF_JNE | BPF_K, reg, 0, distance, value)
#define ALLOW OP(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 1), OP(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
#define CHARACTER(major, minor) \
	JUMP_UNLESS(2, BPF_DEVCG_DEV_CHAR, 4), JUMP_UNLESS(4, major, 3), JUMP_UNLESS(5, minor, 2), ALLOW

static void restrict_devices_v2(int cgroup)
{
	struct bpf_insn code[] = {
		OP(BPF_LDX | BPF_MEM | BPF_W, 2, 1, 0, 0),
		OP(BPF_ALU64 | BPF_MOV | BPF_X, 3, 2, 0, 0),
		OP(BPF_ALU64 | BPF_AND | BPF_K, 2, 0, 0, 0xffff),
		OP(BPF_ALU64 | BPF_RSH | BPF_K, 3, 0, 0, 16),
		OP(BPF_LDX | BPF_MEM | BPF_W, 4, 1, 4, 0),
		OP(BPF_LDX | BPF_MEM | BPF_W, 5, 1, 8, 0),
		/* mknod alone, of any device */
		JUMP_UNLESS(3, BPF_DEVCG_ACC_MKNOD, 2), ALLOW,
		CHARACTER(1, 3), CHARACTER(1, 5), CHARACTER(1, 7), CHARACTER(1, 8), CHARACTER(1, 9), CHARACTER(5, 0),
		CHARACTER(5, 2),
		JUMP_UNLESS(2, BPF_DEVCG_DEV_CHAR, 3), JUMP_UNLESS(4, 136, 2), ALLOW,
		OP(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0), OP(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};
	union bpf_attr load = {
		.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE,
		.insns = (uintptr_t)code,
		.insn_cnt = COUNT(code),
		.license = (uintptr_t)"Apache-2.0",
	};
	int program = must(syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof(load)), "load the device program");
	union bpf_attr attach = {
		.target_fd = cgroup,
		.attach_bpf_fd = program,
		.attach_type = BPF_CGROUP_DEVICE,
		.attach_flags = BPF_F_ALLOW_MULTI,
	};
	must(syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof(attach)), "attach the device program");
	close(program);
}

static void make_cgroups(const char *name, const char *memory_limit)
{
	for (int i = 0; i < hierarchy_count; i++) {
		struct hierarchy *it = &hierarchies[i];
		int parent = must(open(it->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC), it->directory);
		must(mkdirat(parent, name, 0755), it->directory);
		it->cgroup = must(openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC), name);
		if (!strcmp(it->options, "cpuset")) {
			copy(parent, it->cgroup, "cpuset.cpus");
			copy(parent, it->cgroup, "cpuset.mems");
		}
		if (!strcmp(it->options, "devices"))
			restrict_devices_v1(it->cgroup);
		if (!strcmp(it->options, "memory") && strcmp(memory_limit, "-"))
			put(it->cgroup, "memory.limit_in_bytes", memory_limit);
		close(parent);
	}
	if (hierarchy_count == 1)
		restrict_devices_v2(hierarchies[0].cgroup);
}

static void open_tasks(void)
{
	for (int i = 0; i < hierarchy_count; i++)
		if (i != unified)
			hierarchies[i].tasks = must(openat(hierarchies[i].cgroup, "tasks", O_WRONLY | O_CLOEXEC), "tasks");
}

/* By the child itself: whom another one moves, by cgroup.procs, the kernel moves only after a grace period of RCU. */
static void join_v1(void)
{
	for (int i = 0; i < hierarchy_count; i++)
		if (i != unified)
			must(write(hierarchies[i].tasks, "0", 1), "join a cgroup");
}

static void remove_cgroups(const char *name)
{
	for (int i = 0; i < hierarchy_count; i++) {
		int parent = must(open(hierarchies[i].directory, O_PATH | O_DIRECTORY | O_CLOEXEC), "open");
		/* The last task may still be on its way out. */
		while (unlinkat(parent, name, AT_REMOVEDIR) < 0)
			if (errno != EBUSY)
				must(-1, "remove a cgroup");
		close(parent);
	}
}

/* --- the container's process -------------------------------------------------------------------------------------- */

static void mount_one(const char *type, const char *target, unsigned long flags, const char *data)
{
	must(mount(type, target, type, flags, data), target);
}

static void mount_cgroups(void)
{
	unsigned long flags = MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_RELATIME;
	if (hierarchy_count == 1) {
		mount_one("cgroup2", "sys/fs/cgroup", flags | MS_RDONLY, NULL);
		return;
	}
	mount_one("tmpfs", "sys/fs/cgroup", flags, "mode=755");
	for (int i = 0; i < hierarchy_count; i++) {
		char target[256];
		const char *name = i == unified ? "unified" : hierarchies[i].name;
		snprintf(target, sizeof(target), "sys/fs/cgroup/%s", name);
		must(mkdir(target, 0755), target);
		mount_one(i == unified ? "cgroup2" : "cgroup", target, flags | MS_RDONLY, hierarchies[i].options);
	}
	must(mount(NULL, "sys/fs/cgroup", NULL, flags | MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), "remount");
}

static void make_devices(void)
{
	static const struct { const char *path; int major, minor; } devices[] = {
		{ "dev/null", 1, 3 }, { "dev/zero", 1, 5 }, { "dev/full", 1, 7 }, { "dev/random", 1, 8 },
		{ "dev/urandom", 1, 9 }, { "dev/tty", 5, 0 },
	};
	static const char *links[][2] = {
		{ "/proc/self/fd", "dev/fd" }, { "/proc/self/fd/0", "dev/stdin" }, { "/proc/self/fd/1", "dev/stdout" },
		{ "/proc/self/fd/2", "dev/stderr" }, { "pts/ptmx", "dev/ptmx" },
	};
	for (size_t i = 0; i < COUNT(devices); i++)
		must(mknod(devices[i].path, S_IFCHR | 0666, makedev(devices[i].major, devices[i].minor)), devices[i].path);
	for (size_t i = 0; i < COUNT(links); i++)
		must(symlink(links[i][0], links[i][1]), links[i][1]);
}

static void protect_paths(void)
{
	static const char *read_only[] = { "proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger" };
	static const char *masked[] = {
		"proc/acpi", "proc/asound", "proc/kcore", "proc/keys", "proc/latency_stats", "proc/timer_list",
		"proc/timer_stats", "proc/sched_debug", "sys/firmware", "proc/scsi",
	};
	for (size_t i = 0; i < COUNT(read_only); i++) {
		if (mount(read_only[i], read_only[i], NULL, MS_BIND | MS_REC, NULL) < 0)
			continue;
		must(mount(NULL, read_only[i], NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), read_only[i]);
	}
	for (size_t i = 0; i < COUNT(masked); i++) {
		if (mount("/dev/null", masked[i], NULL, MS_BIND, NULL) == 0 || errno == ENOENT)
			continue;
		mount_one("tmpfs", masked[i], MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "nr_blocks=1,nr_inodes=1");
	}
}

static void enter_root(const char *rootfs)
{
	must(mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL), "make mounts slaves");
	must(mount(rootfs, rootfs, NULL, MS_BIND | MS_REC, NULL), rootfs);
	must(chdir(rootfs), rootfs);
	mount_one("proc", "proc", 0, NULL);
	mount_one("tmpfs", "dev", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
	must(mkdir("dev/pts", 0755), "dev/pts");
	must(mkdir("dev/shm", 0755), "dev/shm");
	must(mkdir("dev/mqueue", 0755), "dev/mqueue");
	mount_one("devpts", "dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
	mount_one("tmpfs", "dev/shm", MS_NOSUID | MS_NOEXEC | MS_NODEV, "mode=1777,size=65536k");
	mount_one("mqueue", "dev/mqueue", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL);
	mount_one("sysfs", "sys", MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_RDONLY, NULL);
	mount_cgroups();
	make_devices();
	protect_paths();
	must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	must(umount2(".", MNT_DETACH), "unmount the old root");
	must(chdir("/"), "/");
	must(mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), "make the root read-only");
}

static void loopback_up(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd = must(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");
	must(ioctl(fd, SIOCSIFFLAGS, &request), "set lo up");
	close(fd);
}

static void become(char **program)
{
	const uint64_t kept = 1ull << CAP_AUDIT_WRITE | 1ull << CAP_KILL | 1ull << CAP_NET_BIND_SERVICE;
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[2] = {
		{ .effective = (uint32_t)kept, .permitted = (uint32_t)kept },
	};
	/* KEYCTL_JOIN_SESSION_KEYRING */
	if (syscall(SYS_keyctl, 1, "_floor") < 0 && errno != ENOSYS)
		must(-1, "join a keyring");
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
	for (int capability = 0; capability <= CAP_LAST_CAP; capability++)
		if (!(kept >> capability & 1))
			must(prctl(PR_CAPBSET_DROP, capability, 0, 0, 0), "drop a capability");
	must(syscall(SYS_setgroups, 0, NULL), "set groups");
	must(syscall(SYS_setresgid, 0, 0, 0), "set the group");
	must(syscall(SYS_setresuid, 0, 0, 0), "set the user");
	must(syscall(SYS_capset, &header, sets), "set capabilities");
	umask(022);
	must(chdir("/"), "/");
	execve(program[0], program, path_of_shell);
	must(-1, program[0]);
}

static void wait_for_word(int channel)
{
	char word;
	must(read(channel, &word, 1) == 1 ? 0 : -1, "wait for the parent");
	close(channel);
}

/* Makes the process; answers 0 in it. The child waits for `release`. */
static pid_t make_process(uint64_t flags, int *pidfd)
{
	struct clone_args arguments = {
		.flags = flags | CLONE_PIDFD | (unified >= 0 ? CLONE_INTO_CGROUP : 0),
		.pidfd = (uintptr_t)pidfd,
		.exit_signal = SIGCHLD,
		.cgroup = unified >= 0 ? hierarchies[unified].cgroup : 0,
	};
	return must(syscall(SYS_clone3, &arguments, sizeof(arguments)), "clone3");
}

static void release(pid_t pid, int channel)
{
	struct rlimit files = { 1024, 1024 };
	must(prlimit(pid, RLIMIT_NOFILE, &files, NULL), "set the limit of files");
	must(write(channel, "", 1), "release the child");
	close(channel);
}

static int wait_for_end(int pidfd)
{
	siginfo_t end;
	must(waitid(P_PIDFD, pidfd, &end, WEXITED), "wait");
	return end.si_code == CLD_EXITED ? end.si_status : 128 + end.si_status;
}

static int run(const char *rootfs, const char *name, const char *memory_limit, char **words)
{
	int channel[2], pidfd;
	char **program = parse_hierarchies(words);
	make_cgroups(name, memory_limit);
	open_tasks();
	must(pipe2(channel, O_CLOEXEC), "pipe");
	pid_t pid = make_process(
		CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS | CLONE_CLEAR_SIGHAND, &pidfd);
	if (pid == 0) {
		close(channel[1]);
		wait_for_word(channel[0]);
		join_v1();
		must(setsid(), "setsid");
		must(unshare(CLONE_NEWCGROUP), "make a cgroup namespace");
		must(sethostname("floor", 5), "sethostname");
		loopback_up();
		umask(0);
		enter_root(rootfs);
		become(program);
	}
	release(pid, channel[1]);
	int code = wait_for_end(pidfd);
	remove_cgroups(name);
	return code;
}

static int execute(const char *init, const char *name, char **words)
{
	int channel[2], pidfd;
	char path[64];
	char **program = parse_hierarchies(words);
	for (int i = 0; i < hierarchy_count; i++)
		hierarchies[i].cgroup = open_below(hierarchies[i].directory, name);
	open_tasks();
	snprintf(path, sizeof(path), "/proc/%s/ns/cgroup", init);
	int cgroups = must(open(path, O_RDONLY | O_CLOEXEC), path);
	int target = must(syscall(SYS_pidfd_open, atoi(init), 0), "open init");
	must(pipe2(channel, O_CLOEXEC), "pipe");
	must(setns(target, CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS), "enter");
	pid_t pid = make_process(CLONE_CLEAR_SIGHAND, &pidfd);
	if (pid == 0) {
		close(channel[1]);
		wait_for_word(channel[0]);
		join_v1();
		must(setsid(), "setsid");
		must(setns(cgroups, CLONE_NEWCGROUP), "enter the cgroup namespace");
		become(program);
	}
	release(pid, channel[1]);
	return wait_for_end(pidfd);
}

int main(int count, char **words)
{
	if (count > 6 && !strcmp(words[1], "run"))
		return run(words[2], words[3], words[4], words + 5);
	if (count > 5 && !strcmp(words[1], "exec"))
		return execute(words[2], words[3], words + 4);
	fprintf(stderr, "floor: run ROOTFS NAME LIMIT HIERARCHY... -- PROGRAM... | exec PID NAME HIERARCHY... -- PROGRAM...\n");
	return 125;
}
