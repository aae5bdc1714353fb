"""One decision in plain sentences."""

from collections.abc import Iterator
from itertools import chain

from rich.text import Text

from autoscaler.core.decision import Decision, Input, Recommendation, but_for, decisive
from autoscaler.core.metrics import METRICS, Source
from autoscaler.reasons import clock, describe, describe_but_for, duration, figure


def decision_picture(decision: Decision, now: float) -> Iterator[Text]:
    """Give what was decided for a group, and why; `now` is seconds since the epoch."""
    yield _result(decision)
    yield Text(f"Decided at {clock(decision.at)}, {duration(max(0, round(now - decision.at)))} ago.")
    yield Text()
    yield from _section(
        "What was seen", tuple(chain.from_iterable(map(_seen, decision.inputs))), "no load is looked at"
    )
    yield from _section("What was called for", tuple(map(_called, decision.recommendations)), "no strategy was asked")
    reasons = tuple(describe(reason) for reason in decision.reasons)
    yield from _section("What limited or held it", reasons, "nothing")
    kept = tuple(map(describe_but_for, but_for(decision)))
    if kept:
        yield from _section("What it would have been", kept, "")
    yield Text(
        f"Instances: {decision.recommended} recommended, {decision.desired} desired, {decision.admitted} admitted; "
        f"{decision.current} before."
    )


def _result(decision: Decision) -> Text:
    text = Text().append(decision.group, "bold")
    if decision.admitted > decision.current:
        text.append(f" grows from {decision.current} to {decision.admitted}")
    elif decision.admitted < decision.current:
        text.append(f" shrinks from {decision.current} to {decision.admitted}")
    else:
        text.append(f" stays at {decision.admitted}")
    return text.append(f": {_why(decision)}.")


def _why(decision: Decision) -> str:
    """Give the reason that counts most: the first limit, or what was called for when none applied."""
    reasons = decisive(decision)
    return describe(reasons[0]) if reasons else "nothing calls for another size"


def _section(title: str, lines: tuple[str, ...], otherwise: str) -> Iterator[Text]:
    yield Text(f"{title}:", "bold")
    yield from (Text(f"  {line}") for line in lines or (otherwise,))
    yield Text()


def _seen(entry: Input) -> Iterator[str]:
    load = "was not measured" if entry.value is None else f"is {figure(entry.value, entry.unit)}"
    full = "full" if entry.window_full else "not full yet"
    latest = f", {figure(entry.latest, entry.unit)} at last" if entry.latest is not None else ""
    age = f", {duration(entry.age_seconds)} old" if entry.age_seconds is not None else ""
    inside = METRICS[entry.metric].source is Source.GUEST
    across = f" ({entry.across} of the instances)" if inside and entry.across != "avg" else ""
    take = f"{entry.take}, " if entry.take != "avg" else ""
    window = f" over {duration(entry.window_seconds)} ({take}{full})" if entry.window_seconds else ""
    yield f"{entry.metric}{across} {load}{window}{latest}{age}"
    if entry.source is not None and entry.source != entry.metric:
        yield f"it is read from: {entry.source.removeprefix(entry.metric).strip()}"
    if entry.why is not None:
        yield f"it could not be read: {entry.why}"
    if entry.target is not None:
        yield f"its target is {figure(entry.target, entry.unit)}"
    if inside:
        yield f"instances: {entry.measured} measured, {entry.warming} warming up, {entry.missing} missing"
    if entry.warming + entry.missing and entry.low is not None and entry.high is not None:
        low, high = figure(entry.low, entry.unit), figure(entry.high, entry.unit)
        yield f"what was not measured counts as idle when scaling out, as full when scaling in: {low} to {high} in all"


def _called(wish: Recommendation) -> str:
    return f"{describe(wish.reason)} ({wish.strategy.split()[0]})"
