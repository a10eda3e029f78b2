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
# # 06 Models, and points nobody ran
#
# **What do the fitted models say about scenarios that were not run, and when should they be
# believed?**
#
# "you're wasting loads of ram and you're as well less efficient" (Andrea Arcangeli on the
# per-thread pages,
# [20041107011638.GJ3851@dualathlon.random](https://lore.kernel.org/all/20041107011638.GJ3851@dualathlon.random/))
# is a statement about how waste grows. A sweep answers it at its cells; a model of the cells
# answers it between them, with an interval, and refuses outside.

# %% tags=["parameters"] small={"episodes": 1000}
mix = "network_2004"  # of rl.mixes
machine = "2.6.9-64MB"  # of rl.machines
schemes = ["perthread", "global lazy refill-completion"]
threads = [8, 10, 12, 16, 24]
reserves = [16, 32, 64]
unseen_threads = [9, 14, 20]
unseen_reserves = [24, 48]
episodes = 20_000
seed = 1

# %%
# %matplotlib inline
# %config InlineBackend.print_figure_kwargs = {"dpi": 140}
import pandas as pd

import reservelab as rl
from reservelab.show import figures

mounts = rl.mixes[mix].mounts(threads[0])
base = rl.Scenario(rl.machines[machine].machine, mounts, rl.Watermark(0), quota=10)


def run(threads: list[int], reserves: list[int]) -> pd.DataFrame:
    """The tidy frame of a grid, a row for each scenario."""
    axes = {"scheme": schemes, "mix": [mix], "threads": threads, "reserve": reserves}
    return rl.sweep(rl.Grid(base, axes), goal=rl.Episodes(episodes), seed=seed)


table = run(threads, reserves)
figures.risk_against_threads(table)

# %% [markdown]
# ## The fits
#
# One for each scheme and quantity: the hazard of a deadlock per writepage (complementary log-log,
# Jeffreys' penalty, profile intervals) and the idle pages (meta-regression on the cells' own
# intervals). Both allow for scatter where the cells ask for it. `reservelab/study/fits.py` says
# why.

# %%
fits = rl.fit(table)
print(fits.get("global lazy refill-completion", "deadlock"))

# %%
fits.goodness()

# %% [markdown]
# *slope* is the calibration on held-out cells: 1 is calibrated, far from 1 a warning, none a
# refusal. *scatter* is how far cells lie from the model beyond chance; the fit's text gives it as a
# factor in the hazard, too.
#
# ## How waste grows
#
# The coefficient of `log threads` for the idle pages is a scaling exponent: 0 does not grow with
# the threads, 1 grows in proportion.

# %%
figures.scaling(fits.frame())

# %% [markdown]
# ## Points nobody ran
#
# Predictions at thread counts and reserves between the cells; then the same scenarios are run. A
# prediction holds if its interval and the new simulation's overlap.

# %%
new = run(unseen_threads, unseen_reserves)


def at(row: pd.Series) -> dict[str, object]:
    """Where a row is, in the words of the fits; own pages have no reserve to choose."""
    names = ["mix", "threads"] + ["reserve"] * (row["reserve"] >= 0)
    return {name: row[name] for name in names}


rows = []
for _, row in new.iterrows():
    predicted = fits.get(row["variant"], "deadlock").predict(at(row))
    rows.append(
        {
            "scheme": row["variant"],
            "threads": row["threads"],
            "reserve": row["reserve"] if row["reserve"] >= 0 else "",
            "predicted": str(predicted),
            "simulated": str(rl.Interval(*(row[f"deadlock_probability_{e}"] for e in
                                           ("low", "best", "high")))),
            "holds": predicted.low <= row["deadlock_probability_high"]
            and row["deadlock_probability_low"] <= predicted.high,
        }
    )  # fmt: skip
compared = pd.DataFrame(rows)
compared

# %% [markdown]
# The global pool's curve is smooth in both directions and the predictions hold. Per-thread pages go
# from no deadlock to nothing but deadlocks within a few threads; there the line in `log threads` is
# not the curve, five cells cannot show that, and an interval can miss. In such a place run the
# cell.
#
# ## What they refuse

# %%
outside = {"mix": mix, "threads": 200, "reserve": 32}
unknown = {"mix": "today", "threads": 12, "reserve": 32}
for where in (outside, unknown):
    try:
        fits.get("global lazy refill-completion", "deadlock").predict(where)
    except rl.BadInput as refusal:
        print(refusal)

# %% [markdown]
# ## Finding
#
# For the global pool every prediction at the unseen points holds, on this seed. The idle pages of
# per-thread reservations grow with the threads, those of the global pool do not: "loads of ram",
# with an exponent.

# %%
pool = compared[compared["scheme"] == "global lazy refill-completion"]
assert pool["holds"].all()
grows = {scheme: fits.get(scheme, "idle_mean").exponent for scheme in schemes}
for scheme, exponent in grows.items():
    print(f"idle pages, {scheme}: twice the threads, 2 ** {exponent} times the pages")
assert grows["perthread"].low > grows["global lazy refill-completion"].high
