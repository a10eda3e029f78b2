"""The one error for everything a user wrote wrongly."""

from __future__ import annotations


class BadInput(ValueError):
    """A scenario, grid, trace, store or command line that cannot be used.

    The text is one line: which key, what is wrong with it, what would be right. The command line
    prints that line and exits with code 2.

    Parameters
    ----------
    key : str
        The key, option or file that is wrong, as the user wrote it.
    wrong : str
        What is wrong with it.
    right : str
        What would be right.
    """

    undecided = False  # whether what was asked could have an answer all the same

    def __init__(self, key: str, wrong: str, right: str) -> None:
        super().__init__(key, wrong, right)
        self.key = key
        self.wrong = wrong
        self.right = right

    def __str__(self) -> str:
        return f"{self.key}: {self.wrong}; {self.right}"


def within(prefix: str, error: BadInput) -> BadInput:
    """Return the same error with its key placed inside a larger one, as ``mounts[1].flushers``.

    Parameters
    ----------
    prefix : str
        The key of what contains the wrong value.
    error : BadInput
        The error to place.

    Returns
    -------
    BadInput
        A new error; the given one is unchanged.
    """
    key = prefix if error.key == prefix else f"{prefix}.{error.key}"
    return BadInput(key, error.wrong, error.right)


def whole_number(key: str, value: object, least: int = 0) -> int:
    """Return `value` as an int of at least `least`, or say what is wrong with it.

    Parameters
    ----------
    key : str
        The key to name in the error.
    value : object
        What the user wrote.
    least : int
        The smallest value allowed.

    Returns
    -------
    int
        The value.

    Raises
    ------
    BadInput
        If it is not a whole number, or smaller than `least`.
    """
    # numpy integers arrive from notebooks; a bool is an int to Python and a slip to everybody else.
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        right = f"give an integer of at least {least}"
        raise BadInput(key, f"{value!r} is not a whole number", right)
    number = int(value.__index__())
    if number < least:
        raise BadInput(key, f"{number} is too small", f"give an integer of at least {least}")
    if number >= 2**31:
        raise BadInput(key, f"{number} is too large", "give an integer below 2147483648")
    return number
