"""Random streams by address: a function of rules version, scenario, seed and episode only.

The generator is xoshiro256++ 1.0 (Blackman and Vigna 2021, ACM TOMS 47(4), 36), its state filled
by SplitMix64 (Steele, Lea and Flood 2014) from the hashed address.
"""

from __future__ import annotations

import hashlib
from typing import Any

from numba import uint64

from reservelab.solve.compiled import compiled

Words = Any  # uint64[4]; numba specialises, mypy need not know


def stream_key(rules_version: int, digest: str, seed: int) -> int:
    """The part of a stream's address that all episodes share.

    Parameters
    ----------
    rules_version : int
        Version of the rules.
    digest : str
        Identity of the scenario.
    seed : int
        Not negative.

    Returns
    -------
    int
        64 bits.
    """
    text = f"{rules_version} {digest} {seed}".encode("ascii")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little")


@compiled
def open_stream(words: Words, key: int, episode: int) -> None:
    """Set `words` to the beginning of the stream of one episode."""
    # Two rounds of SplitMix64's output function keep neighbouring episodes apart: without the
    # first, episode n + 1 would begin with the second word of episode n.
    z = uint64(key) + uint64(episode) * uint64(0xD1342543DE82EF95)
    z = (z ^ (z >> uint64(32))) * uint64(0xDABA0B6EB09322E3)
    z = (z ^ (z >> uint64(32))) * uint64(0xDABA0B6EB09322E3)
    z = z ^ (z >> uint64(32))
    for k in range(4):
        z += uint64(0x9E3779B97F4A7C15)
        x = (z ^ (z >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> uint64(27))) * uint64(0x94D049BB133111EB)
        words[k] = x ^ (x >> uint64(31))


@compiled
def next_word(words: Words) -> int:
    """The next 64 random bits; `words` moves on."""
    w0, w1, w2, w3 = words[0], words[1], words[2], words[3]
    x = w0 + w3
    result = ((x << uint64(23)) | (x >> uint64(41))) + w0
    w2 ^= w0
    w3 ^= w1
    words[1] = w1 ^ w2
    words[0] = w0 ^ w3
    words[2] = w2 ^ (w1 << uint64(17))
    words[3] = (w3 << uint64(45)) | (w3 >> uint64(19))
    return result


@compiled
def next_uniform(words: Words) -> float:
    """The next number in [0, 1), a multiple of 2^-53."""
    return (next_word(words) >> uint64(11)) * 1.1102230246251565e-16
