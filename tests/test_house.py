"""The rules of the house.

A rule that could be blind is a function that lists what breaks it, and a planted breach beside it
shows that it would be noticed. Rules about files that are not there yet hold of themselves;
README.md must be there.
"""

import argparse
import ast
import contextlib
import doctest
import enum
import importlib
import inspect
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import reservelab

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "reservelab"
Public = Callable[..., object]  # a function, a method or a class
SOURCES = sorted(PACKAGE.rglob("*.py"))
README = ROOT / "README.md"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def committed() -> list[Path]:
    """Every file that is in git, or would be after `git add .`."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [ROOT / name for name in sorted(set(names.split("\0"))) if (ROOT / name).is_file()]


# --- Rooms ---------------------------------------------------------------------------------------

# From the cellar up; a room may import itself and what stands before it.
ROOMS = ("model", "solve", "study", "kernel", "show", "command", "__main__")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Every module a file imports, by its full dotted name, wherever in the file it does so."""
    package = ["reservelab", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            # `from reservelab import model` imports the room, not the public face.
            if module == "reservelab":
                yield from (f"reservelab.{alias.name}" for alias in node.names)
            else:
                yield module


def climbing_imports(path: Path) -> list[str]:
    rank = ROOMS.index(room_of(path))
    wrong = []
    for name in imports(path):
        first, _, rest = name.partition(".")
        target = rest.split(".")[0]
        # The public face gathers every room, so importing it from a room is importing upwards.
        if first == "reservelab" and (target not in ROOMS or ROOMS.index(target) > rank):
            wrong.append(f"{path.name}: {name}")
    return wrong


def test_every_source_file_has_a_room() -> None:
    top = {path.name for path in PACKAGE.iterdir() if path.suffix == ".py"}
    assert top <= {"__init__.py", "__main__.py"}
    assert {room_of(path) for path in SOURCES} <= {"__init__", *ROOMS}
    directories = {path.parent for path in SOURCES}
    assert [d for d in directories if not (d / "__init__.py").is_file()] == []


def test_no_room_without_a_purpose() -> None:
    names = {path.stem for path in SOURCES}
    assert not names & {"utils", "util", "helpers", "core", "common", "misc"}


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if room_of(p) in ROOMS[:-1]], ids=lambda p: p.stem
)
def test_imports_go_down_only(path: Path) -> None:
    assert climbing_imports(path) == []


def test_model_imports_no_compiler() -> None:
    compilers = {"numba", "llvmlite"}
    files = [path for path in SOURCES if room_of(path) == "model"]
    assert [p.name for p in files if compilers & {name.split(".")[0] for name in imports(p)}] == []


@pytest.mark.parametrize(
    "line",
    [
        "from reservelab.study import sweep",
        "import reservelab.study.sweep",
        "def f():\n    from ..study import sweep",
        "import reservelab as rl",
        "from reservelab import simulate",
        "from reservelab import show",
        "from .. import study",
    ],
)
def test_an_upward_import_is_noticed(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / "solve").mkdir()
    path = tmp_path / "solve" / "planted.py"
    path.write_text(f"from reservelab.model import scenario\nfrom . import rules\n{line}\n")
    assert len(climbing_imports(path)) == 1


# --- Weight --------------------------------------------------------------------------------------


def test_importing_reservelab_stays_light() -> None:
    """A sweep's workers import this much; the figures, notebook and cluster extras stay outside."""
    heavy = {"matplotlib", "seaborn", "IPython", "ipywidgets", "jupyter_core", "jupyterlab"}
    heavy |= {"statsmodels", "firthmodels", "sklearn", "dask", "distributed"}
    code = "import json, sys, reservelab; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    modules = set(json.loads(done.stdout))
    assert "reservelab" in modules
    assert heavy & modules == set()


# --- Requirements --------------------------------------------------------------------------------

MODULE_TO_PACKAGE = {"yaml": "pyyaml"}
CONDA_TO_PYPI: dict[str, str] = {}  # every package has one name in both so far


def requirements(entries: Iterable[str]) -> dict[str, str]:
    """Names and specifiers, without the extras that name this project's other extras."""
    parsed = [Requirement(entry) for entry in entries]
    return {
        canonicalize_name(r.name): str(r.specifier) for r in parsed if r.name != PROJECT["name"]
    }


