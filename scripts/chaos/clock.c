/* Loaded into a proxy with LD_PRELOAD: shifts its wall clock by the nanoseconds in the file that CLOCK_OFFSET_FILE names, a signed
   64-bit number that may change at any time. The monotonic clock is left alone, as on a machine whose clock is set. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const int64_t none;
static const volatile int64_t *offset = &none;
static int (*system_clock)(clockid_t, struct timespec *);

__attribute__((constructor)) static void start(void) {
	system_clock = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
	const char *path = getenv("CLOCK_OFFSET_FILE");
	int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (file < 0)
		return;
	void *mapped = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
	if (mapped != MAP_FAILED)
		offset = mapped;
	close(file);
}

int clock_gettime(clockid_t id, struct timespec *now) {
	int result = system_clock ? system_clock(id, now) : (int)syscall(SYS_clock_gettime, id, now);
	if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
		int64_t shifted = (int64_t)now->tv_sec * 1000000000 + now->tv_nsec + *offset;
		now->tv_sec = shifted / 1000000000;
		now->tv_nsec = shifted % 1000000000;
	}
	return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
	struct timespec precise;
	(void)zone;
	if (clock_gettime(CLOCK_REALTIME, &precise) != 0)
		return -1;
	now->tv_sec = precise.tv_sec;
	now->tv_usec = precise.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *result) {
	struct timespec now;
	if (clock_gettime(CLOCK_REALTIME, &now) != 0)
		return (time_t)-1;
	if (result)
		*result = now.tv_sec;
	return now.tv_sec;
}
