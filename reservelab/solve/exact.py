"""Exact values: the absorbing Markov chain of a scenario, solved.

The expected stay in each state determines everything: the probability of each end, the expected
time, every average of the tally. Where every transition leads on, the chain is acyclic and one
sweep in topological order finds the stays; sums and products of positive numbers only, so
the relative error is a few units in the last place for each step of the longest path. Cyclic parts
are strongly connected components, taken in topological order: small ones by subtraction-free
elimination (Grassmann, Taksar and Heyman 1985, Operations Research 33(5), 1107), large ones by
sparse LU with iterative refinement and a reported residual.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import splu

from reservelab.model.plain_text import Preformatted
from reservelab.model.scenario import RULES_VERSION, Scenario
from reservelab.solve import states as st
from reservelab.solve.compiled import address, compiled

Array = Any  # numba specialises, mypy need not know
_ELIMINATE_UP_TO = 400


@dataclass(frozen=True)
class Exact(Preformatted):
    """Exact values of a scenario.

    Parameters
    ----------
    digest : str
        Identity of the scenario.
    deadlock_probability, livelock_probability : float
        Of an episode; with completion they sum to one.
    time : float or None
        Expected duration in mean steps of one thread; None where an episode may never end.
    throughput : float or None
        Writepages completed per unit of time.
    idle_reserve_mean, inside : float or None
        Idle pages and threads inside a section, averaged over time.
    waiting_entry, waiting_pages, waiting_semaphore, waiting_locks : float or None
        Threads that wait, averaged over time.
    latency : float or None
        Mean time inside a section, by Little's law.
    states, unmerged_states, deadlocked_states, transitions : int
        Of the chain; `unmerged_states` if no two threads were interchangeable.
    residual : float
        Largest relative residual of the linear solves; 0 where none was needed.
    """

    digest: str
    deadlock_probability: float
    livelock_probability: float
    time: float | None
    throughput: float | None
    idle_reserve_mean: float | None
    inside: float | None
    waiting_entry: float | None
    waiting_pages: float | None
    waiting_semaphore: float | None
    waiting_locks: float | None
    latency: float | None
    states: int
    unmerged_states: int
    deadlocked_states: int
    transitions: int
    residual: float

    def frame(self) -> pd.DataFrame:
        """The values as a frame of one row.

        Returns
        -------
        DataFrame
            A column for each value.
        """
        return pd.DataFrame([{**asdict(self), "rules": RULES_VERSION}])

    def to_json(self) -> str:
        """The values as JSON.

        Returns
        -------
        str
            One object.
        """
        return json.dumps({**asdict(self), "rules": RULES_VERSION})

    def __str__(self) -> str:
        lines = [f"scenario {self.digest[:16]}, rules {RULES_VERSION}"]
        for name, value in asdict(self).items():
            if name != "digest":
                text = "none" if value is None else f"{value:.12g}"
                lines.append(f"{name.replace('_', ' '):24}{text}")
        return "\n".join(lines)


def exact(
    scenario: Scenario,
    limit: int = 20_000_000,
    progress: Callable[[int, int], object] | None = None,
) -> Exact:
    """Solve a scenario exactly.

    Parameters
    ----------
    scenario : Scenario
        What to solve.
    limit : int
        The most states to store, interchangeable threads merged.
    progress : callable, optional
        Called with the states processed and found so far.

    Returns
    -------
    Exact
        The values.

    Raises
    ------
    TooManyStates
        If there are more states than the limit or the memory allows.
    """
    space = st.explore(scenario, limit=limit, progress=progress)
    stays, livelock, residual = expected_stays(space)
    deadlock = float(stays[space.kinds == st.DEADLOCKED].sum())
    transient = space.kinds == st.TRANSIENT
    averages: dict[str, float | None] = dict.fromkeys(
        ("inside", "waiting_entry", "waiting_pages", "waiting_semaphore", "waiting_locks",
         "idle_reserve_mean", "throughput")
    )  # fmt: skip
    time: float | None = None
    latency: float | None = None
    if livelock == 0.0:
        time = float(stays[transient].sum())
        if time > 0:
            integrals = stays[transient] @ space.rewards[transient]
            averages = {
                name: float(integrals[k] / time) for k, name in enumerate(averages)
            }
            if integrals[st.W_FINISHING] > 0:
                latency = float(integrals[st.W_INSIDE] / integrals[st.W_FINISHING])
    return Exact(
        digest=scenario.digest,
        deadlock_probability=deadlock,
        livelock_probability=livelock,
        time=time,
        latency=latency,
        states=space.states,
        unmerged_states=int(space.unmerged),
        deadlocked_states=int((space.kinds == st.DEADLOCKED).sum()),
        transitions=len(space.targets),
        residual=residual,
        **averages,
    )


def expected_stays(space: st.StateSpace) -> tuple[NDArray[np.float64], float, float]:
    """Expected time in every state, from the first one to the end.

    Parameters
    ----------
    space : StateSpace
        Fully explored, with transitions.

    Returns
    -------
    stays : ndarray of float64, shape (states,)
        Expected time; of an absorbing state the probability to end there; in a livelock 0.
    livelock : float
        Probability to reach states from which no end can be reached.
    residual : float
        Largest relative residual of the linear solves.
    """
    n = space.states
    begin, targets, rates = space.begin, space.targets, space.rates
    graph = sparse.csr_matrix((rates, targets, begin), shape=(n, n))
    parts, label = csgraph.connected_components(graph, directed=True, connection="strong")
    members = np.argsort(label, kind="stable").astype(np.int64)
    first = np.searchsorted(label[members], np.arange(parts + 1)).astype(np.int64)
    order = np.zeros(parts, dtype=np.int64)
    _order(begin, targets, label, members, first, np.zeros(parts, dtype=np.int64), order, parts)
    inflow = np.zeros(n)
    inflow[0] = 1.0
    done = np.zeros(1, dtype=np.int64)
    livelock = residual = 0.0
    while True:
        _sweep(begin, targets, rates, members, first, order, parts, inflow, done)
        if done[0] == parts:
            return inflow, livelock, residual
        part = order[done[0]]
        inside = members[first[part] : first[part + 1]]
        block = graph[inside][:, inside]
        leaving = [
            (k, q)
            for k, state in enumerate(inside)
            for q in range(begin[state], begin[state + 1])
            if label[targets[q]] != part
        ]
        if not leaving:
            livelock += float(inflow[inside].sum())
            inflow[inside] = 0.0
        else:
            exits = np.zeros(len(inside))
            for k, q in leaving:
                exits[k] += rates[q]
            stays, error = _solve_component(block, exits, inflow[inside])
            residual = max(residual, error)
            inflow[inside] = stays
            for k, q in leaving:
                inflow[targets[q]] += stays[k] * rates[q]
        done[0] += 1


def _solve_component(
    block: sparse.csr_matrix, exits: NDArray[np.float64], inflow: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Expected time in the states of a component: x_k out_k = inflow_k + sum_i x_i rate_ik."""
    n = len(exits)
    if n > _ELIMINATE_UP_TO:
        off = block - sparse.diags(block.diagonal())
        out = exits + np.asarray(off.sum(axis=1)).ravel()
        matrix = (sparse.diags(out) - off.T).tocsc()
        factors = splu(matrix)
        x = factors.solve(inflow)
        for _ in range(3):
            x += factors.solve(inflow - matrix @ x)
        return x, float(np.abs(inflow - matrix @ x).max() / inflow.max())
    a = block.toarray()
    np.fill_diagonal(a, 0.0)
    b, e = inflow.copy(), exits.copy()
    out = np.zeros(n)
    # Eliminate the last state again and again: what entered it goes where it leads, in proportion.
    for k in range(n - 1, -1, -1):
        out[k] = e[k] + a[k, :k].sum()
        share = a[k, :k] / out[k]
        b[:k] += b[k] * share
        e[:k] += a[:k, k] * (e[k] / out[k])
        a[:k, :k] += np.outer(a[:k, k], share)
        np.fill_diagonal(a[:k, :k], 0.0)
    x = np.zeros(n)
    for k in range(n):
        x[k] = (b[k] + x[:k] @ a[:k, k]) / out[k]
    return x, 0.0


