// SPDX-License-Identifier: GPL-2.0-only
/*
 * exhaust DIRECTORY TASKS PAGES HOG
 *
 * Dirties a file of PAGES pages for each of TASKS tasks: every other page, so
 * that each is an extent of its own and a block for it has yet to be found when
 * it is written. Then it tells the hog to take the memory, and all tasks call
 * fsync() at the same time. It says how long each took; whoever watches says
 * what it means if nothing is said.
 *
 * What it needs it has, and has locked, before memory runs out.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define BYSTANDERS 8

static void must(int good, const char *what)
{
	if (good)
		return;
	perror(what);
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

/* One write(), so that lines of several tasks do not mix. */
static void say(const char *format, ...)
{
	char line[128];
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	must(write(1, line, length) == length, "say");
}

static void oom_score_adj(const char *value)
{
	int file = open("/proc/self/oom_score_adj", O_WRONLY);

	must(write(file, value, strlen(value)) > 0, "oom_score_adj");
	close(file);
}

/* Somebody for the OOM killer to take, as there is on any machine */
static void stand_by(void)
{
	static char memory[64 * PAGE];

	oom_score_adj("1000");
	memset(memory, 1, sizeof(memory));
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	static char page[PAGE];
	int tasks, pages, go[2], done[2], hog, i, k;
	double start;

	must(argc == 5, "exhaust DIRECTORY TASKS PAGES HOG");
	tasks = atoi(argv[2]);
	pages = atoi(argv[3]);
	for (i = 0; i < BYSTANDERS; i++)
		if (!fork())
			stand_by();
	hog = open("/sys/kernel/debug/reserved_pages_hog", O_WRONLY);
	must(hog >= 0, "reserved_pages_hog");
	must(pipe(go) == 0 && pipe(done) == 0, "pipe");
	/* If a task were killed, nothing would be learnt from it. */
	oom_score_adj("-1000");

	memset(page, 'x', sizeof(page));
	for (i = 0; i < tasks; i++) {
		char name[128];
		int file, failed;

		snprintf(name, sizeof(name), "%s/file%d", argv[1], i);
		file = open(name, O_CREAT | O_WRONLY, 0600);
		must(file >= 0, name);
		for (k = 0; k < pages; k++)
			must(pwrite(file, page, PAGE, 2L * k * PAGE) == PAGE,
			     name);
		if (fork())
			continue;
		must(mlockall(MCL_CURRENT) == 0, "mlockall");
		close(go[1]);
		/* The first words of a task need memory; these are they. */
		say("exhaust: task %d is ready\n", i);
		must(read(go[0], page, 1) == 0, "go");
		start = now();
		failed = fsync(file) ? errno : 0;
		say("exhaust: task %d %s after %.1f ms\n", i,
		    failed ? strerror(failed) : "done", now() - start);
		must(write(done[1], page, 1) == 1, "done");
		_exit(0);
	}
	must(mlockall(MCL_CURRENT) == 0, "mlockall");
	sleep(1);
	say("exhaust: start\n");
	start = now();
	must(write(hog, argv[4], 1) == 1, "hog");
	close(go[1]);
	close(done[1]);
	for (i = 0; i < tasks; i++)
		must(read(done[0], page, 1) == 1, "done");
	say("exhaust: all done after %.1f ms\n", now() - start);
	return 0;
}
