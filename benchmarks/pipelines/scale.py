"""What follows from the number of cores: how much is asked for, and how many processes there are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """Of all ways alike."""

    cores: int = 2
    """At least one."""

    @property
    def at_once(self) -> tuple[int, ...]:
        """Pictures that are asked about: few, as of people who wait, and many, as under load."""
        return 4 * self.cores, 16 * self.cores

    @property
    def many_at_once(self) -> int:
        """Enough for the most pictures a second."""
        return 32 * self.cores

    @property
    def workers(self) -> int:
        """One for each core: the Python of a worker keeps no more busy, and its threads wait for each other."""
        return self.cores

    @property
    def others(self) -> int:
        """Processes of each pipeline, and of the classifier's batcher: one for four cores."""
        return max(1, self.cores // 4)

    @property
    def max_pictures(self) -> int:
        """That one process of a pipeline is busy with."""
        return 12 * self.cores // self.others

    @property
    def instances(self) -> tuple[int, ...]:
        """To try of Triton's model that calls the others; each is a process, which does a picture at a time."""
        return self.cores, 2 * self.cores, 4 * self.cores, 8 * self.cores
