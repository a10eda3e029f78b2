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
# # 02 One deadlock, step by step
#
# **How can the proposal of 6 November 2004 deadlock, and which of its choices is to blame?**
#
# The mail (Andrea Arcangeli,
# [20041107011638.GJ3851@dualathlon.random](https://lore.kernel.org/all/20041107011638.GJ3851@dualathlon.random/)):
#
# > you have a global pool, protected by a global semaphore [...] so that when you hit oom [...] the
# > VM will trasparently take the semaphore and start using the pool.
#
# So the semaphore is taken at the first allocation that finds no free page, wherever in the
# writepage that is. Below, it is found while a lock of the filesystem is held.

# %% tags=["parameters"] small={"episodes": 2000}
episodes = 200_000
seed = 1

# %%
# %matplotlib inline
# %config InlineBackend.print_figure_kwargs = {"dpi": 140}
import pandas as pd

import reservelab as rl

journaled = rl.Filesystem(
    "journaled",
    [rl.alloc(1), rl.lock("journal"), rl.alloc(1), rl.unlock("journal"), rl.submit()],
)


def proposal(waiting: str = "asleep", **choices: object) -> rl.Scenario:
    """Three flushers and four pages, two of them in the global pool."""
    scheme = rl.GlobalPool(reserve=2, **choices)
    return rl.Scenario(
        rl.Machine(pages=4), [rl.Mount(journaled, flushers=3)], scheme, quota=3, waiting=waiting
    )


# %% [markdown]
# ## The theatre
#
# The shortest path into a deadlock, played. The slider and the buttons move through the steps (Tab
# reaches them, arrow keys move the slider); *To the cycle* goes to where it closes. A lane shows
# where its thread stands, the pages it has, its locks and the semaphore; at the right, dashed
# arrows go from a thread to what it waits for, solid ones from there to who holds it. The pool is
# refilled as bios complete, so nothing but the order of semaphore and lock can be at fault here.

# %%
scenario = proposal(refill="completion")
theatre = rl.Theatre(scenario, seed=seed)
theatre

# %% [markdown]
# The same in text, as it would go into a mail:

# %%
proof = rl.prove(scenario)
print(proof)

# %% [markdown]
# One thread has the semaphore and wants the lock, another has the lock and wants the semaphore: the
# ABBA of two locks, one of them in the memory management. No size of the pool helps, since the
# owner of the semaphore has pages enough; it is the lock it lacks.
#
# ## Which choice is to blame
#
# The same threads with other choices of the same scheme, under both rules of waiting: *asleep* as
# `down()` and `mutex_lock()` queue, *racing* where whoever comes first takes what is free.

# %%
choices = {
    "taken late, refilled by allocating (as mailed)": {"refill": "allocate"},
    "taken late, refilled on completion": {"refill": "completion"},
    "taken on entry, refilled by allocating": {"on_entry": True, "refill": "allocate"},
    "taken on entry, refilled on completion": {"on_entry": True, "refill": "completion"},
}
rows = [
    {
        "semaphore": name,
        "waiting": waiting,
        "safe": rl.prove(proposal(waiting, **choice)).safe,
        "deadlock probability": rl.exact(proposal(waiting, **choice)).deadlock_probability,
    }
    for name, choice in choices.items()
    for waiting in ("asleep", "racing")
]
pd.DataFrame(rows).set_index(["semaphore", "waiting"])

# %% [markdown]
# Taken on entry, before any lock of the filesystem, the semaphore is safe here, at the price of one
# writepage at a time. The mail takes it late to avoid that price. A patched 6.1 kernel was run
# through the second row's scenario under both rules and agrees
# ([docs/model.md](../docs/model.md), section 10).
#
# Other ways of dying can be played too: pick another scheme, or the next episode that deadlocks.

# %%
rl.Theatre(
    rl.Scenario(rl.Machine(4), [rl.Mount(journaled, 3)], rl.PerThread(), quota=2), seed=seed
)

# %% [markdown]
# ## Finding
#
# Taken late, the semaphore closes a cycle with the filesystem's lock, and the simulation's 95 %
# interval holds the exact probability of it; taken on entry, no deadlock is reachable, and none is
# seen.

# %%
late = rl.simulate(scenario, episodes, seed)
exact = rl.exact(scenario).deadlock_probability
print(f"late: exactly {exact:.6f}, simulated {late.deadlock_probability}")
assert {wait.what for wait in proof.story.cycle} == {"the semaphore", "lock journal"}
assert late.deadlock_probability.low <= exact <= late.deadlock_probability.high

on_entry = proposal(on_entry=True, refill="completion")
certificate = rl.prove(on_entry)
print(certificate)
assert certificate.safe
assert rl.simulate(on_entry, episodes, seed).deadlocks == 0
