"""Patterns of LIKE as plainer tests: DuckDB 1 tries all ways to match ``_`` after ``%``, which may take for ever."""

from nearly.errors import InputError
from nearly.filters.expressions import Call, Compare, Expression, Literal

__all__ = ["like"]

_ONE, _ANY = 0, 1  # in place of characters: _ and %


def like(item: Expression, pattern: str, *, escape: str | None = None, cased: bool = True) -> Expression:
    """Return the condition that an item matches a pattern.

    Parameters
    ----------
    item : Expression
        A text.
    pattern : str
        ``%`` stands for any text, ``_`` for one character.
    escape : str, optional
        One character: the one that follows it stands for itself.
    cased : bool
        Capital letters differ from small ones.

    Examples
    --------
    >>> from nearly.filters import F
    >>> like(F.name, "data%"), like(F.name, "%base%")
    (F.name.starts_with('data'), F.name.contains('base'))
    >>> like(F.name, "d_t%", cased=False)
    regexp_full_match(F.name, '(?is)d.t.*')
    """
    parts = _parts(pattern, escape)
    if cased and _ONE not in parts:
        match parts:
            case []:
                return Compare("=", item, Literal(""))
            case [str(text)]:
                return Compare("=", item, Literal(text))
            case [int()]:
                return Call("starts_with", (item, Literal("")))
            case [str(text), int()]:
                return Call("starts_with", (item, Literal(text)))
            case [int(), str(text)]:
                return Call("ends_with", (item, Literal(text)))
            case [int(), str(text), int()]:
                return Call("contains", (item, Literal(text)))
    pieces = [_quoted(part) if isinstance(part, str) else ".*" if part == _ANY else "." for part in parts]
    return Call("regexp_full_match", (item, Literal(f"(?{'' if cased else 'i'}s){''.join(pieces)}")))


def _parts(pattern: str, escape: str | None) -> list[str | int]:
    if escape is not None and len(escape) > 1:
        raise InputError(f"ESCAPE takes one character, but {escape!r} came")
    parts: list[str | int] = []
    characters = iter(pattern)
    for character in characters:
        if character == escape:
            character = next(characters, "")
            if not character:
                raise InputError(f"the pattern {pattern!r} ends with its escape character")
        elif character in "%_":
            part = _ANY if character == "%" else _ONE
            if part == _ONE or parts[-1:] != [_ANY]:
                parts.append(part)
            continue
        if parts and isinstance(parts[-1], str):
            parts[-1] += character
        else:
            parts.append(character)
    return parts


def _quoted(text: str) -> str:
    """The same text in the language of RE2."""
    return "".join(c if c.isalnum() else f"\\x{{{ord(c):x}}}" for c in text)
