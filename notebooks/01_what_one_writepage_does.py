# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 01 What one writepage does
#
# **What does a thread take between the start of a writepage and the end of its I/O, and where can
# it come to stand still?**
#
# The mail of 6 November 2004 (Andrea Arcangeli,
# [20041107011638.GJ3851@dualathlon.random](https://lore.kernel.org/all/20041107011638.GJ3851@dualathlon.random/))
# marks the critical section of a writepage so:
#
# ```c
# reiserf4_writepage()
# {
#     enable_reserved_pages_pool();
#
#     find_or_create_page()
#     journal something
#     getblk
#     biowhatever
#
#     disable_reserved_pages_pool();
# }
# ```
#
# Here a filesystem is that body as a list of steps: take pages, take and drop locks, submit the
# bio, perhaps wait for it. *enter* and *exit* around it belong to the reservation scheme. Each
# enabled step of each thread fires at rate 1, so one unit of time is the mean duration of one
# step. [docs/model.md](../docs/model.md) has every rule.

# %% tags=["parameters"] small={"episodes": 2000}
filesystem = "ext3"  # one of the catalogue, rl.filesystems
episodes = 200_000
seed = 1

# %%
# %matplotlib inline
# %config InlineBackend.print_figure_kwargs = {"dpi": 140}
import pandas as pd

import reservelab as rl

fs = rl.filesystems[filesystem]
for step in fs.program:
    print(step)

# %% [markdown]
# `alloc 0:0.9 1:0.1` takes no page with probability 0.9 and one with 0.1. Worst cases are read from
# the source or calculated from it; the weights between the typical and the worst case are
# estimates, and tagged so in [data/filesystems.toml](../data/filesystems.toml). Reiser4 took its
# per-thread pages for tree balancing, not in `->writepage` (Nikita Danilov,
# [m1d5wgrir7.fsf@clusterfs.com](https://lore.kernel.org/all/m1d5wgrir7.fsf@clusterfs.com/)); it is
# in the catalogue with one such balancing because the debate was about it.

# %%
catalogue = [rl.filesystems[name] for name in rl.filesystems]
pd.DataFrame(
    {
        "filesystem": [each.name for each in catalogue],
        "worst case (pages)": [each.nr_pages for each in catalogue],
        "mean (pages)": [each.mean_demand for each in catalogue],
        "locks": [", ".join(each.locks) for each in catalogue],
        "gives up without memory": [each.backs_out for each in catalogue],
    }
).set_index("filesystem").round(2)

# %% [markdown]
# ## Alone, with enough memory
#
# One thread, as many pages as the worst case, nothing set aside. The picture has a lane for the
# thread; under it the bio, which keeps its pages until the device completes it.

# %%
def alone(pages: int) -> rl.Scenario:
    """One flusher, one writepage, no reserve."""
    return rl.Scenario(rl.Machine(pages), [rl.Mount(fs, 1)], rl.Watermark(0), quota=1)


story = rl.trace(alone(fs.nr_pages), seed=seed)
print(story)

# %%
rl.swim_lanes(story)

# %% [markdown]
# ## Alone, with too little
#
# An alloc takes one page a step. A thread that holds some of its pages and finds no other waits,
# and keeps what it holds. With fewer pages than the worst case one thread is enough to stop for
# ever: it waits for a page, and nobody but itself has one. `prove` finds a shortest path to that.

# %%
rl.swim_lanes(rl.prove(alone(fs.nr_pages - 1)))

# %%
pages = range(fs.nr_pages + 2)
risk = pd.DataFrame(
    {
        "pages": pages,
        "deadlock reachable": [not rl.prove(alone(number)).safe for number in pages],
        "probability": [rl.exact(alone(number)).deadlock_probability for number in pages],
    }
).set_index("pages")
risk

# %% [markdown]
# ## Two threads, one lock
#
# A lock is owned by one thread; whoever finds it owned falls asleep in its queue, and the owner
# hands it over when it drops it, as `mutex_lock()` and `mutex_unlock()` do. Below, arrows are
# hand-overs. A thread that sleeps keeps its pages. From these three (pages kept while waiting for
# pages, locks and, under some schemes, a semaphore) every deadlock of this model is made:
# [02](02_one_deadlock.ipynb).

# %%
locked = rl.Filesystem(
    "locked", [rl.alloc(1), rl.lock("journal"), rl.alloc(1), rl.unlock("journal"), rl.submit()]
)
together = rl.Scenario(rl.Machine(8), [rl.Mount(locked, 3)], rl.Watermark(0), quota=1)
rl.swim_lanes(rl.trace(together, seed=seed))

# %% [markdown]
# ## Finding
#
# Alone, a writepage can come to stand still if and only if there are fewer pages than its worst
# case. How often it does is a matter of its demand: the simulation's 95 % interval holds the exact
# value (on another seed it would miss once in twenty).

# %%
assert list(risk["deadlock reachable"]) == [number < fs.nr_pages for number in pages]
few = round(fs.mean_demand)
tally = rl.simulate(alone(few), episodes, seed)
exact, seen = risk["probability"][few], tally.deadlock_probability
print(f"{few} pages: exactly {exact:.6f}, simulated {seen}")
assert seen.low <= exact <= seen.high
