"""What an operator asked for, as the core sees it. `autoscaler.policy` makes these from YAML.

Durations are in seconds, sizes in bytes, shares as fractions of one (0.6 is 60 %).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from math import ceil, inf

from autoscaler.core.metrics import METRICS, PROMETHEUS, Metric, Source


class Mode(StrEnum):
    """Whether decisions are carried out."""

    ACTIVE = "active"
    SHADOW = "shadow"
    """Everything is decided and recorded, nothing is done."""


class Accelerator(StrEnum):
    """How a guest's instructions are run."""

    AUTO = "auto"
    """KVM where a guest was seen to boot under it, emulation elsewhere."""
    KVM = "kvm"
    TCG = "tcg"


class Starved(StrEnum):
    """What to do with a group whose guests do not get the CPU they want, because their host has none to give."""

    HOLD = "hold"
    """Neither clone nor scale in: another instance would only take CPU from those there are."""
    ALARM = "alarm"
    """Act, and say so."""
    IGNORE = "ignore"


IMAGE_NAME = r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"
"""What the name of an image in the catalog looks like; it becomes part of the names of volumes."""


@dataclass(frozen=True, slots=True)
class Image:
    """The golden image: a volume of a storage pool on the group's host.

    One that is followed by its name has no pool and volume yet in a policy as it was written; the policy that a step
    is given has them, with the version that they are, or the name leads to nothing at present.
    """

    pool: str
    volume: str
    name: str | None = None
    """The name in the catalog; None for a volume that the policy names itself."""
    version: int | None = None
    """The version that is wanted, or used once pool and volume are known; None for the one that is published."""

    @property
    def found(self) -> bool:
        """Whether it is known which volume it is."""
        return bool(self.volume)

    def __str__(self) -> str:
        """Render as ``web`` or ``web version 3``, or as ``POOL/VOLUME`` without a name."""
        if self.name is None:
            return f"{self.pool}/{self.volume}"
        return self.name if self.version is None else f"{self.name} version {self.version}"

    def same_as(self, other: "Image | None") -> bool:
        """Whether both are the same volume, whatever it is called."""
        return other is not None and (self.pool, self.volume) == (other.pool, other.volume)


USER_NETWORK = "user"
"""The network name that stands for QEMU's user-mode networking."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The shape of every instance of a group."""

    vcpus: int = 1
    memory_bytes: int = 1024 * 1024 * 1024
    network: str = "default"
    accelerator: Accelerator = Accelerator.AUTO
    hugepages: bool = False
    """Whether the guest's memory is taken from the host's huge pages."""


@dataclass(frozen=True, slots=True)
class Size:
    """Bounds on the number of instances; `max` counts every owned instance and every clone in flight."""

    min: int
    max: int


@dataclass(frozen=True, slots=True)
class Signal:
    """What a strategy looks at: a metric, how the instances' values become one, and how a window's become one."""

    metric: str
    across: str = field(default="avg", kw_only=True)
    """Over the instances: avg, max, min, sum, or p1 to p99. Without effect on what is one value by itself."""
    over_seconds: float = field(default=60.0, kw_only=True)
    take: str = field(default="avg", kw_only=True)
    """Of the window: avg (by time), max, last, or p1 to p99."""
    query: str | None = field(default=None, kw_only=True)
    """The PromQL expression of the metric prometheus."""
    per_instance: bool = field(default=False, kw_only=True)
    """Divide what a query gives by the instances that serve."""
    pool: str | None = field(default=None, kw_only=True)
    """The storage pool of the metric host.pool_free."""

    @property
    def kind(self) -> Metric:
        """What is known of the metric."""
        return METRICS[self.metric]

    @property
    def source(self) -> str:
        """What has to be read for it; the key under which an observation holds external figures."""
        detail = self.query if self.metric == PROMETHEUS else self.pool
        return self.metric if detail is None else f"{self.metric} {detail}"

    @property
    def series(self) -> str:
        """The name of the series of group samples it is a window of."""
        if self.kind.source is Source.GUEST:
            return f"{self.across} {self.metric}"
        return f"{self.source} per instance" if self.per_instance else self.source

    @property
    def exists_at_zero(self) -> bool:
        """Whether it can be told while the group has no instance."""
        return self.kind.source in {Source.HOST, Source.EXTERNAL} and not self.per_instance


@dataclass(frozen=True, slots=True)
class TargetTracking(Signal):
    """Keep the signal near `target`, by as many instances as carry the load."""

    target: float


