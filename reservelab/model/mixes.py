"""Mixes: how writers spread over filesystems."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from reservelab.model.errors import BadInput, whole_number
from reservelab.model.filesystems import Filesystem
from reservelab.model.scenario import Mount


@dataclass(frozen=True, init=False)
class Mix:
    """Weights over filesystems that sum to one.

    Parameters
    ----------
    weights : mapping of Filesystem (or catalogue name) to float
        The share of the writers each filesystem gets; 0 mounts it without writers.
    name : str
        For people.

    Raises
    ------
    BadInput
        If a weight is negative, the weights do not sum to 1, or a name is unknown.
    """

    filesystems: tuple[Filesystem, ...]
    weights: tuple[float, ...]
    name: str

    def __init__(self, weights: Mapping[Filesystem | str, float], name: str = "") -> None:
        # The catalogue is read only here, by name: a mix of one's own filesystems needs no file.
        from reservelab.model.catalogue import filesystems as catalogue

        order = list(catalogue)
        entries: list[tuple[int, Filesystem, float]] = []
        for named, weight in weights.items():
            filesystem = catalogue[named] if isinstance(named, str) else named
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not weight >= 0:
                key = f"weights.{filesystem.name}"
                raise BadInput(key, f"{weight!r} is not a share", "give a number from 0 to 1")
            place = order.index(filesystem.name) if filesystem.name in order else len(order)
            entries.append((place, filesystem, float(weight)))
        total = math.fsum(weight for _, _, weight in entries)
        if abs(total - 1) > 1e-9:
            raise BadInput("weights", f"sum to {total:.12g}", "make them sum to 1")
        entries.sort(key=lambda entry: entry[0])
        object.__setattr__(self, "filesystems", tuple(fs for _, fs, _ in entries))
        object.__setattr__(self, "weights", tuple(weight for _, _, weight in entries))
        object.__setattr__(
            self, "name", name or "+".join(fs.name for fs in self.filesystems)
        )

    def with_share(self, name: str, share: float) -> Mix:
        """Give one filesystem another share and the others the rest, in their proportion.

        Parameters
        ----------
        name : str
            Name of a filesystem of the mix.
        share : float
            Its new share, from 0 to 1. A filesystem that is alone keeps all.

        Returns
        -------
        Mix
            The same filesystems; where the others had nothing, they share the rest equally.

        Raises
        ------
        BadInput
            If there is no such filesystem, or the share is none.
        """
        names = [filesystem.name for filesystem in self.filesystems]
        if name not in names:
            raise BadInput("weights", f"{name!r} is not in the mix", f"one of {', '.join(names)}")
        if not 0 <= share <= 1:
            key = f"weights.{name}"
            raise BadInput(key, f"{share!r} is not a share", "give a number from 0 to 1")
        place = names.index(name)
        others = [w for k, w in enumerate(self.weights) if k != place] or [0.0]
        total = math.fsum(others)
        scaled = [w / total if total else 1 / len(others) for w in others]
        scaled = [w * (1 - share) for w in scaled]
        scaled.insert(place, share if len(names) > 1 else 1.0)
        return Mix(dict(zip(self.filesystems, scaled, strict=False)), self.name)

    def mounts(self, threads: int, *, dirtiers: int = 0) -> list[Mount]:
        """Spread threads over one mount for each filesystem.

        Largest remainder; ties go to the filesystem that comes first in the catalogue (one's own
        come after it, in the order given). A filesystem without threads is mounted all the same,
        since its nr_pages counts for the size of a pool.

        Parameters
        ----------
        threads : int
            Flushers in all.
        dirtiers : int
            Dirtiers in all, spread in the same way.

        Returns
        -------
        list of Mount
            One for each filesystem, in catalogue order.
        """
        flushers = _largest_remainder(self.weights, whole_number("threads", threads))
        others = _largest_remainder(self.weights, whole_number("dirtiers", dirtiers))
        return [
            Mount(filesystem, flushers=some, dirtiers=more)
            for filesystem, some, more in zip(self.filesystems, flushers, others, strict=True)
        ]


def _largest_remainder(weights: tuple[float, ...], threads: int) -> list[int]:
    quotas = [weight * threads for weight in weights]
    # Shares such as 0.1 * 30 land a hair below a whole number; that is not a remainder.
    seats = [math.floor(quota + 1e-9) for quota in quotas]
    by_remainder = sorted(range(len(weights)), key=lambda i: (round(seats[i] - quotas[i], 9), i))
    for index in by_remainder[: threads - sum(seats)]:
        seats[index] += 1
    return seats
