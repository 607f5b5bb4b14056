"""A set of row numbers kept as sorted runs: what is left to see of an epoch. Pure.

After a join the rows still to see are nearly all of the cache with holes in it. Runs keep that in memory proportional
to the holes, not to the rows, and keep neighbours neighbours, which is what makes block-shuffled reads local.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int64Array = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pool:
    """Rows as runs ``starts[i] .. starts[i] + lengths[i] - 1``, ascending. The rank of a row is its place in ascending order.

    ``ends`` holds the cumulative lengths: run ``i`` covers ranks ``ends[i] - lengths[i] .. ends[i] - 1``.
    """

    starts: Int64Array
    lengths: Int64Array
    ends: Int64Array

    @staticmethod
    def of_runs(starts: Int64Array, lengths: Int64Array) -> Pool:
        """A pool of runs that are ascending and do not overlap."""
        return Pool(starts, lengths, np.cumsum(lengths))

    @staticmethod
    def first(num_rows: int) -> Pool:
        """Rows ``0 .. num_rows - 1``."""
        return Pool.of_runs(np.zeros(1, dtype=np.int64), np.full(1, num_rows, dtype=np.int64))

    def __len__(self) -> int:
        return int(self.ends[-1])

    def rows(self, ranks: Int64Array) -> Int64Array:
        """Row of each rank."""
        run = np.searchsorted(self.ends, ranks, side="right")
        return self.starts[run] + ranks - (self.ends[run] - self.lengths[run])

    def keep(self, starts: Int64Array, stops: Int64Array) -> Pool:
        """The rows at ranks ``starts[i] .. stops[i] - 1``; the rank ranges do not overlap and may come in any order."""
        order = np.argsort(starts, kind="stable")
        starts, stops = starts[order], stops[order]
        bounds = np.unique(np.concatenate([starts, stops, np.zeros(1, dtype=np.int64), self.ends]))
        piece_starts, piece_stops = bounds[:-1], bounds[1:]
        inside = np.searchsorted(starts, piece_starts, side="right") - 1
        kept = (inside >= 0) & (piece_starts < stops[np.maximum(inside, 0)])
        return Pool.of_runs(self.rows(piece_starts[kept]), (piece_stops - piece_starts)[kept])

    def extended(self, old_num_rows: int, new_num_rows: int) -> Pool:
        """This pool and the rows ``old_num_rows .. new_num_rows - 1``, all above any row of this pool."""
        if new_num_rows == old_num_rows:
            return self
        starts = np.append(self.starts, old_num_rows).astype(np.int64)
        return Pool.of_runs(starts, np.append(self.lengths, new_num_rows - old_num_rows).astype(np.int64))