@compiled
def _order(
    begin_array: Array, targets_array: Array, label_array: Array, members_array: Array,
    first_array: Array, into_array: Array, order_array: Array, parts: int,
) -> None:  # fmt: skip
    """Order the components topologically (Kahn 1962)."""
    begin, targets, label = address(begin_array), address(targets_array), address(label_array)
    members, first = address(members_array), address(first_array)
    into, order = address(into_array), address(order_array)
    for part in range(parts):
        for m in range(first[part], first[part + 1]):
            for q in range(begin[members[m]], begin[members[m] + 1]):
                if label[targets[q]] != part:
                    into[label[targets[q]]] += 1
    ready = 0
    for part in range(parts):
        if into[part] == 0:
            order[ready] = part
            ready += 1
    done = 0
    while done < ready:
        part = order[done]
        done += 1
        for m in range(first[part], first[part + 1]):
            for q in range(begin[members[m]], begin[members[m] + 1]):
                other = label[targets[q]]
                if other != part:
                    into[other] -= 1
                    if into[other] == 0:
                        order[ready] = other
                        ready += 1


@compiled
def _sweep(
    begin_array: Array, targets_array: Array, rates_array: Array, members_array: Array,
    first_array: Array, order_array: Array, parts: int, inflow_array: Array, done_array: Array,
) -> None:  # fmt: skip
    """Turn inflow into stays, component by component, up to the next of more than one state."""
    begin, targets, rates = address(begin_array), address(targets_array), address(rates_array)
    members, first, order = address(members_array), address(first_array), address(order_array)
    inflow, done = address(inflow_array), address(done_array)
    while done[0] < parts:
        part = order[done[0]]
        if first[part + 1] - first[part] > 1:
            return
        state = members[first[part]]
        out, stuck = 0.0, False
        for q in range(begin[state], begin[state + 1]):
            if targets[q] == state:
                stuck = True
            else:
                out += rates[q]
        if stuck and out == 0.0:
            return
        if out > 0.0:
            inflow[state] /= out
            for q in range(begin[state], begin[state + 1]):
                if targets[q] != state:
                    inflow[targets[q]] += inflow[state] * rates[q]
        done[0] += 1
