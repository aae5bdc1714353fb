"""What an operator asked for, as the core sees it. `autoscaler.policy` makes these from YAML.

Durations are in seconds, sizes in bytes, shares as fractions of one (0.6 is 60 %).
"""

from autoscaler.core.policy.behavior import Behavior, DirectionLimits, Rate, Select, Size
from autoscaler.core.policy.group import Mode, Policy, Starved, stand_in
from autoscaler.core.policy.life import (
    CountOrShare,
    Drain,
    Health,
    Hook,
    HookKind,
    HttpCheck,
    Launch,
    Ready,
    Refresh,
    Removal,
    RemovalOrder,
)
from autoscaler.core.policy.machine import (
    IMAGE_NAME,
    USER_NETWORK,
    Accelerator,
    CloudInit,
    Image,
    Machine,
    Secret,
    Template,
)
from autoscaler.core.policy.scaling import (
    Schedule,
    Signal,
    Step,
    StepScaling,
    Strategy,
    TargetTracking,
    ThresholdScaling,
)
from autoscaler.core.policy.traffic import Traffic, TrafficKind, WhenDown
from autoscaler.core.policy.wanted import Wanted, addressed_groups, metrics_of, pools_of, queries_of, wanted_by

__all__ = [
    "IMAGE_NAME",
    "USER_NETWORK",
    "Accelerator",
    "Behavior",
    "CloudInit",
    "CountOrShare",
    "DirectionLimits",
    "Drain",
    "Health",
    "Hook",
    "HookKind",
    "HttpCheck",
    "Image",
    "Launch",
    "Machine",
    "Mode",
    "Policy",
    "Rate",
    "Ready",
    "Refresh",
    "Removal",
    "RemovalOrder",
    "Schedule",
    "Secret",
    "Select",
    "Signal",
    "Size",
    "Starved",
    "Step",
    "StepScaling",
    "Strategy",
    "TargetTracking",
    "Template",
    "ThresholdScaling",
    "Traffic",
    "TrafficKind",
    "Wanted",
    "WhenDown",
    "addressed_groups",
    "metrics_of",
    "pools_of",
    "queries_of",
    "stand_in",
    "wanted_by",
]
