# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 09 A real kernel
#
# **Does a Linux with the proposal in it do what the model says?**
#
# The four functions of the mail (Andrea Arcangeli,
# [20041107011638.GJ3851@dualathlon.random](https://lore.kernel.org/all/20041107011638.GJ3851@dualathlon.random/))
# have never existed. They were patched into Linux 6.1, which ran as a process, ran out of memory in
# every trial, and was held against the chain. [docs/kernel.md](../docs/kernel.md) has the patches,
# and what is real in this and what is not. This notebook reads what was recorded; it needs no
# kernel.

# %% tags=["parameters"] small={"episodes": 10000}
episodes = 200_000
seed = 1

# %%
# %matplotlib inline
# %config InlineBackend.print_figure_kwargs = {"dpi": 140}
import matplotlib.pyplot as plt

import reservelab as rl
from reservelab.kernel import compare, evidence, exhaust

journaled = rl.Filesystem(
    "journaled",
    [rl.alloc(1), rl.lock("journal"), rl.alloc(1), rl.unlock("journal"), rl.submit()],
)
abba = rl.Scenario(
    rl.Machine(pages=4),
    [rl.Mount(journaled, flushers=3)],
    rl.GlobalPool(reserve=2, refill="completion"),
    quota=3,
)

# %% [markdown]
# ## One deadlock, told three times
#
# First in the theatre, as in [notebook 02](02_one_deadlock.ipynb): *To the cycle* goes to its end.

# %%
rl.Theatre(abba, seed=seed)

# %% [markdown]
# Then by the proof: nothing is drawn, and no way into a deadlock is shorter.

# %%
proof = rl.prove(abba)
print(proof)

# %% [markdown]
# Then by the kernel itself (`reservelab kernel show data/scenarios/abba.toml`): where the threads
# of a deadlocked trial stood, and what lockdep had to say of it. One sleeps in `down_killable()`
# below the page allocator, while it has the journal's lock; another owns the semaphore and sleeps
# in `mutex_lock()`.

# %%
print(evidence.recorded())

# %% [markdown]
# ## Predicted and measured
#
# Each point is a scenario: its probability of a deadlock by the model, and the share of trials that
# deadlocked in the kernel, with its 95 % interval (Clopper-Pearson). All schemes, both waiting
# rules, one and two mounts, up to eight threads. Where the model says exactly 0 or 1, one trial can
# contradict it; those are hollow.

# %%
points = compare.recorded()
figure, axes = plt.subplots(figsize=(5.2, 5.2))
axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, zorder=0)
for waiting, marker in (("asleep", "o"), ("racing", "s")):
    for certain in (False, True):
        part = points[(points["waiting"] == waiting) & (points["certain"] == certain)]
        errors = [part["measured"] - part["measured_low"], part["measured_high"] - part["measured"]]
        axes.errorbar(
            part["predicted"], part["measured"], errors, fmt=marker, markersize=5, linewidth=1,
            mfc="none" if certain else None, label=None if certain else waiting,
            color="tab:blue" if waiting == "asleep" else "tab:orange",
        )  # fmt: skip
axes.set_xlabel("probability of a deadlock, by the model")
axes.set_ylabel("share of trials that deadlocked, in Linux")
axes.set_aspect("equal")
axes.legend(title="waiting", frameon=False)
plt.show()

# %%
print(compare.verdict(points))

# %% [markdown]
# ## What lockdep says
#
# The semaphore has a lockdep map, so lockdep can see it among the filesystem's locks. It needs both
# orders once each, not a deadlock. One boot for each row: it stops after its first report.

# %%
lockdep = compare.recorded_lockdep()
lockdep[["label", "trials", "deadlocked", "lockdep", "lock"]].set_index("label")

# %% [markdown]
# ## On a real filesystem
#
# The trials above are step programs. Here the marks stand where they would: in ext4's
# `->writepages()` and where kswapd writes pages out. Four tasks have dirtied 2,000 pages, a driver
# takes all other memory but 80 pages (the pool among them), direct reclaim is on, and the tasks
# call `fsync()` together. *Hung* means: no page written, and everybody asleep in the same place,
# ten seconds apart. The marks, by the kernel's parameter `reserved_pages=`:

# %%
for marks, what in exhaust.MARKS.items():
    print(f"{marks:14} {what}")

# %% [markdown]
# One workload on one processor, in real time: boots need not repeat, so there are several of
# each kind, and this is what was seen, not a measurement of the schemes.

# %%
boots = exhaust.recorded()
print(exhaust.table(boots))

# %%
figure, panels = plt.subplots(1, 3, figsize=(9, 3), sharey=True, layout="constrained")
looks = {"done": ("tab:blue", ""), "hung": ("tab:orange", "///"), "slow": ("0.6", ".."),
         "panic": ("k", ""), "silent": ("w", "")}  # fmt: skip
for axes, disk in zip(panels, exhaust.DISKS, strict=True):
    part = boots[boots["disk"] == disk]
    ended = part.groupby(["marks", "ending"]).size().unstack(fill_value=0)
    left = 0 * ended.sum(axis=1).loc[list(exhaust.MARKS)]
    for ending, (color, hatch) in looks.items():
        if ending in ended:
            count = ended.loc[list(exhaust.MARKS), ending]
            axes.barh(list(exhaust.MARKS), count, left=left, color=color, hatch=hatch,
                      edgecolor="k", linewidth=0.5, label=ending)  # fmt: skip
            left = left + count
    axes.set_title({"plain": "ext4", "loop": "in a file on ext4"}.get(disk, "... blocks of 1 KiB"))
    axes.set_xlabel("boots")
panels[0].invert_yaxis()
panels[0].set_ylabel("what the marks do")
figure.legend(*panels[1].get_legend_handles_labels(), loc="outside right center", frameon=False)
plt.show()

# %% [markdown]
# The kernel's own account of one that hung: the semaphore taken on entry, behind a loop device.

# %%
print(exhaust.recorded_hang("on_entry_ext4", "loop"))

# %% [markdown]
# ## Finding
#
# At no point do kernel and model differ by more than chance, and no certainty is contradicted.
# Lockdep names the ABBA of the late semaphore by itself, and nothing where it is taken on entry.

# %%
print(f"{len(points)} scenarios, {points['trials'].sum()} trials, {points['agrees'].sum()} agree")
assert len(points) >= 40
assert points["agrees"].all()

row = points[points["digest"] == abba.digest].iloc[0]
tally = rl.simulate(abba, episodes, seed)
print(f"ABBA: exact {row['predicted']:.4f}, in the kernel {row['measured']:.4f}")
print(f"simulated {tally.deadlock_probability}")
assert row["measured_low"] <= row["predicted"] <= row["measured_high"]
assert tally.deadlock_probability.low <= row["predicted"] <= tally.deadlock_probability.high

asleep = lockdep[lockdep["waiting"] == "asleep"]
late = asleep[asleep["label"].str.startswith("abba, global lazy")]
entry = lockdep[lockdep["variant"].str.contains("on-entry")]
assert late["lockdep"].str.contains("circular").all()
assert (entry["lockdep"] == "silent").all()
