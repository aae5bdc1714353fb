"""The example for workers, on the simulated host: out of zero, by the queue's length, and back to zero."""

from dataclasses import replace
from pathlib import Path

from autoscaler.core.memory import Memory
from autoscaler.core.observation import ExternalSample
from autoscaler.core.policy import metrics_of, queries_of
from autoscaler.core.step import step
from autoscaler.policy.load import load_file
from autoscaler.sampler import Sampler
from autoscaler.simulate.host import Clock, SimulatedHost
from autoscaler.store import Journal, TickRecord
from autoscaler.world import World
from tests.support.contract import InlineWorkers

EXAMPLE = Path(__file__).resolve().parents[2] / "policies/workers.yaml"


class Workers:
    """Ticks every ten seconds over a queue that a test makes longer and shorter."""

    def __init__(self) -> None:
        self.policy = replace(load_file(EXAMPLE), drain=replace(load_file(EXAMPLE).drain, deadline_seconds=5.0))
        clock = self.clock = Clock()
        journal = Journal.in_memory()
        image = (self.policy.image.pool, self.policy.image.volume)
        host = SimulatedHost("local", journal.controller, clock, images=frozenset({image}))
        self.jobs = 0.0
        sampler = Sampler({"local": host}, {}, 10.0, external=self.figures)
        self.world = World(sampler, journal, InlineWorkers(host, journal, clock))
        self.memory = Memory(journal.controller)

    def figures(self) -> dict[str, ExternalSample]:
        return dict.fromkeys(queries_of((self.policy,)), ExternalSample(self.jobs, self.clock.now()))

    def after(self, jobs: float, minutes: float) -> int:
        self.jobs = jobs
        for _ in range(int(minutes * 6)):
            seen = self.world.observe(self.clock.now(), metrics_of((self.policy,)))
            result = step((self.policy,), seen, self.memory)
            record = TickRecord(seen, (self.policy,), result.decisions, result.memory)
            intents = self.world.commit(record, result.actions)
            self.memory = result.memory
            self.world.begin(seen, intents)
            self.clock.advance(10.0)
            (decision,) = result.decisions
        return decision.admitted


def test_workers_follow_their_queue_from_zero_and_back() -> None:
    workers = Workers()
    assert workers.after(0, 2) == 0
    assert workers.after(1, 3) == 1
    assert workers.after(57, 5) == 6
    assert workers.after(1000, 10) == 12
    assert workers.after(3, 40) == 1
    assert workers.after(0, 40) == 0
