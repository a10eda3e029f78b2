/* The plain pool of pages in scalar C: the yardstick of `make bench`.
 *
 *   plain_pool THREADS PAGES ALLOC QUOTA RESERVE RATE DEPTH EPISODES SEED
 *
 * THREADS flushers of `alloc(ALLOC), submit` under Watermark(RESERVE), QUOTA writepages each, on one
 * device: the rules of MODEL.md sections 3 to 7, `enter` and `exit` being steps of rate 1 like any
 * other. Prints one line of JSON: counts, seconds, and sums over the episodes of the integrals over
 * time that the engine's tally keeps. Entry, semaphore and locks have no guard here: nobody ever
 * waits for them, and they cost nothing.
 *
 * Like the engine it draws the jump chain alone and charges each state its expected holding time,
 * 1 / total rate. A thread is a record of 8 bytes. Threads whose next step has no guard stand first,
 * those at the alloc behind them: the enabled ones are a prefix, and a firing moves one record at
 * most across the border.
 *
 * Rates are integers, in units so small that the total just fits. One multiplication then turns 64
 * random bits into a thread's number, and no event waits for a conversion to double and back. A
 * dyadic RATE is exact; another is rounded to about 2^-61 of the total. -DDOUBLES makes the program
 * that one writes first, the same but for rates in double. */
#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#ifdef DOUBLES
typedef double Rate;
#else
typedef uint64_t Rate;
#endif

typedef struct { uint64_t s[4]; } Rng;
typedef struct { int32_t step, left; } Thread; /* step: 0 enter, 1..ALLOC, submit, exit */

