/* Put before a program that is counted (LD_PRELOAD), so that two runs of it do the same.
 *
 * - Random bytes are the same in every run. Std's hash maps take their seeds from here, and seeds decide which of Pingora's
 *   pooled connections meet in one bucket, and so how often their map is rebuilt.
 * - The clock stands still. Pingora has one timer for all that end within the same ten milliseconds; how many requests share
 *   one would otherwise say how fast the machine is. A sleeping thread still wakes, and finds that it is not yet time.
 */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

ssize_t getrandom(void *bytes, size_t length, unsigned int flags)
{
	/* splitmix64: https://prng.di.unimi.it/splitmix64.c. Each thread has its own, since their order differs too. */
	static __thread uint64_t state = 1;
	(void)flags;
	for (size_t i = 0; i < length; i++) {
		uint64_t z = (state += 0x9e3779b97f4a7c15);
		z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
		z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
		((unsigned char *)bytes)[i] = (unsigned char)(z ^ (z >> 31));
	}
	return (ssize_t)length;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	/* Set while there is one thread: Pingora, std and mimalloc all ask before they start others. */
	static struct timespec first;
	if (clock != CLOCK_MONOTONIC)
		return (int)syscall(SYS_clock_gettime, clock, now);
	if (!first.tv_sec)
		syscall(SYS_clock_gettime, clock, &first);
	*now = first;
	return 0;
}
