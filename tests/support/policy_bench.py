"""A batching policy driven by hand, under virtual time."""

from __future__ import annotations

from dataclasses import dataclass, field

from shoal.batcher.policy import BatchingPolicy, Close, Reject, Send
from shoal.batching.fair_queue import Queued
from shoal.modelconfig.batching import BatchingSettings
from shoal.runtime.priority import Priority

INTERACTIVE, BULK = Priority
CHEAP, DEAR = (0.005, 0.0002), (0.0015, 0.0065)
"""Seconds of a batch, and of each request in it."""


@dataclass
class Bench:
    """Drives a policy by hand."""

    settings: BatchingSettings
    now: float = 0.0
    sent: dict[str, list[Queued]] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    rejected: list[Queued] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.policy: BatchingPolicy[str, Queued] = BatchingPolicy(self.settings)

    def do(self, decisions: list) -> None:
        for decision in decisions:
            match decision:
                case Send(stream, requests):
                    self.sent.setdefault(stream, []).extend(requests)
                case Close(stream, size, reason):
                    assert size == len(self.sent[stream])
                    self.closed[stream] = reason
                case Reject(request, _):
                    self.rejected.append(request)

    def arrive(
        self, count: int, priority: Priority = INTERACTIVE, owner: str = "a", affinity: str = ""
    ) -> list[Queued]:
        requests = [Queued(owner, self.now, self.now + 60, priority=priority, affinity=affinity) for _ in range(count)]
        self.do(self.policy.arrived(self.now, requests))
        return requests

    def permit(self, stream: str, priority: Priority = INTERACTIVE, worker: str = "w") -> None:
        self.do(self.policy.permitted(self.now, stream, worker, priority))

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while self.policy.wake_at <= end:
            self.now = max(self.now, self.policy.wake_at)
            self.do(self.policy.tick(self.now))
        self.now = end

    def learn(self, line: tuple[float, float], preparation: float | None = None) -> None:
        """Sizes 1, 2, 4 … took what ``line`` says; all but ``preparation`` of it was at the engine, if that is told."""
        base, slope = line
        self.policy.configure(BatchingSettings(max_batch_size=self.settings.max_batch_size))
        size = 1
        while size <= self.settings.max_batch_size:
            for number in range(8):
                stream = f"learn-{size}-{number}"
                self.arrive(size)
                self.permit(stream, worker="teacher")
                self.now += base + slope * size
                engine = 0.0 if preparation is None else base + slope * size - preparation
                self.policy.executed(self.now, stream, engine)
            size *= 2
        self.policy.configure(self.settings)
        self.sent.clear()
        self.closed.clear()

    def sizes(self, stream: str) -> tuple[int, int]:
        """Interactive and bulk requests there."""
        bulk = sum(request.priority is BULK for request in self.sent[stream])
        return len(self.sent[stream]) - bulk, bulk
