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
# # 08 Make your own, and put it on trial
#
# **What should have been proposed, and does yours hold?**
#
# The proposal of 6 November 2004 (Andrea Arcangeli,
# [20041107011638.GJ3851@dualathlon.random](https://lore.kernel.org/all/20041107011638.GJ3851@dualathlon.random/))
# is one of many. A scheme is five choices, and so is yours: change the two cells below and run all.
#
# - **start**, what is set aside before the first step: nothing, mark, mount_pools, pool, own
# - **entry**, what a thread needs to begin a section: nothing, half_mark, own_by_page,
#   own_at_once, own_full, tickets, semaphore
# - **grants**, where an alloc looks for its page, in order: free, memalloc, own, claim, mount_pool,
#   global_pool
# - **exit**, what a thread does to end its section: nothing, give_back, unclaim, refill,
#   refill_flag_set, wait_full
# - **returns**, where the pages of a completed bio go first: free, mount_pool, own, pool
#
# Choices that do not fit together are refused with a line that says why. The engine knows choices,
# not names: every solver and every panel takes what can be made of them.

# %% tags=["parameters"] small={"episodes": 1000, "threads": 6}
machine = "2.6.9-64MB"  # of rl.machines
threads = 12
searched = ["plain", "locks", "dirtiers", "completion"]  # of data/search
episodes = 20_000
seed = 1

# %%
# %matplotlib inline
# %config InlineBackend.print_figure_kwargs = {"dpi": 140}
import pandas as pd

import reservelab as rl
from reservelab.show.figures import side_by_side
from reservelab.study.search import shipped_scenarios

# %% [markdown]
# ## Your scheme
#
# This one takes the semaphore on entry, before any lock, but draws on the pool *before* free
# memory, and waits until its bio has filled it again: where a section needs no more than the pool,
# it takes no page that others could have used, and waits for none.

# %%
mine = rl.Scheme(
    start="pool",
    entry="semaphore",
    grants=("global_pool", "free"),
    exit="wait_full",
    returns="pool",
)
print(mine.variant)

# %%
try:
    rl.Scheme(start="pool", entry="semaphore", grants=("free",), exit="nothing", returns="pool")
except rl.BadInput as refusal:
    print(refusal)

# %% [markdown]
# ## Your filesystem
#
# Its writepage as a list of steps. This one takes a page or two, opens its journal, takes another
# under the lock, submits, and waits for its own I/O.

# %%
myfs = rl.Filesystem(
    "myfs",
    [
        rl.alloc({1: 0.8, 2: 0.2}),
        rl.lock("journal"),
        rl.alloc(1),
        rl.unlock("journal"),
        rl.submit(),
        rl.wait(),
    ],
)
print(f"{myfs.name}: worst case {myfs.nr_pages} pages, mean {myfs.mean_demand}")

# %% [markdown]
# ## On trial
#
# Small enough to be proved: three writers, as many pages as the worst case of two of them. Beside
# it the named schemes, in the same situation.

# %%
def trial(scheme: rl.Scheme, mounts: list[rl.Mount]) -> rl.Scenario:
    """A scheme over some mounts, with its default reserve or half the pages."""
    pages = 2 * myfs.nr_pages
    reserve = None if scheme.start == "pool" else pages // 2 // len(mounts)
    return rl.Scenario(rl.Machine(pages), mounts, scheme.sized(reserve), quota=2)


situations = {
    "alone": [rl.Mount(myfs, flushers=3)],
    "beside users": [rl.Mount(myfs, flushers=2, dirtiers=1)],
    "stacked": [rl.Mount(myfs), rl.Mount(myfs, flushers=2, on=0)],
}
# A standing reserve for every thread is more than there is.
names = [name for name in rl.variants() if name != "perthread standing"]
candidates = [mine, *(rl.Scheme.unsized(name) for name in names)]
rows = [
    {
        "scheme": scheme.variant,
        "situation": situation,
        "safe": (proof := rl.prove(trial(scheme, mounts))).safe and proof.livelock_free,
    }
    for scheme in candidates
    for situation, mounts in situations.items()
]
safe = pd.DataFrame(rows).pivot(index="scheme", columns="situation", values="safe")
safe.loc[[scheme.variant for scheme in candidates]]

# %% [markdown]
# Where it is unsafe, the theatre plays the shortest path; where it is safe, an episode.

# %%
rl.Theatre(trial(mine, situations["stacked"]), seed=seed)

# %% [markdown]
# ## Every scheme there is
#
# `rl.search` composes every combination of choices and asks `prove` and `exact` of each that is a
# scheme, in small scenarios that are each there to kill something. Here some of them and no limit
# on sections; [docs/search.md](../docs/search.md) has all. How many choices of the proposal must be
# others, to be safe in so many of them, and which schemes are that near?

# %%
shipped = shipped_scenarios()
found = rl.search({name: shipped[name] for name in searched}, limits=[None])
columns = ["changes", "start", "entry", "grants", "exit", "returns", "reserve", "idle",
           "throughput"]  # fmt: skip
nearest = {
    ", ".join(searched[:k]): found.nearest(rl.GlobalPool(), searched[:k])[columns]
    for k in range(2, len(searched) + 1)
}
pd.concat(nearest, names=["safe in", ""]).droplevel(1)

# %% [markdown]
# ## On the bench, and in the other panels
#
# Your scheme is beside the named ones, your filesystem among the weights of the mix.

# %%
bench = rl.Bench(
    schemes=[mine], filesystems=[myfs], mix=myfs, machine=machine, threads=threads, seed=seed
)
bench

# %%
panel = rl.SweepPanel(
    schemes=[mine], filesystems=[myfs], threads=[threads // 2, threads], reserve=["need", 16],
    only=[mine.variant, "watermark", "global on-entry refill-completion"], machine=machine,
    episodes=episodes, store="", seed=seed,
)  # fmt: skip
panel

# %%
panel.run()
assert panel.wait(170)
decision = rl.DecisionPanel(panel, risk=0.01)
decision

# %%
tallies = [
    rl.simulate(trial(scheme, situations["alone"]), episodes, seed) for scheme in candidates
]
exact = {t.scenario.digest: rl.exact(t.scenario).deadlock_probability for t in tallies}
side_by_side(pd.DataFrame([tally.row() for tally in tallies]), exact)

# %% [markdown]
# ## Finding
#
# The proposal as posted is not among the safe schemes in any of the sets of scenarios above.
# Whatever you made above: the solvers must agree about it. Where it is proved safe the exact
# probability of a deadlock is zero, and the simulation's 95 % interval holds it either way. It took
# part in every panel.

# %%
assert all((frame["changes"] > 0).all() for frame in nearest.values())
for situation, mounts in situations.items():
    scenario = trial(mine, mounts)
    probability = rl.exact(scenario).deadlock_probability
    seen = rl.simulate(scenario, episodes, seed).deadlock_probability
    print(f"{situation}: safe {safe[situation][mine.variant]}, exactly {probability:.6f}, {seen}")
    assert safe[situation][mine.variant] == (probability == 0)
    assert seen.low <= probability <= seen.high
assert mine.variant in set(panel.frame()["variant"])
assert bench.wait(170)
assert mine.variant in set(bench.frame()["variant"])
assert decision.wait(120)