@dataclass(frozen=True, slots=True)
class Step:
    """What to do while the signal is in [lower, upper): one of `change`, `percent` and `exact` is given."""

    lower: float | None = None
    upper: float | None = None
    change: int | None = None
    """Instances to add; negative to remove."""
    percent: float | None = None
    """The same as a fraction of the count."""
    exact: int | None = None

    @property
    def adds(self) -> bool:
        """Whether it asks for more instances whatever their count."""
        return (self.change or 0) > 0 or (self.percent or 0.0) > 0

    @property
    def removes(self) -> bool:
        """Whether it may ask for fewer instances."""
        return (self.change or 0) < 0 or (self.percent or 0.0) < 0 or self.exact is not None

    def holds(self, value: float) -> bool:
        """Whether `value` lies within."""
        return (self.lower is None or value >= self.lower) and (self.upper is None or value < self.upper)


@dataclass(frozen=True, slots=True)
class StepScaling(Signal):
    """Change the count by how far the signal has gone."""

    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class ThresholdScaling(Signal):
    """Add while the signal stays above a line, remove while it stays below another.

    The condition must hold for all of `over_seconds`, or, with `breaches` and `samples`, in so many of the last ones.
    """

    above: float | None = field(default=None, kw_only=True)
    below: float | None = field(default=None, kw_only=True)
    add: int = field(default=1, kw_only=True)
    remove: int = field(default=1, kw_only=True)
    breaches: int | None = field(default=None, kw_only=True)
    samples: int | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Bounds or a count for spans that begin by a calendar. When they are active is told by the observation."""

    cron: str
    timezone: str
    for_seconds: float
    min: int | None = None
    max: int | None = None
    desired: int | None = None

    @property
    def key(self) -> str:
        """The key under which an observation tells whether it is active."""
        return f"{self.cron} {self.timezone} {self.for_seconds:g}"


Strategy = TargetTracking | StepScaling | ThresholdScaling | Schedule


class Select(StrEnum):
    """Which of several rate limits counts."""

    MAX = "max"
    """The one that allows the larger change."""
    MIN = "min"


@dataclass(frozen=True, slots=True)
class Rate:
    """At most so much change within a period: a count, or a share of the count at the period's start."""

    per_seconds: float
    count: int | None = None
    share: float | None = None


@dataclass(frozen=True, slots=True)
class DirectionLimits:
    """What slows a group down in one direction."""

    cooldown_seconds: float
    stabilization_seconds: float
    enabled: bool = True
    rates: tuple[Rate, ...] = ()
    select: Select = Select.MAX
    tolerance: float | None = None
    """How far from its target a signal may be in this direction; None is the behaviour's own."""


@dataclass(frozen=True, slots=True)
class Behavior:
    """What keeps a group steady."""

    tolerance: float = 0.1
    scale_out: DirectionLimits = DirectionLimits(cooldown_seconds=0.0, stabilization_seconds=0.0)
    scale_in: DirectionLimits = DirectionLimits(cooldown_seconds=300.0, stabilization_seconds=300.0)
    quorum: float = 1.0
    """The share of the serving instances that must be measured for a scale-in; the others are then taken as full."""

    @property
    def tolerance_out(self) -> float:
        """How far above its target a signal may be."""
        own = self.scale_out.tolerance
        return self.tolerance if own is None else own

    @property
    def tolerance_in(self) -> float:
        """How far below its target a signal may be."""
        own = self.scale_in.tolerance
        return self.tolerance if own is None else own


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """An HTTP GET that an instance has to answer with this status."""

    port: int = 80
    path: str = "/"
    status: int = 200


@dataclass(frozen=True, slots=True)
class Ready:
    """When an instance counts as ready: every gate asked for is passed, within a time from its start."""

    agent: bool = True
    """The guest agent answers."""
    address: bool = False
    """An IP address of the guest is known."""
    tcp_port: int | None = None
    """The guest takes connections on this port."""
    http: HttpCheck | None = None
    timeout_seconds: float = 300.0

    @property
    def probes(self) -> bool:
        """Whether an instance has to be asked over the network."""
        return self.tcp_port is not None or self.http is not None


