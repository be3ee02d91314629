/* Test oracle: reads "name errno index operator value value2" lines (index -1: no condition) and writes libseccomp's
 * program for them, with everything else allowed, for x86-64, i386 and x32. Names that it refuses
 * a rule for go to standard error. */
#include <errno.h>
#include <inttypes.h>
#include <seccomp.h>
#include <stdio.h>
#include <unistd.h>

int main(void)
{
	char name[64];
	unsigned int error, operator;
	int index;
	uint64_t value, two;
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

	if (!filter)
		return 1;
	seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (seccomp_arch_add(filter, SCMP_ARCH_X86) || seccomp_arch_add(filter, SCMP_ARCH_X32))
		return 2;
	while (scanf("%63s %u %d %u %" SCNu64 " %" SCNu64, name, &error, &index, &operator, &value, &two) == 6) {
		int number = seccomp_syscall_resolve_name(name);
		int failed;

		if (number == __NR_SCMP_ERROR)
			continue;
		if (index < 0) {
			failed = seccomp_rule_add(filter, SCMP_ACT_ERRNO(error), number, 0);
		} else {
			struct scmp_arg_cmp compare = {
				.arg = (unsigned int)index, .op = (enum scmp_compare)operator, .datum_a = value, .datum_b = two,
			};
			failed = seccomp_rule_add_array(filter, SCMP_ACT_ERRNO(error), number, 1, &compare);
		}
		if (failed)
			fprintf(stderr, "%s\n", name);
	}
	return seccomp_export_bpf(filter, STDOUT_FILENO) ? 3 : 0;
}
