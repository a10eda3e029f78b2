"""From Debian's kernel source to a user-mode kernel with the patches of reservelab/kernel/uml.

What is built stands in a cache under the digest of everything it was made of: the patches, the
configuration, what boots, and the digests of the source files the patches were made for. The source
itself is unpacked beside it, and deleted when the kernel stands.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reservelab.kernel.guest import Kernel
from reservelab.model.errors import BadInput

PACKAGE = "linux-source-6.1"
_ROOM = Path(__file__).parent / "uml"
_SYSTEM_ARCHIVE = Path("/usr/src") / f"{PACKAGE}.tar.xz"
_TOOLS = {
    "make": "make", "gcc": "gcc", "flex": "flex", "bison": "bison", "bc": "bc", "tar": "tar",
    "xz": "xz-utils", "patch": "patch",
}  # fmt: skip
_BUSYBOX = Path("/bin/busybox")
# So that the executable does not tell when and where it was made. Two differ in their build id,
# which counts the paths in the debugging information, and in nothing else.
_UNNAMED = {
    "KBUILD_BUILD_TIMESTAMP": "1 January 2004", "KBUILD_BUILD_USER": "reservelab",
    "KBUILD_BUILD_HOST": "localhost", "KBUILD_BUILD_VERSION": "1",
}  # fmt: skip
# What make prints a line for; measured, and only for the progress bar.
OBJECTS = 1290


@dataclass(frozen=True)
class Patch:
    """A patch, as far as it can be read without the source.

    Parameters
    ----------
    name : str
        Its file's name.
    old, new : tuple of str
        The files it changes, and the files it makes.
    """

    name: str
    old: tuple[str, ...]
    new: tuple[str, ...]


def patches() -> tuple[Path, ...]:
    """The patches, in the order they apply in.

    Returns
    -------
    tuple of Path
        Files of reservelab/kernel/uml.
    """
    return tuple(sorted(_ROOM.glob("*.patch")))


def read_patch(path: Path) -> Patch:
    """Read which files a patch touches, and check that its hunks are whole.

    Parameters
    ----------
    path : Path
        A unified diff with one directory before the names.

    Returns
    -------
    Patch
        Its files.

    Raises
    ------
    ValueError
        If a hunk has other numbers of lines than it says.
    """
    old: list[str] = []
    new: list[str] = []
    lines = path.read_text(encoding="ascii").splitlines()
    k = 0
    while k < len(lines):
        line = lines[k]
        k += 1
        if line.startswith("--- ") and k < len(lines) and lines[k].startswith("+++ b/"):
            name = lines[k].removeprefix("+++ b/").split("\t")[0]
            (new if line.split("\t")[0] == "--- /dev/null" else old).append(name)
        hunk = re.match(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@", line)
        if hunk is None:
            continue
        before, after = (int(n if n is not None else 1) for n in hunk.groups())
        while (before > 0 or after > 0) and k < len(lines):
            before -= lines[k][:1] in (" ", "-", "")
            after -= lines[k][:1] in (" ", "+", "")
            k += 1
        if before or after:
            raise ValueError(f"{path.name}: the hunk {line!r} is not whole")
    return Patch(path.name, tuple(old), tuple(new))


def manifest() -> dict[str, str]:
    """The source files that the patches were made for, or whose ways they rely on.

    Returns
    -------
    dict of str to str
        Names, and SHA-256 digests of the contents.
    """
    lines = (_ROOM / "manifest").read_text(encoding="ascii").splitlines()
    pairs = (line.split("  ", 1) for line in lines if not line.startswith("#"))
    return {name: digest for digest, name in pairs}


def _release(tree: Path) -> str:
    """The version of an unpacked source, from the head of its Makefile."""
    head = (tree / "Makefile").read_text(encoding="utf-8")[:1000]
    parts = dict(re.findall(r"^(\w+) = (\d+)$", head, re.M))
    return ".".join(parts[key] for key in ("VERSION", "PATCHLEVEL", "SUBLEVEL"))


def digest() -> str:
    """The identity of the kernel that would be built.

    Returns
    -------
    str
        SHA-256 over patches, configuration, what boots, and the manifest of the source.
    """
    total = hashlib.sha256()
    others = (_ROOM / name for name in ("config", "exhaust.c", "init", "manifest"))
    for path in (*patches(), *others):
        total.update(f"{path.name} {path.stat().st_size}\n".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def cache() -> Path:
    """Where kernels are kept.

    Returns
    -------
    Path
        ``reservelab/kernel`` in the user's cache directory.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "reservelab" / "kernel"