CORE = requirements(PROJECT["dependencies"])
ALL = CORE | requirements(
    entry for extra in PROJECT["optional-dependencies"].values() for entry in extra
)


def test_extras_agree_with_each_other() -> None:
    entries = [e for extra in PROJECT["optional-dependencies"].values() for e in extra]
    entries += PROJECT["dependencies"]
    assert len({canonicalize_name(Requirement(e).name) for e in entries}) == len(ALL) + 1
    assert len([e for e in entries if Requirement(e).name != PROJECT["name"]]) == len(ALL)


def test_environment_yml_equals_pyproject() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert pip == {"pip": ["-e ."]}
    named = requirements(CONDA_TO_PYPI.get(entry, entry) for entry in conda)
    assert named.pop("python") == PROJECT["requires-python"]
    assert named.pop("pip") == ""
    assert named == ALL
    # Requirement() reads `a >=1` and `a>=1` alike, conda does not read every spelling pip does.
    assert all(re.fullmatch(r"[a-z0-9-]+((>=|==)[0-9.]+)?", entry) for entry in conda)


def test_lint_tools_are_pinned() -> None:
    assert ALL["ruff"].startswith("==")
    assert ALL["mypy"].startswith("==")


def test_lock_pins_every_requirement() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    locked = [Requirement(line) for line in lines if line and not line.lstrip().startswith("#")]
    versions: dict[str, list[str]] = {}
    for requirement in locked:
        assert re.fullmatch(r"==[^=*,]+", str(requirement.specifier)), requirement
        pin = str(requirement.specifier).removeprefix("==")
        versions.setdefault(canonicalize_name(requirement.name), []).append(pin)
    for name, specifier in ALL.items():
        wanted = Requirement(f"{name}{specifier}").specifier
        assert versions.get(name), name
        assert all(pin in wanted for pin in versions[name]), name


def undeclared(path: Path, declared: Iterable[str], *, whole_file: bool) -> set[str]:
    """Third-party packages a file imports that are not among the declared ones.

    Imports inside functions wait until somebody calls, so `whole_file=False` leaves them out.
    """
    tree = ast.parse(path.read_text())
    nodes: Iterable[ast.AST] = ast.walk(tree) if whole_file else tree.body
    modules: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            modules.add(node.module.split(".")[0])
    ours = {"reservelab", *sys.stdlib_module_names}
    ours |= {name for p in (ROOT / "tests").rglob("*.py") for name in (p.stem, p.parent.name)}
    packages = {str(canonicalize_name(MODULE_TO_PACKAGE.get(m, m))) for m in modules - ours}
    return packages - set(declared)


def test_every_import_is_declared() -> None:
    for path in [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))]:
        assert undeclared(path, ALL, whole_file=True) == set(), path


def test_core_install_suffices_below_show() -> None:
    for path in SOURCES:
        if room_of(path) in ("__init__", "__main__", "model", "solve", "study"):
            assert undeclared(path, CORE, whole_file=False) == set(), path


# Runs command lines where no package but those of the core install can be imported.
CORE_ONLY = """
import importlib.abc, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {strangers}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
from reservelab.__main__ import main
"""


def test_a_core_install_suffices(tmp_path: Path) -> None:
    """Without jupyter, seaborn and dask: only drawing pictures, and a cluster, need an extra."""
    pypi_to_module = {package: module for module, package in MODULE_TO_PACKAGE.items()}
    strangers = {pypi_to_module.get(name, name).replace("-", "_") for name in set(ALL) - set(CORE)}
    strangers |= {"IPython", "jupyter_core", "notebook"}
    (tmp_path / "grid.toml").write_text(
        'name = "grid"\n[axes]\nscheme = ["global", "perthread"]\nthreads = [2, 3]\n'
        "[base]\nmachine = {pages = 8}\nquota = 2\n"
        '[[base.mounts]]\nname = "toy"\nprogram = ["alloc 2", "submit"]\nflushers = 2\n'
        '[base.scheme]\nvariant = "global"\n'
    )
    scenario = "--scheme global --mount ext3:3 --pages 12"
    asked = {
        "simulate": f"simulate {scenario} --episodes 100",
        "trace": f"trace {scenario}",
        "exact": f"exact {scenario}",
        "prove": f"prove {scenario}",
        "rare": f"rare {scenario}",
        "export": f"export --prism {scenario}",
        "sweep": "sweep grid.toml --store store --episodes 100",
        "fit": "fit store",
        "claims": "claims refill",
        "figures": "figures store --for list",
        "mail": "mail store",
    }
    assert set(asked) <= set(verbs(command_line()))
    lines = [*asked.values(), "mail refill", "claims --repairs"]
    code = CORE_ONLY.format(strangers=sorted(strangers))
    code += "".join(f"print('exit', main({shlex.split(line)!r}), flush=True)\n" for line in lines)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    codes = re.findall(r"^exit (\d+)$", done.stdout, re.M)
    # prove says with 1 that a scenario is unsafe.
    wanted = ["1" if line.startswith("prove") else "0" for line in lines]
    assert codes == wanted, done.stdout[-2000:] + done.stderr