/* splitmix64 and xoshiro256++: Blackman and Vigna, public domain. */
static uint64_t splitmix64(uint64_t *x)
{
	uint64_t z = *x += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static Rng stream(uint64_t seed, uint64_t episode)
{
	uint64_t x = splitmix64(&seed) ^ episode;
	Rng rng;

	for (int k = 0; k < 4; k++)
		rng.s[k] = splitmix64(&x);
	return rng;
}

static inline uint64_t rotl(uint64_t x, int k)
{
	return x << k | x >> (64 - k);
}

static inline uint64_t next(Rng *rng)
{
	uint64_t *s = rng->s, result = rotl(s[0] + s[3], 23) + s[0], t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotl(s[3], 45);
	return result;
}

#ifdef DOUBLES
static inline Rate in_units(double rate, int shift) { return (void)shift, rate; }
static inline Rate of_steps(int64_t steps, int shift) { return (void)shift, (double)steps; }
static inline double as_double(Rate rate) { return rate; }

/* The whole part of a point drawn uniformly from [0, total). */
static inline int64_t draw(Rng *rng, Rate total, int shift)
{
	return (void)shift, (int64_t)((double)(next(rng) >> 11) * 0x1p-53 * total);
}
#else
static inline Rate in_units(double rate, int shift) { return (Rate)llround(ldexp(rate, shift)); }
static inline Rate of_steps(int64_t steps, int shift) { return (Rate)steps << shift; }
static inline double as_double(Rate rate) { return (double)(int64_t)rate; } /* signed: one instruction */

static inline int64_t draw(Rng *rng, Rate total, int shift)
{
	return (int64_t)((uint64_t)((unsigned __int128)next(rng) * total >> 64) >> shift);
}
#endif

static double argument(const char *text, double least, double most)
{
	char *end;
	double value;

	errno = 0;
	value = strtod(text, &end);
	if (errno || end == text || *end || !(value >= least && value <= most)) {
		fprintf(stderr, "plain_pool: %s; give a number from %g to %g\n", text, least, most);
		exit(2);
	}
	return value;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
	if (argc != 10) {
		fputs("usage: plain_pool THREADS PAGES ALLOC QUOTA RESERVE RATE DEPTH EPISODES SEED\n", stderr);
		return 2;
	}
	const int32_t threads = (int32_t)argument(argv[1], 1, 1 << 20);
	const int32_t pages = (int32_t)argument(argv[2], 0, 1 << 30);
	const int32_t alloc = (int32_t)argument(argv[3], 1, 1 << 20);
	const int32_t quota = (int32_t)argument(argv[4], 1, 1 << 30);
	const int32_t reserve = (int32_t)argument(argv[5], 0, pages);
	const double rate = argument(argv[6], 1e-9, 1e9);
	const int32_t depth = (int32_t)argument(argv[7], 1, 1 << 20);
	const uint64_t episodes = (uint64_t)argument(argv[8], 1, 1e12);
	const uint64_t seed = (uint64_t)argument(argv[9], 0, 0x1p53);

	int bits;

	frexp(threads + rate * depth, &bits); /* no total rate reaches 2^bits, so in units none reaches 2^63 */
	const int shift = 62 - bits;
	const double unit = as_double(of_steps(1, shift));
	const Rate channel = in_units(rate, shift);

	Thread *thread = malloc((size_t)threads * sizeof *thread);
	if (!thread) {
		fputs("plain_pool: out of memory\n", stderr);
		return 1;
	}
	uint64_t events = 0, deadlocks = 0, completed = 0;
	int64_t idle_peak = 0;
	double time = 0, inside_sum = 0, waiting_sum = 0, idle_sum = 0;
	const double start = now();

	for (uint64_t episode = 0; episode < episodes; episode++) {
		Rng rng = stream(seed, episode);
		/* thread[0 .. ready) have no guard, thread[ready .. ready + at_alloc) stand at the alloc. */
		int32_t ready = threads, at_alloc = 0;
		int32_t free_pages = pages, bios = 0, inside = 0, peak = 0;

		for (int32_t i = 0; i < threads; i++)
			thread[i] = (Thread){0, quota};
		for (;;) {
			int64_t enabled = ready + (free_pages > 0 ? at_alloc : 0);
			Rate total = of_steps(enabled, shift) + channel * (Rate)(bios < depth ? bios : depth);

			if (total == 0)
				break;
			double holding = unit / as_double(total);
			int32_t idle = free_pages < reserve ? free_pages : reserve;

			events++;
			time += holding;
			inside_sum += inside * holding;
			waiting_sum += (free_pages > 0 ? 0 : at_alloc) * holding;
			idle_sum += idle * holding;
			if (idle > peak)
				peak = idle;

			int64_t i = draw(&rng, total, shift);

			if (i >= enabled) { /* a bio completes */
				bios--;
				free_pages += alloc;
				continue;
			}
			Thread me = thread[i];

			if (i >= ready) { /* one page */
				free_pages--;
				if (me.step++ < alloc) {
					thread[i] = me;
				} else {
					thread[i] = thread[ready];
					thread[ready++] = me;
					at_alloc--;
				}
			} else if (me.step == 0) { /* enter */
				inside++;
				me.step = 1;
				thread[i] = thread[--ready];
				thread[ready] = me;
				at_alloc++;
			} else if (me.step == alloc + 1) { /* submit */
				bios++;
				me.step++;
				thread[i] = me;
			} else { /* exit */
				inside--;
				completed++;
				me.step = 0;
				thread[i] = me;
				if (--thread[i].left == 0) {
					thread[i] = thread[--ready];
					thread[ready] = thread[ready + at_alloc];
				}
			}
		}
		idle_peak += peak;
		deadlocks += ready + at_alloc > 0;
	}

	const double seconds = now() - start;

	printf("{\"episodes\": %llu, \"events\": %llu, \"deadlocks\": %llu, \"completed\": %llu, "
	       "\"seconds\": %.6f, \"events_per_second\": %.0f, \"time\": %.17g, \"inside\": %.17g, "
	       "\"waiting_pages\": %.17g, \"idle\": %.17g, \"idle_peak\": %lld}\n",
	       (unsigned long long)episodes, (unsigned long long)events, (unsigned long long)deadlocks,
	       (unsigned long long)completed, seconds, (double)events / seconds, time, inside_sum,
	       waiting_sum, idle_sum, (long long)idle_peak);
	free(thread);
	return 0;
}
