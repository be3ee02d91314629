/* Test oracle: answers profiles with libseccomp's programs for x86-64, i386 and x32, one after the other.
 *
 * A profile is a line "profile DEFAULT", lines "rule NAME ACTION COUNT [INDEX OPERATOR VALUE VALUE2]...", and "end". The answer
 * is the number of refused rules, their positions, the program's size in bytes (all 32 bits) and the program. */
#define _GNU_SOURCE
#include <inttypes.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int add_rule(scmp_filter_ctx filter)
{
	struct scmp_arg_cmp compare[6];
	char name[64];
	uint32_t action;
	unsigned int count, index, operator, each;
	uint64_t value, two;
	int number;

	if (scanf("%63s %" SCNu32 " %u", name, &action, &count) != 3 || count > 6)
		return -1;
	for (each = 0; each < count; each++) {
		if (scanf("%u %u %" SCNu64 " %" SCNu64, &index, &operator, &value, &two) != 4)
			return -1;
		compare[each] = (struct scmp_arg_cmp){
			.arg = index, .op = (enum scmp_compare)operator, .datum_a = value, .datum_b = two,
		};
	}
	number = seccomp_syscall_resolve_name(name);
	if (number == __NR_SCMP_ERROR)
		return 1;
	return seccomp_rule_add_array(filter, action, number, count, compare) != 0;
}

static void put(uint32_t number)
{
	fwrite(&number, sizeof(number), 1, stdout);
}

static int answer(scmp_filter_ctx filter, const uint32_t *refused, uint32_t count)
{
	static char program[1 << 20];
	int file = memfd_create("program", 0);
	ssize_t size;

	if (file < 0 || seccomp_export_bpf(filter, file))
		return 3;
	size = pread(file, program, sizeof(program), 0);
	close(file);
	put(count);
	fwrite(refused, sizeof(*refused), count, stdout);
	put((uint32_t)size);
	fwrite(program, 1, (size_t)size, stdout);
	fflush(stdout);
	return 0;
}

int main(void)
{
	static uint32_t refused[4096];
	char word[16];
	uint32_t action, count, position;

	while (scanf("%15s %" SCNu32, word, &action) == 2 && !strcmp(word, "profile")) {
		scmp_filter_ctx filter = seccomp_init(action);

		if (!filter)
			return 1;
		seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
		if (seccomp_arch_add(filter, SCMP_ARCH_X86) || seccomp_arch_add(filter, SCMP_ARCH_X32))
			return 2;
		count = 0;
		for (position = 0; scanf("%15s", word) == 1 && !strcmp(word, "rule"); position++) {
			int failed = add_rule(filter);

			if (failed < 0 || position >= 4096)
				return 4;
			if (failed)
				refused[count++] = position;
		}
		if (answer(filter, refused, count))
			return 3;
		seccomp_release(filter);
	}
	return 0;
}