def test_a_missing_package_would_be_noticed(tmp_path: Path) -> None:
    code = CORE_ONLY.format(strangers=["pandas"]) + "main(['claims', 'refill'])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "No module named 'pandas'" in done.stderr


def test_versions_and_licenses_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["title"] == PROJECT["name"]
    named = {path.stem for path in (ROOT / "LICENSES").iterdir()}
    assert set(re.split(r" AND | OR ", PROJECT["license"])) == named
    assert all(f"LICENSES/{name}.txt" in (ROOT / "LICENSE").read_text() for name in named)


# --- Docstrings ----------------------------------------------------------------------------------


def public_objects(module: str) -> Iterator[tuple[str, Public, bool]]:
    """What a module defines without an underscore, methods too; the last item: is it compiled?"""
    for name, value in vars(importlib.import_module(module)).items():
        plain = getattr(value, "py_func", value)
        if name.startswith("_") or getattr(plain, "__module__", None) != module:
            continue
        if inspect.isfunction(plain):
            yield name, plain, plain is not value
        elif inspect.isclass(plain):
            yield name, plain, False
            for method, raw in vars(plain).items():
                inner = getattr(raw, "__func__", raw)  # behind classmethod and staticmethod
                if not method.startswith("_") and inspect.isfunction(inner):
                    yield f"{name}.{method}", inner, False


def documented(docstring: str, section: str) -> list[str] | None:
    """Names in a numpydoc section, in order; None where there is no such section."""
    lines = inspect.cleandoc(docstring).splitlines()
    heads = [i for i in range(len(lines) - 1) if re.fullmatch(r"-{3,}", lines[i + 1])]
    for place, head in enumerate(heads):
        if lines[head] == section:
            end = heads[place + 1] if place + 1 < len(heads) else len(lines)
            entries = [line for line in lines[head + 2 : end] if line and not line[0].isspace()]
            names = ", ".join(entry.partition(" :")[0] for entry in entries)
            return [name.strip().lstrip("*") for name in names.split(",") if name.strip()]
    return None


def takes(thing: Public) -> list[str] | None:
    """The parameters a caller passes; None for a class that is not made by calling it."""
    if inspect.isclass(thing):
        own = {"__init__", "__new__"} & set(vars(thing)) or is_dataclass(thing)
        if issubclass(thing, enum.Enum) or not own:
            return None
    return [name for name in inspect.signature(thing).parameters if name not in ("self", "cls")]


def docstring_faults(thing: Public, *, required: bool = True) -> list[str]:
    docstring = thing.__doc__ or ""
    if not docstring.strip():
        return ["has no docstring"]
    wanted = takes(thing)
    if wanted is None:
        return []
    listed = documented(docstring, "Parameters")
    if listed is None and inspect.isclass(thing):  # frozen values may call them attributes
        listed = documented(docstring, "Attributes")
    if listed is None and not required:
        return []
    return [] if (listed or []) == wanted else [f"documents {listed or []}, takes {wanted}"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: f"{room_of(p)}-{p.stem}")
