"""What a refresh keeps whatever happens meanwhile: the maximum, the minimum in service, an end, and every restart."""

from dataclasses import replace

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from autoscaler.core.action import InFlight, Intent, IntentState, Remove
from autoscaler.core.decision import Decision, ReasonCode
from autoscaler.core.instances import Instance
from autoscaler.core.memory import RefreshState
from autoscaler.core.observation import Change, Observation, Unknown
from autoscaler.core.policy import CountOrShare, Image, Policy, Refresh
from autoscaler.core.replacing import least_in_service
from autoscaler.core.transition import InstanceState, TransitionReason
from tests.support.plant import group_instances
from tests.unit.test_core_invariants import Group
from tests.unit.test_core_invariants import policies as any_policies

IMAGES = tuple(Image("default", f"{name}.qcow2") for name in ("golden", "v2", "v3"))
counts = st.builds(CountOrShare, st.none() | st.integers(1, 4), st.sampled_from([0.25, 0.5, 1.0]))
refreshes = st.builds(
    Refresh,
    canary=st.integers(0, 3),
    canary_soak_seconds=st.sampled_from([0.0, 30.0]),
    batch=counts,
    pause_seconds=st.sampled_from([0.0, 30.0]),
    min_in_service=st.just(CountOrShare(0)) | counts,
    timeout_seconds=st.just(300.0),
    rollback=st.booleans(),
)
policies = st.builds(lambda policy, refresh: replace(policy, refresh=refresh), any_policies, refreshes)
ENOUGH_TICKS = 600


class Refreshed(Group):
    """One group that is refreshed again and again while all else happens to it; it draws a third of its rules."""

    @initialize(policy=policies, action_seconds=st.sampled_from([1.0, 25.0]))
    def begin(self, policy: Policy, action_seconds: float) -> None:
        self._begin(policy, action_seconds)
        host = self.plant.host
        host.images = frozenset((image.pool, image.volume) for image in IMAGES)
        host.volumes |= host.images
        for _ in range(6):
            self.plant.clock.advance(10.0)
            self._tick()

    @rule(image=st.sampled_from(IMAGES))
    def bring_out(self, image: Image) -> None:
        self.plant.policy = replace(self.plant.policy, image=image)
        self.plant.ask(Change.REFRESH)

    @rule(image=st.sampled_from(IMAGES))
    def bring_out_and_go_on(self, image: Image) -> None:
        self.bring_out(image)
        self.steady(12)

    @rule(image=st.sampled_from(IMAGES))
    def name_another_image(self, image: Image) -> None:
        self.plant.policy = replace(self.plant.policy, image=image)

    @rule(change=st.sampled_from([Change.REFRESH, Change.CANCEL_REFRESH, Change.ROLL_BACK]))
    def ask_of_refresh(self, change: Change) -> None:
        self.plant.ask(change)

    @rule(image=st.sampled_from(IMAGES), dead=st.booleans())
    def kill_image(self, image: Image, dead: bool) -> None:
        dead_images, name = self.plant.host.dead_images, (image.pool, image.volume)
        (dead_images.add if dead else dead_images.discard)(name)

    def teardown(self) -> None:
        """Let everything be well again: what is under way comes to its end, or lacks room and says so."""
        if not hasattr(self, "plant"):
            return
        self._heal()
        for _ in range(ENOUGH_TICKS):
            refresh = self._refresh()
            if refresh is None or not refresh.running:
                return
            self.plant.ask(Change.RESET)
            self.plant.clock.advance(10.0)
            self._tick()
        assert self.result is not None
        codes = {reason.code for reason in self.result.decisions[0].reasons}
        assert ReasonCode.REFRESH_LACKS_ROOM in codes, self._refresh()

    def _heal(self) -> None:
        plant = self.plant
        plant.broken, plant.demand, plant.host.steal = set(), 0.0, 0.0
        plant.host.dead_images, plant.host.silent = set(), set()
        plant.probes = {}
        plant.policy = replace(plant.policy, ready=replace(plant.policy.ready, tcp_port=None))
        for change in (Change.RESUME, Change.AUTO, Change.RESET):
            plant.ask(change)

    def _refresh(self) -> RefreshState | None:
        group = self.plant.memory.groups.get("web")
        return None if group is None else group.refresh

    def _check(self) -> None:
        super()._check()
        assert self.plant.observation is not None
        assert self.result is not None
        self._enough_stay(self.plant.observation, self.result.decisions[0])

    def _enough_stay(self, observation: Observation, decision: Decision) -> None:
        """Whenever a refresh takes somebody out of service, enough are left there."""
        assert self.result is not None
        if isinstance(observation.inventory["local"], Unknown):
            return
        planned = tuple(InFlight(Intent(0, 0.0, action), IntentState.OPEN) for action in self.result.actions)
        after = self._listed(replace(observation, in_flight=observation.in_flight + planned))
        taken = [i for i in after if self._is_taken_now(i, observation.at)]
        if taken:
            ready = sum(i.state is InstanceState.READY for i in after)
            assert ready >= least_in_service(self.plant.policy, decision.admitted)

    def _listed(self, observation: Observation) -> tuple[Instance, ...]:
        assert self.result is not None
        return group_instances(self.plant.policy, observation, self.result.memory)

    def _is_taken_now(self, instance: Instance, at: float) -> bool:
        assert self.result is not None
        assert self.before is not None
        known = self.result.memory.groups["web"].instances.get(instance.id)
        group = self.before.groups.get("web")
        life = group.lives.get(instance.id) if group is not None else None
        if known is None or life is None or life.state is not InstanceState.READY:
            return False
        if instance.state is InstanceState.DRAINING:
            return known.draining is TransitionReason.REFRESHED and known.draining_since == at
        action = instance.in_flight.intent.action if instance.in_flight is not None else None
        new = instance.in_flight is not None and instance.in_flight.intent.id == 0
        return new and isinstance(action, Remove) and action.reason == TransitionReason.REFRESHED.value

    def _nothing_is_done_where_nothing_differs(self, observation: Observation, decision: Decision) -> None:
        refresh = self._refresh()
        if refresh is None or not (refresh.running or refresh.since == observation.at):
            super()._nothing_is_done_where_nothing_differs(observation, decision)


def test_whatever_happens_a_refresh_keeps_its_bounds_and_ends() -> None:
    phases = (Phase.explicit, Phase.generate)
    run_state_machine_as_test(
        Refreshed,
        settings=settings(max_examples=60, stateful_step_count=30, deadline=None, derandomize=True, phases=phases),
    )
