/* Put before a program that is counted (LD_PRELOAD), so that two runs of it do the same.
 *
 * - Random bytes are the same in every run. Std's hash maps take their seeds from here, and seeds decide which of Pingora's
 *   pooled connections meet in one bucket, and so how often their map is built anew.
 * - The clock stands still for sixteen seconds, and then leaps. Pingora has one timer for all that end within the same ten
 *   milliseconds; how many requests share one would otherwise say how fast the machine is.
 */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

/* A power of two. */
#define STEP_SECONDS 16

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
	long failed = syscall(SYS_clock_gettime, clock, now);
	if (!failed && clock == CLOCK_MONOTONIC)
		now->tv_sec &= ~(time_t)(STEP_SECONDS - 1), now->tv_nsec = 0;
	return (int)failed;
}