def test_docstrings_equal_signatures(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    # Compiled functions share their tables, which stand once at the head of the module; the verbs'
    # files serve each other only.
    faults = {
        name: docstring_faults(thing, required=not compiled and room_of(path) != "command")
        for name, thing, compiled in public_objects(module)
    }
    assert {name: wrong for name, wrong in faults.items() if wrong} == {}


def test_public_face_is_documented() -> None:
    for name in getattr(reservelab, "__all__", []):
        value = getattr(reservelab, name)
        if inspect.isclass(value) or callable(value):
            assert docstring_faults(getattr(value, "py_func", value)) == [], name


def test_a_wrong_docstring_is_noticed() -> None:
    def good(pages: int, *names: str, seed: int = 1) -> None:
        """Do.

        Parameters
        ----------
        pages : int
            Pages: how many.
        *names : str
            Names.
        seed : int
            Seed.

        Returns
        -------
        nothing : None
            Nothing.
        """

    def order(seed: int, pages: int) -> None:
        """Do.

        Parameters
        ----------
        pages, seed : int
            Both.
        """

    def silent(pages: int) -> None:
        """Do."""

    @dataclass(frozen=True)
    class Value:
        """A value.

        Parameters
        ----------
        low : int
            Low.
        """

        low: int
        high: int = 0

    assert docstring_faults(good) == []
    assert [len(docstring_faults(thing)) for thing in (order, silent, Value)] == [1, 1, 1]


# --- Words that must not stand where they would do harm ------------------------------------------

# Written so that this file does not hold what it forbids.
FORBIDDEN = {
    "registry host": re.compile(
        r"(?:pypi|pythonhosted|anaconda|npmjs|crates|rubygems|proxy\.golang|deb\.debian)"
        r"\.(?:org|com|io)\b"
    ),
    "index option": re.compile(r"--(?:(?:extra-)?index-url|find-links|trusted-host)"),
    "absolute path": re.compile(
        r"(?<![\w.~*$})\]/-])/(?:work|home|root|tmp|Users|mnt|opt|srv)(?:/|(?![\w-]))"
    ),
    "path out of the checkout": re.compile(r"\.\./shared\b|file[:]/"),
}


def forbidden(text: str) -> list[str]:
    return [
        f"line {number}: {what}: {found.group()}"
        for number, line in enumerate(text.splitlines(), 1)
        for what, pattern in FORBIDDEN.items()
        for found in pattern.finditer(line)
    ]


def test_no_registry_host_and_no_absolute_path() -> None:
    # Licence texts are others' words, and they may name a postal or a web address.
    wrong = {}
    for path in committed():
        data = path.read_bytes()
        if b"\0" not in data and path.parent.name != "LICENSES":
            wrong[str(path.relative_to(ROOT))] = forbidden(data.decode(errors="replace"))
    assert {name: faults for name, faults in wrong.items() if faults} == {}


@pytest.mark.parametrize("slash", ["/", "cd /", "'/", "(/", '"path": "/'])
@pytest.mark.parametrize("place", ["work/main", "home/me", "root", "tmp", "tmp/x", "opt/wheels"])
def test_an_absolute_path_is_noticed(slash: str, place: str) -> None:
    assert len(forbidden(slash + place)) == 1


def test_a_registry_host_is_noticed() -> None:
    assert len(forbidden("https://files.python" + "hosted.org/packages/x.whl")) == 1
    assert len(forbidden("--extra-" + "index-url x")) == 1


@pytest.mark.parametrize(
    "text",
    ["net/work", "a/tmp/b", "#!/usr/bin/env bash", "/dev/null", "~/home", "$(A)/root", "/workers"],
)
def test_a_harmless_path_is_not(text: str) -> None:
    assert forbidden(text) == []


def test_notebooks_carry_no_outputs() -> None:
    for path in sorted((ROOT / "notebooks").rglob("*.ipynb")):
        for cell in json.loads(path.read_text())["cells"]:
            assert cell.get("outputs", []) == [], path
            assert cell.get("execution_count") is None, path


# A name of a scheme in compiled code means that the engine knows schemes and not choices.
SCHEME_IDENTIFIER = re.compile(r"watermark|mempool|globalpool|tickets|^perthread")
SCHEME_WORD = re.compile(r"\b(?:watermark|mempool|per-?thread|global|global-?pool|tickets)\b", re.I)


def scheme_names(source: str) -> list[str]:
    """Scheme names among identifiers and strings; docstrings and comments may say them."""
    tree = ast.parse(source)
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in docstrings and SCHEME_WORD.search(node.value):
                found.append(node.value)
            continue
        names = (getattr(node, key, None) for key in ("id", "attr", "arg", "name", "asname"))
        found += [
            name
            for name in names
            if isinstance(name, str) and SCHEME_IDENTIFIER.search(name.lower().replace("_", ""))
        ]
    return found


def is_compiled(source: str) -> bool:
    """Whether a source has compiled functions, by numba's decorator or one made of it."""
    functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)]
    decorators = [ast.unparse(d).partition("(")[0] for f in functions for d in f.decorator_list]
    return any(re.search(r"jit|compile|vectorize|numba", decorator) for decorator in decorators)


