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
# # 03 Simulated against exact
#
# **Can the simulation be believed?**
#
# Two solvers read the same rules. `simulate` draws episodes; `exact` enumerates every reachable
# state, builds the absorbing Markov chain and solves it. Where a scenario is small enough for
# both, the second says what the first should have found. Everything the mail of 6 November 2004
# ([20041107011638.GJ3851@dualathlon.random](https://lore.kernel.org/all/20041107011638.GJ3851@dualathlon.random/))
# argues about is in this comparison: the watermark, mempools, per-thread pages, the global pool
# with its choices, and tickets.

# %% tags=["parameters"] small={"episodes": 2000}
episodes = 200_000
seed = 1

# %%
# %matplotlib inline
# %config InlineBackend.print_figure_kwargs = {"dpi": 140}
import pandas as pd

import reservelab as rl
from reservelab.show.figures import side_by_side
from reservelab.solve.tally import clopper_pearson

locked = rl.Filesystem(
    "locked", [rl.alloc({1: 0.7, 2: 0.3}), rl.lock("l"), rl.alloc(1), rl.unlock("l"), rl.submit()]
)


def small(variant: str, waiting: str) -> rl.Scenario:
    """Four flushers that need two or three pages each; six pages, three of them the reserve."""
    scheme = rl.Scheme.unsized(variant).sized(3)
    return rl.Scenario(rl.Machine(6), [rl.Mount(locked, 4)], scheme, quota=2, waiting=waiting)


# A standing reserve for every thread is more than there is.
variants = [variant for variant in rl.variants() if variant != "perthread standing"]

# %% [markdown]
# ## Every scheme, both rules of waiting
#
# Crosses are exact values, the other markers estimates with 95 % intervals. Where no episode
# deadlocked, the estimate is an upper bound and not a zero; `exact` may well say zero.

# %%
scenarios = [small(v, w) for w in ("asleep", "racing") for v in variants]
exact = {scenario.digest: rl.exact(scenario) for scenario in scenarios}
tallies = [rl.simulate(scenario, episodes, seed) for scenario in scenarios]
frame = pd.DataFrame([tally.row() for tally in tallies])
risks = {digest: solved.deadlock_probability for digest, solved in exact.items()}
side_by_side(frame[frame["waiting"] == "asleep"], risks)

# %%
side_by_side(frame[frame["waiting"] == "racing"], risks)

# %% [markdown]
# ## The other means
#
# Not only the risk: idle pages, throughput and latency have exact values too.

# %%
quantities = ["deadlock_probability", "idle_reserve_mean", "throughput", "latency"]
rows = [
    {
        "scheme": tally.scenario.scheme.variant,
        "waiting": tally.scenario.waiting,
        "quantity": quantity,
        "low": getattr(tally, quantity).low,
        "high": getattr(tally, quantity).high,
        "exact": getattr(exact[tally.scenario.digest], quantity),
    }
    for tally in tallies
    for quantity in quantities
]
compared = pd.DataFrame(rows)
compared["inside"] = compared["exact"].between(compared["low"], compared["high"])
compared.pivot(index=["scheme", "waiting"], columns="quantity", values="inside")

# %% [markdown]
# ## Finding
#
# A 95 % interval should miss once in twenty. Over all schemes and both rules the share of deadlock
# intervals that hold the exact value is itself an estimate; its 99.9 % interval
# (Clopper-Pearson) reaches 0.95 or more. A rule that the two solvers read differently would show
# as a row of misses that grows with the number of episodes.

# %%
hits = compared[compared["quantity"] == "deadlock_probability"]["inside"]
coverage = clopper_pearson(int(hits.sum()), int(hits.sum()), len(hits))
print(f"{hits.sum()} of {len(hits)} intervals hold the exact value: {coverage}")
assert coverage.high >= 0.95
