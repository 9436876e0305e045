"""The functions that a filter in SQL may name, and how each is asked of DuckDB.

None of them makes a text that is longer than what it got (a case mapping aside), so no filter can fill the memory; none
reads a file, a setting or the clock, so an answer depends on the row alone; none takes more than linear time in a text.
"""

from dataclasses import dataclass

__all__ = ["FUNCTIONS", "LIKES", "TYPES", "Function"]


@dataclass(frozen=True, slots=True)
class Function:
    """One function.

    Parameters
    ----------
    name : str
        DuckDB's name, or operator.
    counts : tuple of int
        Numbers of arguments that it takes.
    constant : int, optional
        The argument that must be a constant: a pattern that differs from row to row would be compiled for each.
    """

    name: str
    counts: tuple[int, ...]
    constant: int | None = None

    @property
    def operator(self) -> bool:
        return not self.name[0].isalpha()


def _table() -> dict[str, Function]:
    table = {name: Function(name, (2,)) for name in ("*", "/", "//", "%")}
    table |= {name: Function(name, (1, 2)) for name in ("+", "-")}
    one = (
        "abs ceil floor sign lower upper length year month day hour minute second quarter week dayofweek dayofyear "
        "to_years to_months to_days to_hours to_minutes to_seconds json_type json_array_length json_valid"
    )
    table |= {name: Function(name, (1,)) for name in one.split()}
    two = "contains starts_with ends_with left right nullif date_trunc date_part json_extract_string json_exists"
    table |= {name: Function(name, (2,)) for name in two.split()}
    table |= {name: Function(name, (1, 2)) for name in ("round", "trunc", "trim", "ltrim", "rtrim")}
    table |= {name: Function(name, tuple(range(1, 17))) for name in ("coalesce", "greatest", "least")}
    table |= {name: Function(name, (2,), constant=1) for name in ("regexp_matches", "regexp_full_match")}
    table["substring"] = Function("substring", (2, 3))
    table["strpos"] = Function("strpos", (2,))
    table["date_diff"] = Function("date_diff", (3,))
    also = {
        "ceiling": "ceil", "lcase": "lower", "ucase": "upper", "len": "length", "char_length": "length",
        "character_length": "length", "array_length": "length", "dayofmonth": "day", "weekofyear": "week",
        "prefix": "starts_with", "^@": "starts_with", "suffix": "ends_with", "list_contains": "contains",
        "list_has": "contains", "array_contains": "contains", "array_has": "contains", "substr": "substring",
        "position": "strpos", "instr": "strpos", "datetrunc": "date_trunc", "datepart": "date_part",
        "datediff": "date_diff", "->>": "json_extract_string", "json_extract_path_text": "json_extract_string",
        "ifnull": "coalesce", "~": "regexp_full_match", "add": "+", "subtract": "-", "multiply": "*", "divide": "//",
        "mod": "%",
    }  # fmt: skip
    del also["~"]  # its meaning changed between versions of DuckDB
    return table | {name: table[meant] for name, meant in also.items()}


FUNCTIONS = _table()
# LIKE in its forms: (case matters, the match is negated).
LIKES = {
    "~~": (True, False), "!~~": (True, True), "like_escape": (True, False), "not_like_escape": (True, True),
    "~~*": (False, False), "!~~*": (False, True), "ilike_escape": (False, False), "not_ilike_escape": (False, True),
}  # fmt: skip
# What may be cast to, by the names that SQL has for it.
TYPES = {
    "BOOLEAN": "BOOLEAN", "BOOL": "BOOLEAN", "TINYINT": "TINYINT", "SMALLINT": "SMALLINT", "INTEGER": "INTEGER",
    "INT": "INTEGER", "BIGINT": "BIGINT", "FLOAT": "FLOAT", "REAL": "FLOAT", "DOUBLE": "DOUBLE", "VARCHAR": "VARCHAR",
    "TEXT": "VARCHAR", "STRING": "VARCHAR", "DATE": "DATE", "TIMESTAMP": "TIMESTAMP", "DATETIME": "TIMESTAMP",
}  # fmt: skip