def test_compiled_code_knows_no_scheme() -> None:
    sources = {p.name: p.read_text() for p in SOURCES if room_of(p) == "solve"}
    found = {name: scheme_names(text) for name, text in sources.items() if is_compiled(text)}
    assert {name: names for name, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "line",
    [
        "GLOBAL_POOL = 3",
        "def enter_mempool(): ...",
        "from reservelab.model.schemes import Tickets",
        "x = scheme.family == 'global'",
        "PER_THREAD = 1",
        "def f(watermark_scheme): ...",
    ],
)
def test_a_scheme_name_is_noticed(line: str) -> None:
    assert len(scheme_names(f'"""The global pool."""\n{line}  # tickets\n')) == 1
    assert scheme_names("free_above_mark = pages_per_thread + claim\n") == []


def test_compiled_code_is_recognised() -> None:
    for decorator in ("njit", "numba.njit(cache=True)", "compiled", "nb.jit"):
        assert is_compiled(f"@{decorator}\ndef f(): ...\n")
    assert not is_compiled("@dataclass(frozen=True)\nclass A: ...\n@property\ndef f(): ...\n")


# --- Makefile and command line -------------------------------------------------------------------

MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, re.M))


def test_make_help_lists_every_target() -> None:
    listed = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert set(re.findall(r"^make ([a-z]+) ", listed, re.M)) == TARGETS
    phony = re.search(r"^\.PHONY: (.*)", MAKEFILE, re.M)
    assert phony is not None
    assert set(phony[1].split()) == TARGETS


def test_pytest_has_the_last_word() -> None:
    """CI reads the run's closing line."""
    recipe = MAKEFILE.partition("\ntest:")[2].partition("\n\n")[0]
    assert recipe.splitlines()[-1] == "\t$(BIN)/pytest"
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    assert script[-1].startswith("exec ")
    assert script[-1].endswith(" make test")


def command_line() -> argparse.ArgumentParser:
    parser: Callable[[], argparse.ArgumentParser] = importlib.import_module(
        "reservelab.__main__"
    ).parser
    return parser()


def verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (choices,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(choices.choices)


def outcome(parser: argparse.ArgumentParser, words: list[str]) -> tuple[int, str]:
    """Exit code and output of reading a command line, without running it."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            parser.parse_args(words)
        except SystemExit as stop:
            return int(stop.code or 0), output.getvalue()
    return 0, output.getvalue()


needs_command_line = pytest.mark.skipif(
    not (PACKAGE / "__main__.py").is_file(), reason="reservelab/__main__.py is not written yet"
)


@needs_command_line
def test_every_verb_has_help() -> None:
    parser = command_line()
    assert {"simulate", "sweep", "trace", "fit", "figures"} <= set(verbs(parser))
    for words in ([], *([verb] for verb in verbs(parser))):
        code, text = outcome(parser, [*words, "--help"])
        assert code == 0
        assert text.startswith("usage: reservelab")
        assert text.isascii(), f"boxes or colour in the help of {words}"
        assert "\x1b" not in text
        assert all(verb in text for verb in words)


@needs_command_line
def test_no_option_stands_without_a_verb() -> None:
    options = {name for action in command_line()._actions for name in action.option_strings}
    assert options == {"-h", "--help", "--version"}
    code, text = outcome(command_line(), ["--version"])
    assert code == 0
    assert PROJECT["version"] in text
    assert re.search(r"\brules\D*\d", text)


@needs_command_line
def test_every_option_is_explained_and_read() -> None:
    files = [path for path in SOURCES if room_of(path) == "command"]
    trees = [ast.parse(path.read_text()) for path in files]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    read = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    for verb, parser in verbs(command_line()).items():
        for action in parser._actions:
            if not isinstance(action, argparse._HelpAction):
                assert action.help, f"{verb}: {action.dest} has no help"
                assert action.dest in read, f"{verb}: nobody reads {action.dest}"


# --- README --------------------------------------------------------------------------------------


@dataclass
class Block:
    """A fenced block of shell commands; `run` where an HTML comment above it says so."""

    line: int
    run: bool
    commands: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)  # one per command; "" shows nothing


SHELLS = {"sh", "bash", "shell", "console"}


def blocks(text: str) -> list[Block]:
    found = []
    lines = text.splitlines()
    number = 0
    marked = False
    while number < len(lines):
        fence = re.fullmatch(r"( *)```(\w*).*", lines[number])
        if fence is None:
            marked = lines[number].strip() == "<!-- run -->" or (
                marked and not lines[number].strip()
            )
            number += 1
            continue
        end = next(i for i in range(number + 1, len(lines)) if lines[i].strip() == "```")
        body = [line.removeprefix(fence[1]) for line in lines[number + 1 : end]]
        if fence[2] in SHELLS:
            block = Block(line=number + 1, run=marked)
            read_commands(block, body, prompt="$ " if fence[2] == "console" else "")
            found.append(block)
        elif marked:
            raise AssertionError(f"README line {number + 1}: marked as run, but not a shell block")
        marked = False
        number = end + 1
    return found


def read_commands(block: Block, body: list[str], prompt: str) -> None:
    """Split a block into commands, a backslash joining lines, and what follows each prompt."""
    pending = ""
    for line in body:
        if pending:
            pending = pending.removesuffix("\\") + line.removeprefix("> ").lstrip()
        elif line.startswith(prompt):
            pending = line.removeprefix(prompt)
            if not prompt and (not pending.strip() or pending.lstrip().startswith("#")):
                pending = ""
                continue
        elif block.commands:
            block.outputs[-1] += line.rstrip() + "\n"
            continue
        else:
            raise AssertionError(f"README line {block.line}: output before the first command")
        if not pending.endswith("\\"):
            block.commands.append(pending)
            block.outputs.append("")
            pending = ""


def simple_commands(command: str) -> Iterator[list[str]]:
    """The words of each command in a pipeline or list, without redirections and assignments."""
    plain = re.sub(r"(?<!\S)\d(?=[<>])", "", command)  # 2> is > to this reader
    lexer = shlex.shlex(plain, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    skip = False
    for token in [*lexer, ";"]:
        if set(token) <= set(";&|()"):
            while words and re.fullmatch(r"\w+=.*", words[0]):
                words.pop(0)
            if words:
                yield words
            words = []
        elif set(token) <= set("<>&"):
            skip = True
        elif skip:
            skip = False
        else:
            words.append(token)


def search_path() -> str:
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def command_faults(command: str) -> list[str]:
    """What in a command does not exist: its syntax, a program, a make target, a verb, an option."""
    syntax = subprocess.run(["bash", "-n", "-c", command], capture_output=True, check=False)
    if syntax.returncode:
        return [f"does not parse: {command}"]
    wrong = []
    for program, *words in simple_commands(command):
        name = program.removeprefix(".venv/bin/")
        if name.startswith("python") and words[:2] == ["-m", "reservelab"]:
            name, words = "reservelab", words[2:]
        if name == "reservelab":
            code, text = outcome(command_line(), words)
            wrong += [text.strip().splitlines()[-1]] if code else []
        elif name == "make":
            asked = {word for word in words if not word.startswith("-") and "=" not in word}
            wrong += [f"make has no target {target}" for target in sorted(asked - TARGETS)]
        elif "/" in name:
            wrong += [] if (ROOT / name).exists() else [f"no file {name}"]
        elif name not in {"conda", "mamba"}:  # checked against pyproject.toml, not run here
            found = subprocess.run(
                ["bash", "-c", 'type -t -- "$1"', "bash", name],
                env=os.environ | {"PATH": search_path()},
                capture_output=True,
                check=False,
            )
            wrong += [f"no program {name}"] if found.returncode else []
    return wrong


def readme() -> str:
    return README.read_text() if README.is_file() else ""


# Pages whose commands are held to the same: they parse, and those in marked blocks are run.
SHOWN = {
    f"{name}-line{block.line}": block
    for name in ("README.md", "docs/kernel.md", "docs/reproduce.md", "docs/schemes.md")
    if (ROOT / name).is_file()
    for block in blocks((ROOT / name).read_text())
}


@pytest.mark.parametrize("page", sorted({name.partition("-")[0] for name in SHOWN}))
def test_a_page_has_a_block_that_is_run(page: str) -> None:
    shown = [block for name, block in SHOWN.items() if name.startswith(page)]
    assert any(block.run and block.commands for block in shown)


@pytest.mark.parametrize(
    "command", [command for block in SHOWN.values() for command in block.commands]
)
def test_shown_commands_exist(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert command_faults(command) == []


def test_readme_names_make_targets_that_exist() -> None:
    assert set(re.findall(r"`make ([a-z]+)[^`]*`", readme())) <= TARGETS


def test_readme_names_every_verb() -> None:
    if (PACKAGE / "__main__.py").is_file() and README.is_file():
        assert [verb for verb in verbs(command_line()) if verb not in readme()] == []


def check_run(block: Block, directory: Path) -> None:
    """Run a block's commands where the checkout is seen but results/ is one's own."""
    for entry in ROOT.iterdir():
        if entry.name not in {".git", ".venv", "results"}:
            (directory / entry.name).symlink_to(entry)
    (directory / ".venv").symlink_to(sys.prefix)
    checker = doctest.OutputChecker()
    for command, wanted in zip(block.commands, block.outputs, strict=True):
        assert not any(words[0] == "make" for words in simple_commands(command)), (
            f"make would set up and test inside the test: {command}"
        )
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=directory,
            env=os.environ | {"PATH": search_path()},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        # prove says with 1 that a scenario is unsafe.
        right = (0, 1) if command.startswith("reservelab prove") else (0,)
        assert done.returncode in right, f"{command}\n{done.stdout}{done.stderr}"
        got = "".join(line.rstrip() + "\n" for line in done.stdout.splitlines())
        want = wanted.rstrip("\n") + "\n"
        assert not wanted.strip() or checker.check_output(want, got, doctest.ELLIPSIS), (
            f"$ {command}\nREADME says:\n{want}it prints:\n{got}"
        )


@pytest.mark.parametrize("name", [name for name, block in SHOWN.items() if block.run])
def test_blocks_marked_as_run_do(name: str, tmp_path: Path) -> None:
    check_run(SHOWN[name], tmp_path)


PLANTED = """
<!-- run -->

```console
$ printf 'one\\n%s\\n' \\
>     two | cat 2> /dev/null
one
...
$ true
```

```sh
A=1 make demo  # five minutes
# a comment

cat x > y && make nonsense
```

```python
nonsense()
```
"""


def test_blocks_are_read_as_a_person_would(tmp_path: Path) -> None:
    shown, told = blocks(PLANTED)
    assert (shown.run, told.run) == (True, False)
    assert shown.commands == ["printf 'one\\n%s\\n' two | cat 2> /dev/null", "true"]
    assert shown.outputs == ["one\n...\n", ""]
    assert [words[0] for words in simple_commands(shown.commands[0])] == ["printf", "cat"]
    assert [list(simple_commands(c)) for c in told.commands] == [
        [["make", "demo"]],
        [["cat", "x"], ["make", "nonsense"]],
    ]
    check_run(shown, tmp_path)


@pytest.mark.parametrize(
    "command",
    ["make nonsense", "nonsense --help", "cat nonsense | tests/nonsense.py", "for x in; do"],
)
def test_a_command_that_cannot_work_is_noticed(command: str) -> None:
    assert len(command_faults(command)) == 1


@needs_command_line
@pytest.mark.parametrize(
    "command", ["reservelab nonsense", ".venv/bin/reservelab simulate --nonsense"]
)
def test_a_verb_or_option_that_is_not_there_is_noticed(command: str) -> None:
    assert len(command_faults(command)) == 1


@pytest.mark.parametrize("command", ["echo two", "false"])
def test_a_block_that_prints_or_ends_otherwise_is_noticed(command: str, tmp_path: Path) -> None:
    (block,) = blocks(f"<!-- run -->\n```console\n$ {command}\none\n```\n")
    with pytest.raises(AssertionError):
        check_run(block, tmp_path)