@dataclass(frozen=True, slots=True)
class Health:
    """When an instance that was ready counts as unhealthy, and when so many do that none is replaced."""

    probe_failures: int = 3
    """Probes that failed in a row."""
    agent_silent_seconds: float = 300.0
    """How long an agent that had answered says nothing; heard only where `ready` asks for the agent."""
    max_unhealthy_share: float = 0.5
    """Above this share of the group nothing is replaced; a single unhealthy instance always is."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What keeps launches that go wrong from being repeated for ever."""

    breaker: int = 5
    """After so many failed launches in a row none is tried until an operator resets the group; 0 for never."""
    budget: int | None = None
    """Instances that may be made within an hour; None for what no sound policy needs."""

    def per_hour(self, size: Size) -> int:
        """Give the instances that may be made within an hour: as asked for, else 60 or four times the maximum."""
        return self.budget if self.budget is not None else max(60, 4 * size.max)


class HookKind(StrEnum):
    """How a drain hook is run."""

    COMMAND = "command"
    """A program on the daemon's machine."""
    WEBHOOK = "webhook"
    AGENT = "agent"
    """A program in the guest, through its agent."""


@dataclass(frozen=True, slots=True)
class Hook:
    """One thing to be done before an instance leaves; what it leaves undone at its deadline holds nothing up."""

    kind: HookKind
    argv: tuple[str, ...] = ()
    """The program with its arguments; empty for a webhook."""
    url: str = ""
    """Where to POST; empty for anything but a webhook."""
    deadline_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Drain:
    """How an instance leaves: hooks, a wait until it is idle, the request to shut down, the power-off."""

    deadline_seconds: float = 60.0
    """From the request to shut down to the power-off."""
    idle: float | None = None
    """The load below which it is idle, a fraction of its capacity; None: it is not waited for."""
    wait_seconds: float = 300.0
    """How long it is waited for."""
    hooks: tuple[Hook, ...] = ()


class RemovalOrder(StrEnum):
    """Which of several equally good instances leaves first."""

    NEWEST = "newest"
    OLDEST = "oldest"
    LEAST_LOADED = "least_loaded"


@dataclass(frozen=True, slots=True)
class Removal:
    """Which instances leave."""

    order: RemovalOrder = RemovalOrder.NEWEST
    min_lifetime_seconds: float = 0.0
    """Younger ones are not scaled in."""
    max_lifetime_seconds: float | None = None
    """Older ones are replaced, one at a time."""


class TrafficKind(StrEnum):
    """How a load balancer is told whom to serve by."""

    HAPROXY = "haproxy"
    """HAProxy's runtime API."""
    FILE = "file"
    """A file made from a template, and a command that lets the balancer read it."""
    FILE_SD = "file_sd"
    """Prometheus' file of targets."""
    WEBHOOK = "webhook"


class WhenDown(StrEnum):
    """What a balancer that does not answer holds up."""

    WAIT = "wait"
    """An instance becomes ready, and one that leaves is removed, when it answers again."""
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class Traffic:
    """Who sends the group's instances their requests."""

    kind: TrafficKind
    port: int = 80
    """Where the instances serve."""
    socket: str = ""
    """HAProxy's runtime API: the path of a unix socket, or host:port."""
    backend: str = ""
    slots: str = ""
    """The prefix of a `server-template`: slots are named so, with a number behind."""
    template: str = ""
    path: str = ""
    reload: tuple[str, ...] = ()
    """A program with its arguments."""
    url: str = ""
    weight_warming: float = 0.1
    """What share of the weight an instance has while it warms up."""
    drain_seconds: float = 30.0
    """How long sessions may take to end once nothing new comes."""
    unhealthy: bool = False
    """Whether an instance that the balancer's checks find down counts as unhealthy."""
    when_down: WhenDown = WhenDown.WAIT
    min_in_service: int | None = None
    """So many are never taken out of service; None for one where `size.min` is above zero."""


@dataclass(frozen=True, slots=True)
class CountOrShare:
    """So many instances of a group: a count, or a share of all of them, rounded up."""

    count: int | None = None
    share: float = 1.0

    def of(self, total: int) -> int:
        """Give the number of so many, at most all of them."""
        return min(total, ceil(self.share * total - 1e-9) if self.count is None else self.count)


@dataclass(frozen=True, slots=True)
class Refresh:
    """How a new version of the golden image replaces a group's instances."""

    canary: int = 1
    """How many are made of the new image before any other."""
    canary_soak_seconds: float = 60.0
    """How long the canaries are watched once they are ready."""
    batch: CountOrShare = CountOrShare(share=0.25)
    """How many are replaced before a pause; at least one."""
    pause_seconds: float = 60.0
    min_in_service: CountOrShare = CountOrShare(share=1.0)
    """So many of the group serve at any time, as far as the refresh has a say."""
    timeout_seconds: float = 3600.0
    """How long it goes on without coming any further."""
    rollback: bool = True
    """Whether it goes back by itself to the image that was in service when the new one proves bad."""


