"""Every exception that nearly raises on purpose. Each is also the built-in it resembles."""

__all__ = [
    "DimensionError",
    "FormatError",
    "IdError",
    "InputError",
    "NearlyError",
    "StateError",
]


class NearlyError(Exception):
    """Base of all errors raised by nearly."""


class InputError(NearlyError, ValueError):
    """An argument that cannot be used: what came, what was wanted, what to do."""


class DimensionError(InputError):
    """Vectors of the wrong length.

    Parameters
    ----------
    name : str
        The argument at fault.
    got, expected : int
        Columns that came, columns that were wanted.
    """

    def __init__(self, name: str, *, got: int, expected: int) -> None:
        super().__init__(
            f"{name} has {got} columns, but {expected}-dimensional vectors are wanted here; "
            f"pass an array of shape (n, {expected})"
        )


class IdError(InputError, KeyError):
    """Ids that are unknown, negative, repeated or already taken."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0]) if self.args else ""


class FormatError(NearlyError, ValueError):
    """A file that is truncated, foreign, newer than this version, or damaged."""


class StateError(NearlyError, RuntimeError):
    """A call that this object cannot answer in its present state."""
