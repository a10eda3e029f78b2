"""Write docs/api.md: every public name, its signature and its docstring, as they stand.

The docstrings are numpydoc, checked against the signatures by tests/test_house.py, and read well as
plain text, so that a page of them needs no documentation tool: those we know make a site of HTML,
with a theme and a configuration of their own.
"""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

import reservelab

PAGE = Path(__file__).with_name("api.md")
HEAD = """# API reference

Made from the docstrings by `python3 docs/make_api.py`; a test compares. `import reservelab as rl`
gives these names and no others. [model.md](model.md) says what the words mean.
"""


class Words(str):
    """An annotation as it stands in the source: without the quotation marks of a string."""

    def __repr__(self) -> str:
        return str(self)


def signature(name: str, thing: Callable[..., object]) -> Iterator[str]:
    """How it is called, a parameter on each line where one line is too narrow."""
    try:
        found = inspect.signature(thing)
    except ValueError:  # a class that is not made by calling it
        yield name
        return
    parameters = [
        p.replace(annotation=Words(p.annotation)) if isinstance(p.annotation, str) else p
        for p in found.parameters.values()
    ]
    result = found.return_annotation
    found = found.replace(
        parameters=parameters,
        return_annotation=Words(result) if isinstance(result, str) else result,
    )
    line = f"{name}{found}"
    if len(line) <= 88:
        yield line
        return
    yield f"{name}("
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and "    *," not in line:
            yield "    *,"
            line += "    *,"
        yield f"    {parameter},"
    yield ")" + str(found).rpartition(")")[2]


def described(name: str, thing: object) -> Iterator[str]:
    """The lines of one function, method, property or class."""
    if callable(thing):
        yield from signature(name, thing)
        yield ""
    yield from inspect.cleandoc(inspect.getdoc(thing) or "").splitlines()


def members(thing: type) -> Iterator[tuple[str, object]]:
    """Public methods and properties that a class defines itself, in their order."""
    for name, raw in vars(thing).items():
        inner = getattr(raw, "__func__", raw)
        if not name.startswith("_") and (inspect.isfunction(inner) or isinstance(raw, property)):
            yield name, getattr(thing, name) if inspect.isfunction(inner) else raw


def page() -> str:
    """The whole page."""
    lines = [HEAD]
    for name in sorted(reservelab.__all__, key=lambda name: (name.lower(), name)):
        thing = getattr(reservelab, name)
        lines += [f"## {name}", "", "```text"]
        if inspect.isclass(thing) or callable(thing):
            lines += described(name, thing)
        else:
            about = inspect.getdoc(thing) if inspect.ismodule(thing) else ""
            lines.append(about or f"{name}: {type(thing).__name__}")
        lines += ["```", ""]
        if inspect.isclass(thing):
            for member, value in members(thing):
                lines += [f"### {name}.{member}", "", "```text"]
                lines += [*described(f"{name}.{member}", value), "```", ""]
    return "\n".join(line.rstrip() for line in "\n".join(lines).splitlines()) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