@dataclass(frozen=True, slots=True)
class Template:
    """Text in which placeholders stand for an instance's values, as its file held it when the policy was read."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret that templates name; it is read when an instance is made, and kept nowhere."""

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class CloudInit:
    """What cloud-init finds in a new instance. Without meta-data it is told its instance id and host name."""

    user_data: Template | None = None
    meta_data: Template | None = None
    network_config: Template | None = None
    secrets: tuple[Secret, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """One group: where it runs, what it is made of, and how it scales."""

    group: str
    image: Image
    size: Size
    hosts: tuple[str, ...] = ("local",)
    mode: Mode = Mode.ACTIVE
    machine: Machine = field(default_factory=Machine)
    scaling: tuple[Strategy, ...] = ()
    behavior: Behavior = field(default_factory=Behavior)
    warm_up_seconds: float = 60.0
    warm_up_auto: bool = False
    """The warm-up follows the measured launches; `warm_up_seconds` holds until there are any."""
    ready: Ready = field(default_factory=Ready)
    health: Health = field(default_factory=Health)
    launch: Launch = field(default_factory=Launch)
    drain: Drain = field(default_factory=Drain)
    removal: Removal = field(default_factory=Removal)
    refresh: Refresh = field(default_factory=Refresh)
    priority: int = 50
    """From 0 to 100; where room is scarce the more urgent group takes it, if need be from a less urgent one."""
    starved: Starved = Starved.HOLD
    traffic: Traffic | None = None
    cloud_init: CloudInit | None = None
    """None: instances get no seed for cloud-init."""

    @property
    def min_in_service(self) -> int:
        """How many the load balancer is always left."""
        asked = None if self.traffic is None else self.traffic.min_in_service
        return min(1, self.size.min) if asked is None else asked

    @property
    def host(self) -> str:
        """The host new instances are cloned on."""
        return self.hosts[0]

    @property
    def signals(self) -> tuple[Signal, ...]:
        """What its strategies look at."""
        return tuple(strategy for strategy in self.scaling if isinstance(strategy, Signal))

    @property
    def schedules(self) -> tuple[Schedule, ...]:
        """The schedules among its strategies."""
        return tuple(strategy for strategy in self.scaling if isinstance(strategy, Schedule))


def stand_in(group: str) -> Policy:
    """Make what stands in for the policy of a group that has none.

    It names no host, nothing is cloned by it, and nobody is judged by it: the policy may come back.
    """
    return Policy(
        group,
        Image("", ""),
        Size(0, 0),
        hosts=(),
        ready=Ready(timeout_seconds=inf),
        health=Health(agent_silent_seconds=inf),
    )


def metrics_of(policies: Iterable[Policy]) -> frozenset[str]:
    """Name the metrics that some policy scales by."""
    return frozenset(signal.metric for policy in policies for signal in policy.signals)


def queries_of(policies: Iterable[Policy]) -> dict[str, str]:
    """Give the PromQL expressions that some policy scales by, by the key their answer has in an observation."""
    return {signal.source: signal.query for policy in policies for signal in policy.signals if signal.query is not None}


def pools_of(policies: Iterable[Policy]) -> frozenset[tuple[str, str]]:
    """Name the pools whose free space some policy scales by, each as (host, pool)."""
    return frozenset(
        (policy.host, signal.pool) for policy in policies for signal in policy.signals if signal.pool is not None
    )


def addressed_groups(policies: Iterable[Policy]) -> frozenset[str]:
    """Name the groups whose instances' addresses somebody wants: a gate, a probe, a drain hook, a load balancer."""
    return frozenset(
        policy.group
        for policy in policies
        if policy.ready.address or policy.ready.probes or policy.drain.hooks or policy.traffic is not None
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of the hosts' pools and networks has to be read, because some policy uses it."""

    images: frozenset[Image] = frozenset()
    networks: frozenset[str] = frozenset()
    stored: frozenset[Image] = frozenset()
    """Images that no policy needs be made of: like those that one is, they are written to by nobody."""


def wanted_by(
    policies: Iterable[Policy], images: Iterable[Image] = (), stored: frozenset[Image] = frozenset()
) -> Wanted:
    """Name what these policies use; `images` are cloned beside the policies' own, `stored` is what else there is."""
    chosen = tuple(policies)
    networks = frozenset(policy.machine.network for policy in chosen) - {USER_NETWORK}
    used = {*(policy.image for policy in chosen), *images}
    return Wanted(frozenset(image for image in used if image.found), networks, stored)