def built() -> Kernel:
    """The kernel of these patches.

    Returns
    -------
    Kernel
        From the cache.

    Raises
    ------
    BadInput
        If it has not been built.
    """
    identity = digest()
    room = cache() / identity[:16]
    linux, initrd, release = room / "linux", room / "initrd.gz", room / "release"
    if not all(path.is_file() for path in (linux, initrd, release)):
        right = "`reservelab kernel build` makes it in about five minutes"
        raise BadInput("kernel", "not built, or built from other patches", right)
    return Kernel(linux, initrd, release.read_text(encoding="ascii").strip(), identity)


def build(
    archive: Path | None = None,
    jobs: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Kernel:
    """Build the kernel, or find it built.

    Parameters
    ----------
    archive : Path, optional
        Debian's source archive; that of the installed package unless given, else the package is
        fetched by apt-get, which needs no rights.
    jobs : int, optional
        Compilers at a time; all processors unless given.
    progress : callable, optional
        Told what is being done, how much of it is done, and how much there is.

    Returns
    -------
    Kernel
        The kernel.

    Raises
    ------
    BadInput
        If a tool is not installed, the source is another one, or something does not work; the log
        is named.
    """
    tell = progress or (lambda *_: None)
    try:
        return built()
    except BadInput:
        pass
    lacking = [package for tool, package in _TOOLS.items() if shutil.which(tool) is None]
    lacking += [] if _BUSYBOX.is_file() else ["busybox-static"]
    if lacking:
        raise BadInput("kernel", f"not installed: {', '.join(lacking)}", "docs/kernel.md lists all")
    identity = digest()
    room = cache() / identity[:16]
    room.mkdir(parents=True, exist_ok=True)
    log = room / "build.log"
    with tempfile.TemporaryDirectory(prefix="building-", dir=room) as name, open(log, "w") as out:
        work = Path(name)
        tree, objects = work / "source", work / "objects"
        objects.mkdir()
        tell("unpacking the source", 0, 1)
        tree.mkdir()
        words = ["tar", "-xJf", str(archive or _archive(work, log, out)), "--strip-components=1"]
        _do(words, tree, log, out)
        check_source(tree)
        for path in patches():
            _do(["patch", "-p1", "--batch", "--forward", "-i", str(path)], tree, log, out)
        make = ["make", "ARCH=um", f"O={objects}", f"-j{jobs or os.cpu_count() or 1}"]
        _do([*make, "defconfig"], tree, log, out)
        with open(objects / ".config", "a", encoding="ascii") as config:
            config.write((_ROOM / "config").read_text(encoding="ascii"))
        _do([*make, "olddefconfig"], tree, log, out)
        _check_config(objects / ".config")
        _compile([*make, "linux"], tree, log, out, tell)
        words = ["gcc", "-O2", "-Wall", "-static", "-s", "-o", str(work / "exhaust")]
        _do([*words, str(_ROOM / "exhaust.c")], work, log, out)
        _initrd(work / "initrd.gz", work / "exhaust")
        subprocess.run(["strip", "--strip-debug", str(objects / "linux")], check=False)
        (room / "release").write_text(_release(tree) + "\n", encoding="ascii")
        os.replace(work / "initrd.gz", room / "initrd.gz")
        os.replace(objects / "linux", room / "linux")
        tell("done", 1, 1)
    return built()


def _archive(work: Path, log: Path, out: object) -> Path:
    """The archive of the installed package, or of one fetched into `work`."""
    if _SYSTEM_ARCHIVE.is_file():
        return _SYSTEM_ARCHIVE
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        right = f"install Debian's {PACKAGE}, or give --source {PACKAGE}.tar.xz"
        raise BadInput("kernel", "there is no source and no apt-get to fetch it", right)
    _do(["apt-get", "download", "-q", PACKAGE], work, log, out)
    (package,) = work.glob("*.deb")
    _do(["dpkg-deb", "-x", str(package), str(work / "package")], work, log, out)
    return work / "package" / _SYSTEM_ARCHIVE.relative_to("/")


def check_source(tree: Path) -> None:
    """Refuse a source that the patches were not made for.

    Parameters
    ----------
    tree : Path
        The unpacked source.

    Raises
    ------
    BadInput
        Naming the first file that is another one, or is not there.
    """
    for name, wanted in manifest().items():
        path = tree / name
        if not path.is_file():
            wrong = f"{name} is not there"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != wanted:
            wrong = f"{name} is another one than the patches were made for"
        else:
            continue
        right = f"give the {PACKAGE} that reservelab/kernel/uml/manifest names"
        raise BadInput("source", wrong, right)


def _check_config(path: Path) -> None:
    """Every option asked for must have survived `make olddefconfig`."""
    got = set(path.read_text(encoding="ascii").splitlines())
    for line in (_ROOM / "config").read_text(encoding="ascii").splitlines():
        off = re.fullmatch(r"# (CONFIG_\w+) is not set", line)
        lost = line not in got if line.startswith("CONFIG_") else False
        if lost or (off and any(option.startswith(f"{off[1]}=") for option in got)):
            raise BadInput("kernel", f"the configuration lost {line!r}", "is it another source?")


def _do(words: list[str], where: Path, log: Path, out: object) -> None:
    """Run a command; if it fails, name the log."""
    done = subprocess.run(
        words, cwd=where, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,  # type: ignore[call-overload]
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise BadInput("kernel", f"{' '.join(words[:2])} failed", f"{log} says why")


def _compile(
    words: list[str], tree: Path, log: Path, out: object, tell: Callable[[str, int, int], None]
) -> None:
    """Run make, and count the files it has compiled."""
    with subprocess.Popen(
        words, cwd=tree, env=os.environ | _UNNAMED, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    ) as make:  # fmt: skip
        assert make.stdout is not None
        compiled = 0
        for line in make.stdout:
            out.write(line)  # type: ignore[attr-defined]
            out.flush()  # type: ignore[attr-defined]
            if re.match(r"\s+(CC|AS|LD|AR)\s", line):
                compiled += 1
                tell("compiling", min(compiled, OBJECTS), OBJECTS)
    if make.returncode:
        raise BadInput("kernel", "make failed", f"{log} says why")


def _initrd(path: Path, exhaust: Path) -> None:
    """Write what the guest boots from: busybox, what it runs, and places to mount on."""
    entries: list[tuple[str, int, bytes]] = [
        (name, 0o040755, b"") for name in ("bin", "dev", "disk", "host", "loop", "proc", "sys")
    ]
    programs = {"init": _ROOM / "init", "bin/busybox": _BUSYBOX, "bin/exhaust": exhaust}
    entries += [(name, 0o100755, program.read_bytes()) for name, program in programs.items()]
    with gzip.GzipFile(path, "wb", mtime=0) as file:
        for number, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
            file.write(_newc(number, name, mode, content))


def _newc(number: int, name: str, mode: int, content: bytes) -> bytes:
    """One entry of a cpio archive in the new ASCII format of cpio(5): 13 fields of 8 digits."""
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)
