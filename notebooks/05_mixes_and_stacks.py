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
# # 05 Filesystem mixes and stacks
#
# **Does a scheme that is safe for one filesystem stay safe beside others, and on top of others?**
#
# One pool for all who mount is the point of the proposal: "many different users (i.e. different
# fs) will be allowed to reserve a different size for the global pool. They all will share the same
# pool" (Andrea Arcangeli,
# [20041107011638.GJ3851@dualathlon.random](https://lore.kernel.org/all/20041107011638.GJ3851@dualathlon.random/)).
# Its size is the largest `nr_pages`, not the sum. Of the per-thread pages Andrew Morton asked two
# months later "how can one precalculate how much memory an arbitrary md-on-dm-on-loop-on-md-on-NBD
# stack will want to use?"
# ([20050107132459.033adc9f.akpm@osdl.org](https://lore.kernel.org/all/20050107132459.033adc9f.akpm@osdl.org/)).

# %% tags=["parameters"] small={"episodes": 1000, "threads": 8}
mix = "desktop_2004"  # of rl.mixes
stack = "ext3_on_ext3"  # of rl.stacks
threads = 16
machine = "2.6.9-64MB"  # of rl.machines
episodes = 20_000
seed = 1

# %%
# %matplotlib inline
# %config InlineBackend.print_figure_kwargs = {"dpi": 140}
import pandas as pd

import reservelab as rl
from reservelab.show.figures import side_by_side

preset = rl.machines[machine]
print(f"{machine}: {preset.machine.pages} pages free when reclaim begins, mark {preset.reserve}")
for name in rl.mixes:
    shares = zip(rl.mixes[name].filesystems, rl.mixes[name].weights, strict=True)
    print(f"{name}: " + ", ".join(f"{share:.0%} {fs.name}" for fs, share in shares))
for name in rl.stacks:
    print(f"{name}: " + " on ".join(fs.name for fs in rl.stacks[name].filesystems))

# %% [markdown]
# ## The bench
#
# Every scheme beside the others, on any mix of the catalogue, run again as soon as a control is
# let go. The weights always sum to one; *stack* puts filesystems on top of each other instead.

# %%
bench = rl.Bench(mix=mix, machine=machine, threads=threads, seed=seed)
bench

# %% [markdown]
# ## A mix, and the same threads on a stack
#
# The threads are spread over the mounts of a mix by their weights, and a mempool sets its reserve
# aside for each mount. On a stack they all write to the topmost filesystem; below it a loop worker
# writes what they wrote, in a thread of its own, through the filesystem underneath.

# %%
def on(mounts: list[rl.Mount], variant: str) -> rl.Scenario:
    """Some mounts under a scheme, with the reserve it has by default, or the machine's mark."""
    scheme = rl.Scheme.unsized(variant)
    scheme = scheme.sized(None if scheme.start == "pool" else preset.reserve // len(mounts))
    return rl.Scenario(preset.machine, mounts, scheme, quota=10)


variants = [
    "watermark", "mempool", "perthread", "perthread whole", "global lazy refill-allocate",
    "global lazy refill-completion", "global on-entry refill-completion", "tickets draw-last",
]  # fmt: skip
mixed = rl.mixes[mix].mounts(threads)
stacked = rl.stacks[stack].mounts(threads)
table = {
    name: pd.DataFrame(
        [rl.simulate(on(mounts, variant), episodes, seed).row() for variant in variants]
    )
    for name, mounts in ((mix, mixed), (stack, stacked))
}
side_by_side(table[mix])

# %%
side_by_side(table[stack])

# %% [markdown]
# ## Why the safe ones are not safe on a stack
#
# The smallest stack there is: two levels of a filesystem that needs one page, two pages in all, one
# of them the reserve. For mounts beside each other tickets and a semaphore taken on entry are
# safe. On the stack what an upper section has drawn comes back only when the lower filesystem has
# written its bio, and for that the loop worker must begin a section of its own, which needs what
# was drawn. A mempool for each level is another reserve for each level, and this program needs one
# page of it (Dave Chinner: "mempools already give that guarantee to most block devices",
# [20150223073235.GT4251@dastard](https://lore.kernel.org/all/20150223073235.GT4251@dastard/)).

# %%
one = rl.Filesystem("fs", [rl.alloc(1), rl.submit()])
places = {
    "beside each other": [rl.Mount(one, flushers=1), rl.Mount(one, flushers=1)],
    "stacked": [rl.Mount(one), rl.Mount(one, flushers=1, on=0)],
}
schemes = {
    "mempool for each mount": rl.Mempool(1),
    "tickets": rl.Tickets(1),
    "global on entry": rl.GlobalPool(1, on_entry=True, refill="completion"),
}
proofs = {
    (name, place): rl.prove(rl.Scenario(rl.Machine(2), mounts, scheme, quota=2))
    for name, scheme in schemes.items()
    for place, mounts in places.items()
}
pd.Series({key: proof.safe for key, proof in proofs.items()}, name="safe").unstack()

# %%
rl.swim_lanes(proofs["tickets", "stacked"])

# %%
print(proofs["global on entry", "stacked"])

# %% [markdown]
# ## Finding
#
# A proof for mounts beside each other says nothing about a stack: tickets and the semaphore on
# entry are safe there and deadlock here, and the simulation's 95 % interval holds the exact
# probability of the tickets' deadlock. The mempools' proof carries over, for this program.

# %%
for (name, place), proof in proofs.items():
    assert proof.safe == (place == "beside each other" or "mempool" in name), (name, place)
dead = proofs["tickets", "stacked"].scenario
exact = rl.exact(dead).deadlock_probability
seen = rl.simulate(dead, episodes, seed).deadlock_probability
print(f"tickets on the stack of two: exactly {exact:.6f}, simulated {seen}")
assert seen.low <= exact <= seen.high
