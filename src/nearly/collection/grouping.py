"""Writes that share a commit: each is planned after those before it, and rows put one by one become one record.

What a record costs (a lookup of its keys in every part, a snapshot, a row of the log) is then paid once for all
of them. Rows wait to be put while nobody asks for them: a write that is anything else, or fails, is planned anew once
they are there.
"""

from collections.abc import Callable, Sequence
from typing import Any

from nearly.collection.records import Put, Record
from nearly.collection.state import State
from nearly.collection.tail import Batch

__all__ = ["Group", "Plan"]

# What a write comes to in a state: the state with its schema, the records to log, and what the caller is given.
Plan = tuple[State, Sequence[Record], Any]


class Group:
    """The writes of one commit.

    Parameters
    ----------
    state : State
        Before all of them.

    Attributes
    ----------
    n_bytes : int
        Of what they write, more or less.
    """

    def __init__(self, state: State) -> None:
        self._begun = state
        self._state, self._records = state, list[tuple[int, Record]]()
        self._waiting, self._keys = list[Batch](), set[Any]()
        self._failed: Exception | None = None
        self.n_bytes = 0

    def take(self, plan: Callable[[State], Plan]) -> Any:
        """Carry out a write, and return what its caller is given; raises what its plan raises, and leaves it out."""
        planned, records, result = self._planned(plan)
        if (batch := self._lone_batch(planned, records)) is not None:
            self._wait(batch)
        elif planned is not self._state or records:
            self._put_waiting()
            self._apply(planned, records)
        return result

    def whole(self) -> tuple[State, list[tuple[int, Record]]]:
        """The state after all writes, and their records with their places in the log; raises what none of them may
        survive."""
        try:
            self._put_waiting()
            if self._failed is not None:
                raise self._failed
        except Exception:
            self._begun.tail.forget(self._begun.fresh.n)  # what others of the group have put is not to be seen either
            raise
        return self._state, self._records

    def _planned(self, plan: Callable[[State], Plan]) -> Plan:
        if self._waiting:
            try:
                planned, records, result = plan(self._state)
                batch = self._lone_batch(planned, records)
                if batch is not None and self._joins(batch):
                    return planned, records, result
            except Exception:  # maybe for want of a row that waits
                self._state.tail.forget(self._state.fresh.n)
            self._put_waiting()
        return plan(self._state)

    def _lone_batch(self, planned: State, records: Sequence[Record]) -> Batch | None:
        """The rows that a write puts, where it does nothing else."""
        lone = records[0] if len(records) == 1 and planned is self._state else None
        return lone.batch if isinstance(lone, Put) else None

    def _joins(self, batch: Batch) -> bool:
        """Whether rows can be put together with those that wait, in any order."""
        return batch.is_like(self._waiting[0]) and self._keys.isdisjoint(batch.keys.tolist())

    def _wait(self, batch: Batch) -> None:
        self._waiting.append(batch)
        self._keys.update(batch.keys.tolist())
        self._state = self._state.counted(batch.keys)
        self.n_bytes += batch.n_bytes

    def _put_waiting(self) -> None:
        if self._waiting and self._failed is None:
            waiting, self._waiting, self._keys = self._waiting, [], set()
            self.n_bytes -= sum(each.n_bytes for each in waiting)  # their record counts them
            try:
                batch = Batch.joined(waiting)
                self._apply(self._state, [Put(batch.keys, batch)])
            except Exception as problem:  # those whose rows these are were told that all is well
                self._failed = problem
                raise

    def _apply(self, planned: State, records: Sequence[Record]) -> None:
        added = []
        try:
            for sequence, record in enumerate(records, planned.sequence + 1):
                planned = record.apply(planned, sequence)
                added.append((sequence, record))
        except Exception:
            self._state.tail.forget(self._state.fresh.n)
            raise
        self._state = planned
        self._records += added
        self.n_bytes += sum(record.n_bytes for record in records)
