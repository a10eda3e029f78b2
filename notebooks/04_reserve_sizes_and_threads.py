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
# # 04 Reserve sizes and thread counts
#
# **How large must a reserve be for so many writers, and does a larger one help?**
#
# "low-mem watermark is mostly useless in the face of direct reclaim, when unbounded number of
# threads enter try_to_free_pages() and call ->writepage() simultaneously" (Nikita Danilov, quoted
# in [20041107011638.GJ3851@dualathlon.random](https://lore.kernel.org/all/20041107011638.GJ3851@dualathlon.random/);
# Andrea Arcangeli: "agreed"). For the global pool that mail asks for the size of the largest user:
# "you've only need to track each user nr_pages to know which is the max reservation you need".

# %% tags=["parameters"] small={"threads": [6, 24], "reserves": [16, 64], "episodes": 400}
mix = "network_2004"  # of rl.mixes
machine = "2.6.9-64MB"  # of rl.machines
threads = [6, 8, 12, 16, 24]
reserves = [16, 32, 64]
episodes = 5_000
risk = 0.01  # of a deadlock, per episode
seed = 1

# %%
# %matplotlib inline
# %config InlineBackend.print_figure_kwargs = {"dpi": 140}
from dataclasses import replace

import reservelab as rl
from reservelab.show import figures
from reservelab.show.cells import ends

# %% [markdown]
# ## The bench
#
# One machine, some writers, every scheme side by side. A slider that is let go starts a new run;
# numbers come at once, their intervals tighten while it goes on, the figure follows. Cancel stops
# it; what was run before is remembered. Where the states can be counted the exact value stands
# beside the estimate.

# %%
bench = rl.Bench(mix=mix, machine=machine, threads=threads[0], seed=seed)
bench

# %% [markdown]
# ## The sweep
#
# Every scheme ticked, at every thread count and reserve: the product of the lines below, in the
# background, with the time left. With a directory under *store* what is done is kept, and *Run or
# resume* goes on from there. *Export* writes the grid as TOML for `reservelab sweep`. The cell
# below the panel presses *Run or resume* and waits.

# %%
schemes = [
    "watermark", "watermark throttle", "mempool", "perthread", "perthread whole",
    "global lazy refill-allocate", "global lazy refill-completion",
    "global on-entry refill-completion", "tickets draw-last",
]  # fmt: skip
panel = rl.SweepPanel(
    only=schemes, mixes=[mix], threads=threads, reserve=reserves, machine=machine,
    episodes=episodes, store="", seed=seed,
)  # fmt: skip
panel

# %%
panel.run()
assert panel.wait(170)
table = panel.frame()
figures.risk_against_reserve(table)

# %%
figures.risk_against_threads(table)

# %%
figures.idle_against_threads(table)

# %% [markdown]
# ## The decision
#
# The risk one can live with goes in; out come the smallest reserve of each scheme by the fitted
# models, where they can answer, and what it costs in idle pages and throughput.

# %%
decision = rl.DecisionPanel(table, risk=risk)
decision

# %%
assert decision.wait(120)
decision.frame()

# %% [markdown]
# ## What the dead waited for

# %%
figures.dead(table)

# %% [markdown]
# ## Finding
#
# More writers deadlock more, under the watermark as it was. A larger pool does not help here; it
# hurts. What is set aside comes out of the same pages, a writepage takes a free page first, and on
# this mix a reply that completes a bio needs free pages too, which no pool gives it: every deadlock
# of the pool below is one in which replies wait for pages. Where replies need none, the same
# writers under the same scheme are not seen to deadlock. It is the throttle, which keeps writers
# out and so leaves pages free, that a larger reserve helps.

# %%
few, many, small, large = threads[0], threads[-1], reserves[0], reserves[-1]
pool = "global on-entry refill-completion"
throttle = "watermark throttle"
low, _, high = ends("deadlock_probability")
cells = table.set_index(["variant", "threads", "reserve"])[
    ["episodes", "deadlocks", "dead_completion", low, high]
]
cells.loc[
    [
        (variant, number, reserve)
        for variant in ("watermark", pool, throttle)
        for number, reserve in ((few, small), (many, small), (many, large))
    ]
]

# %%
rows = cells.to_dict("index")
assert rows["watermark", many, small][low] > rows["watermark", few, small][high]
assert rows[pool, many, large][low] > rows[pool, many, small][high]
assert rows[pool, many, large]["dead_completion"] == rows[pool, many, large]["deadlocks"]
assert rows[throttle, many, large][high] < rows[throttle, many, small][low]

# The same writers where no reply needs memory.
local = [
    replace(mount, device=replace(mount.device, completion_pages=0))
    for mount in rl.mixes[mix].mounts(many)
]
scheme = rl.Scheme.named(pool, reserve=large)
without = rl.simulate(
    rl.Scenario(rl.machines[machine].machine, local, scheme, quota=10), episodes, seed
)
print(f"{pool}, {many} threads, reserve {large}, replies without memory: {without.deadlocks} of "
      f"{without.episodes}")
assert without.deadlocks == 0
