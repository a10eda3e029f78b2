"""How the package compiles: one decorator, and a cache that sees every edit.

numba's on-disk cache looks at the file of the function it caches and not at the files of the
functions that one calls, so a cached caller would keep an old callee. The cache directory is
therefore named by a digest of every source that can be compiled in.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core import types
from numba.extending import intrinsic, overload

_F = TypeVar("_F", bound=Callable[..., Any])
_HERE = Path(__file__).parent


def sources_digest(solve: Path = _HERE) -> str:
    """Digest of all sources that end up in compiled code.

    Parameters
    ----------
    solve : Path
        The room of the compiled rules; the packing is looked for beside it.

    Returns
    -------
    str
        16 hexadecimal digits; others after any edit of what can be compiled in.
    """
    digest = hashlib.sha256()
    for path in [*sorted(solve.glob("*.py")), solve.parent / "model" / "pack.py"]:
        source = path.read_bytes()
        # Nothing of a file that never names this module is compiled; pack.py gives constants.
        if b"solve.compiled" in source or path.name in ("compiled.py", "pack.py"):
            digest.update(path.name.encode() + source)
    return digest.hexdigest()[:16]


def _cache_directory() -> str | None:
    """A directory that can be written to, or None: then every process compiles anew."""
    try:
        cache = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
        root = Path(cache) if cache else Path.home() / ".cache"
        directory = root / "reservelab" / sources_digest()
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return str(directory)
    except (OSError, RuntimeError):  # read-only, or no home at all
        return None


_DIRECTORY = _cache_directory()


def compiled(function: _F) -> _F:
    """Compile a small function with numba, to be inlined wherever it is called.

    No GIL, no bounds checks, cached where that is possible; compiled code allocates nothing.

    Parameters
    ----------
    function : callable
        Plain Python over scalars and arrays; under NUMBA_DISABLE_JIT=1 it stays that.

    Returns
    -------
    callable
        The compiled function.
    """
    # An event passes through a row of small functions: calls made it half as fast again.
    return _compile(function, forceinline=True)


def outlined(function: _F) -> _F:
    """Compile a large function with numba, to be called: inlined often it compiles for minutes.

    Parameters
    ----------
    function : callable
        As for `compiled`.

    Returns
    -------
    callable
        The compiled function.
    """
    return _compile(function, forceinline=False)


def _compile(function: _F, forceinline: bool) -> _F:
    config: Any = numba.config
    njit: Any = numba.njit
    theirs, config.CACHE_DIR = config.CACHE_DIR, _DIRECTORY or ""
    try:
        # numba looks at the directory when it decorates: other packages keep theirs.
        # _nrt=False: where nothing is allocated, no array needs its references counted at every
        # call; counting made an event six times slower.
        decorate = njit(
            cache=_DIRECTORY is not None,
            nogil=True,
            error_model="numpy",
            forceinline=forceinline,
            _nrt=False,
        )
        result: _F = decorate(function)
    finally:
        config.CACHE_DIR = theirs
    return result


def address(array):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return an array's data as a bare pointer, to compiled code; to plain Python the array.

    An array is seven words to compiled code, and negative indices are looked for at each access.
    A pointer is one word, indexes the same, and makes an event more than twice as fast.

    Parameters
    ----------
    array : ndarray
        C-contiguous, one-dimensional; it must outlive the pointer.

    Returns
    -------
    pointer
        Of the same item type.
    """
    return array


@intrinsic
def _data_pointer(_: Any, array: Any) -> Any:  # noqa: ANN401
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ANN401
        return context.make_array(signature.args[0])(context, builder, values[0]).data

    pointer: Any = types.CPointer
    return pointer(array.dtype)(array), generate


def _overload_of_address(array):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    # numba compares the argument lists, annotations included, with those of the lambda.
    if isinstance(array, types.Array) and array.layout == "C" and array.ndim == 1:
        return lambda array: _data_pointer(array)  # type: ignore[call-arg]
    return None


overload(address)(_overload_of_address)


def beyond(pointer, offset):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the pointer `offset` items further on; to plain Python, the rest of the array.

    Parameters
    ----------
    pointer : pointer
        What `address` returned.
    offset : int
        Items.

    Returns
    -------
    pointer
        Of the same item type.
    """
    return pointer[offset:]


@intrinsic
def _moved_pointer(_: Any, pointer: Any, offset: Any) -> Any:  # noqa: ANN401
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ANN401, ARG001
        return builder.gep(values[0], [values[1]])

    return pointer(pointer, offset), generate


def _overload_of_beyond(pointer, offset):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    if isinstance(pointer, types.CPointer) and isinstance(offset, types.Integer):
        return lambda pointer, offset: _moved_pointer(pointer, offset)  # type: ignore[call-arg]
    return None


overload(beyond)(_overload_of_beyond)
