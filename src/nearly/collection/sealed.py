"""Rows of the catalogue with checksums: SQLite's pages have none."""

import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["COLUMNS", "SEALED", "checksum", "has_checksums", "insert", "rows", "rows_of"]

SEALED = {  # tables whose rows have a checksum, of these columns; NULL in those that an early version wrote
    "configuration": ("name", "value"),
    "segments": ("name", "rows", "applied", "files", "alive"),
    "patches": ("segment", "row", "changes"),
    "log": ("sequence", "kind", "body", "vectors"),
}
COLUMNS = {**SEALED, "traces": ("erased", "piece", "sum")}  # the same of tables that no early version has


def has_checksums(sql: sqlite3.Connection) -> bool:
    """Whether the tables have a place for them: those of the first version have none."""
    return bool(sql.execute("SELECT count(*) FROM pragma_table_info('log') WHERE name = 'checksum'").fetchone()[0])


def checksum(row: Iterable[Any]) -> int:
    """CRC-32 of values, each with its length."""
    parts: list[bytes] = []
    for value in row:
        octets = value if value.__class__ is bytes else str(value).encode()
        parts += f"{value.__class__.__name__} {len(octets)} ".encode(), octets
    return zlib.crc32(b"".join(parts))


def rows(sql: sqlite3.Connection, table: str, order: str) -> Iterator[tuple[Any, ...]]:
    """The rows of a table; ValueError where one is not what was written."""
    for row, sound in rows_of(sql, table, order):
        if not sound:
            raise ValueError(f"a row of {table} is not what was written: its checksum is another; "
                             "nearly.collection.mend sets aside what is damaged")  # fmt: skip
        yield row


def rows_of(sql: sqlite3.Connection, table: str, order: str) -> Iterator[tuple[tuple[Any, ...], bool]]:
    """The rows of a table, and whether each is what was written."""
    found = "checksum" if has_checksums(sql) else "NULL"
    for *row, expected in sql.execute(f"SELECT {', '.join(COLUMNS[table])}, {found} FROM {table} ORDER BY {order}"):
        yield tuple(row), expected is None or expected == checksum(row)


def insert(sql: sqlite3.Connection, table: str, rows: Iterable[tuple[Any, ...]], *, replace: bool = False) -> None:
    """Put rows into a table, each with its checksum."""
    columns = (*COLUMNS[table], "checksum")
    sql.executemany(
        f"INSERT {'OR REPLACE ' * replace}INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
        ((*row, checksum(row)) for row in rows),
    )
