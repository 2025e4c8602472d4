"""The sparsity of gradual pruning by step. No torch: params are checked without it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """When weights become zero, and how many: cuts after `begin`, `begin + every`, ... steps (0: before the first)."""

    ratio: float  # share of the weights that are zero after the last cut
    begin: int
    every: int
    intervals: int  # between the first cut and the last; 0: a single cut

    @property
    def end(self) -> int:
        """The steps taken before the last cut."""
        return self.begin + self.intervals * self.every

    def cuts_after(self, step: int) -> bool:
        """Return whether weights become zero after `step` steps."""
        return self.begin <= step <= self.end and (step - self.begin) % self.every == 0

    def sparsity(self, initial: float, step: int) -> float:
        """Return the share of zeros after the cut at `step`: s_f + (s_i - s_f) (1 - (t - t_0) / (n dt))^3.

        `initial`, s_i, is the share before the first cut; n dt is the number of steps from the first cut to the last
        (Zhu & Gupta 2017, eq. 1).
        """
        left = 1 - (step - self.begin) / (self.end - self.begin) if self.intervals else 0.0
        return self.ratio + (initial - self.ratio) * left**3
