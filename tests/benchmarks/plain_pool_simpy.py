"""The plain pool of pages as a SimPy user writes it: processes, timeouts, a Resource.

The same scenario, counts and integrals as plain_pool.c; one event is one firing of a step or one
completion, however many SimPy events that takes.

Pages are no Container: its queue is first come, first served and hands a page over in no time,
while here everybody who waits for a page races for it at rate 1 (MODEL.md, before section 1). So
free pages are a number. Who finds none waits for the next completion, then takes a fresh
exponential time, which has the law of a race because the exponential forgets. The device may well
be a Resource: all bios are equal, so it does not matter which one a channel serves first. A
deadlock needs no detector: SimPy's agenda runs dry with writepages left to do.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass

import simpy

from .c_twin import PlainPool

Process = Generator[simpy.Event, object, None]


@dataclass
class Sums:
    """Sums over all episodes, named as in the JSON line of plain_pool.c."""

    episodes: int = 0
    events: int = 0
    deadlocks: int = 0
    completed: int = 0
    seconds: float = 0.0
    events_per_second: float = 0.0
    time: float = 0.0
    inside: float = 0.0
    waiting_pages: float = 0.0
    idle: float = 0.0
    idle_peak: int = 0


class Episode:
    """One episode; `sums` receives its counts and integrals."""

    def __init__(self, pool: PlainPool, sums: Sums, rng: random.Random) -> None:
        self.pool = pool
        self.sums = sums
        self.exponential = rng.expovariate
        self.env = simpy.Environment()
        self.device = simpy.Resource(self.env, capacity=pool.depth)
        self.page_came_free = self.env.event()
        self.free = pool.pages
        self.inside = 0
        self.at_alloc = 0
        self.peak = min(pool.pages, pool.reserve)
        self.since = 0.0

    def run(self) -> None:
        for _ in range(self.pool.threads):
            self.env.process(self.flusher())
        completed = self.sums.completed
        # In a deadlock some timers of threads that then find no page run on: no time is charged
        # after the last firing.
        self.env.run()
        wanted = self.pool.threads * self.pool.quota
        self.sums.deadlocks += self.sums.completed - completed < wanted
        self.sums.idle_peak += self.peak
        self.sums.episodes += 1

    def account(self) -> None:
        """Charge the time since the last call to the state it was spent in."""
        elapsed = self.env.now - self.since
        self.since = self.env.now
        idle = min(self.free, self.pool.reserve)
        self.sums.time += elapsed
        self.sums.inside += self.inside * elapsed
        if self.free == 0:
            self.sums.waiting_pages += self.at_alloc * elapsed
        self.sums.idle += idle * elapsed
        if elapsed > 0 and idle > self.peak:
            self.peak = idle

    def step(self) -> simpy.Event:
        return self.env.timeout(self.exponential(1.0))

    def flusher(self) -> Process:
        for _ in range(self.pool.quota):
            yield self.step()  # enter
            self.account()
            self.sums.events += 1
            self.inside += 1
            self.at_alloc += 1
            for _ in range(self.pool.alloc):
                yield self.step()
                while self.free == 0:
                    yield self.page_came_free
                    yield self.step()
                self.account()
                self.sums.events += 1
                self.free -= 1
            self.at_alloc -= 1
            yield self.step()  # submit
            self.account()
            self.sums.events += 1
            self.env.process(self.bio())
            yield self.step()  # exit
            self.account()
            self.sums.events += 1
            self.inside -= 1
            self.sums.completed += 1

    def bio(self) -> Process:
        with self.device.request() as channel:
            yield channel
            yield self.env.timeout(self.exponential(self.pool.rate))
        self.account()
        self.sums.events += 1
        self.free += self.pool.alloc
        self.page_came_free.succeed()
        self.page_came_free = self.env.event()


def run(pool: PlainPool, episodes: int, seed: int) -> Sums:
    """Run the episodes; episode e of a seed is the same whatever ran before it."""
    sums = Sums()
    start = time.perf_counter()
    for episode in range(episodes):
        Episode(pool, sums, random.Random(f"{seed} {episode}")).run()
    sums.seconds = time.perf_counter() - start
    sums.events_per_second = sums.events / sums.seconds
    return sums


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m tests.benchmarks.plain_pool_simpy EPISODES SEED")
    print(json.dumps(asdict(run(PlainPool(), int(sys.argv[1]), int(sys.argv[2])))))
