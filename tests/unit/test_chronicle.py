"""What becomes an event, and what of a group's past comes back out of the journal."""

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from autoscaler.chronicle import Chronicle
from autoscaler.core.decision import Parameter, Reason, ReasonCode, decisive
from autoscaler.core.memory import Memory, RefreshPhase, RefreshState
from autoscaler.core.observation import Change, ExternalSample, Observation, Request, Unknown
from autoscaler.core.policy import Image
from autoscaler.core.snapshot import HostStatus, ReloadStatus
from autoscaler.external.prometheus import NOT_ASKED
from autoscaler.store import Journal, Rollup, TickRecord
from autoscaler.store.rollups import MAX_SPANS, put_together, span_of
from tests.samples import NOW, SCALING_OUT, STEADY


@pytest.fixture
def journal() -> Journal:
    return Journal.in_memory()


def kinds(journal: Journal) -> list[str]:
    return [event.kind for event in journal.events()]


def test_requests_reloads_and_scalings_are_events(journal: Journal) -> None:
    chronicle = Chronicle(journal)
    chronicle.request(Request(1, NOW, "bob", "web", Change.SCALE, 3, 60.0))
    chronicle.request(Request(2, NOW + 1, "bob", "web", Change.PAUSE))
    chronicle.reload(ReloadStatus(ok=True, at=NOW + 2), "bob", 2)
    chronicle.reload(ReloadStatus(ok=False, at=NOW + 3, error="x" * 5000), "bob", 2)
    chronicle.scaled(replace(SCALING_OUT, at=NOW + 4))
    chronicle.scaled(replace(STEADY, at=NOW + 5))
    scale, pause, good, bad, scaled = journal.events()
    assert (scale.kind, scale.group) == ("request", "web")
    assert scale.detail == {"change": "scale", "by": "bob", "count": 3, "for_seconds": 60.0}
    assert pause.detail == {"change": "pause", "by": "bob"}
    assert (good.kind, good.detail) == ("reload", {"by": "bob", "policies": 2})
    assert (bad.kind, len(str(bad.detail["error"]))) == ("reload_refused", 1000)
    assert scaled.detail == {"before": 2, "admitted": 4, "recommended": 5, "reasons": "scale_out_limited_by_max"}


def test_each_phase_of_a_refresh_is_an_event_once(journal: Journal) -> None:
    chronicle = Chronicle(journal)
    refresh = RefreshState(Image("default", "v2.qcow2"), "bob", NOW, RefreshPhase.SOAK, since=NOW)
    said = Reason(ReasonCode.REFRESH_SOAKS, {"image": "default/v2.qcow2", "ready": 1, "until": NOW + 60})
    for at in (NOW, NOW + 10):
        # While it is held the time of its phase goes along.
        chronicle.refresh(replace(STEADY, at=at, reasons=(said,)), replace(refresh, since=at))
    chronicle.refresh(STEADY, None)
    (event,) = journal.events()
    assert (event.kind, event.group, event.detail["phase"]) == ("refresh", "db", "soak")
    assert "the first are ready" in str(event.detail["why"])
    Chronicle(journal).refresh(replace(STEADY, at=NOW + 20), refresh)
    assert kinds(journal) == ["refresh"], "a daemon that was restarted notes nothing twice"
    chronicle.refresh(replace(STEADY, at=NOW + 30), replace(refresh, phase=RefreshPhase.BATCH, since=NOW + 30))
    assert kinds(journal) == ["refresh", "refresh"]


def test_that_nothing_is_acted_upon_is_no_reason_for_a_size() -> None:
    shadow, limit = Reason(ReasonCode.SHADOW), Reason(ReasonCode.SCALE_OUT_LIMITED_BY_MAX)
    (wish,) = SCALING_OUT.recommendations
    assert decisive(replace(SCALING_OUT, reasons=(limit, shadow))) == (limit,)
    assert decisive(replace(SCALING_OUT, reasons=(shadow,))) == (wish.reason,)
    assert decisive(replace(SCALING_OUT, reasons=(shadow,), recommendations=())) == (shadow,)


def test_a_host_is_an_event_when_it_goes_and_when_it_comes(journal: Journal) -> None:
    chronicle = Chronicle(journal)
    for why in (None, "refused", "refused", None, None):
        chronicle.hosts(NOW, (HostStatus("far", why is None, why, None),))
    assert kinds(journal) == ["host_unreachable", "host_answers"]
    assert journal.events()[0].detail == {"host": "far", "why": "refused"}


def test_a_figure_is_an_event_when_it_is_lost_and_when_it_is_back(journal: Journal) -> None:
    chronicle = Chronicle(journal)
    sample, unknown, gone = ExternalSample(1.0, NOW), Unknown(NOT_ASKED), Unknown("gone")
    for found in (unknown, sample, sample, gone, gone, sample):
        chronicle.figures(Observation(NOW, 10.0, external={"queue": found}))
    assert kinds(journal) == ["no_figure", "figure"]
    assert journal.events()[0].detail == {"query": "queue", "why": "gone"}
    for found in (unknown, gone, gone):
        chronicle.figures(Observation(NOW, 10.0, external={"other": found}))
    assert kinds(journal)[2:] == ["no_figure"], "one that never gave any is a loss, too"


def test_an_event_that_cannot_be_kept_is_logged_and_no_more(journal: Journal) -> None:
    journal.close()
    with capture_logs() as lines:
        Chronicle(journal).note(NOW, "reload")
    assert [line["event"] for line in lines] == ["event not kept"]


def test_events_after_one(journal: Journal) -> None:
    for number in range(5):
        journal.add_event(NOW + number, f"kind-{number}", "web" if number % 2 else None)
    ids = [event.id for event in journal.events()]
    assert [event.id for event in journal.events(after=ids[2])] == ids[3:]
    assert [event.kind for event in journal.events(group="web", after=ids[1])] == ["kind-3"]
    assert [event.kind for event in journal.events(since=NOW + 1, limit=2)] == ["kind-3", "kind-4"]


@pytest.mark.parametrize(
    ("seconds", "span"), [(60, 60), (6 * 3600, 60), (6 * 3600 + 60, 120), (86400, 240), (8 * 86400, 1920), (-5, 60)]
)
def test_spans_grow_with_the_time(seconds: float, span: int) -> None:
    assert span_of(NOW, NOW + seconds) == span
    assert seconds / span <= MAX_SPANS


def test_minutes_are_put_together_by_their_samples() -> None:
    minutes = (
        Rollup(120, 1, 0.5, 0.4, 0.6, 1),
        Rollup(180, 3, 0.9, 0.8, 1.0, 2),
        Rollup(300, 6, 0.1, 0.0, 0.2, 3),
    )
    first, second = put_together(minutes, 120)
    assert first.avg == pytest.approx(0.8)
    assert replace(first, avg=0.8) == Rollup(120, 4, 0.8, 0.4, 1.0, 2)
    assert second == Rollup(240, 6, 0.1, 0.0, 0.2, 3)
    assert put_together(minutes, 60) == minutes
    assert put_together((), 60) == ()


def test_each_figure_has_a_history_of_its_own(journal: Journal) -> None:
    (seen,) = SCALING_OUT.inputs
    inputs = (
        replace(seen, value=0.5),
        replace(seen, value=0.7, window_seconds=300.0),
        replace(seen, value=0.9, across="max"),
        replace(seen, metric="prometheus", source="prometheus up", value=3.0),
        replace(seen, metric="prometheus", source="prometheus down", value=4.0),
        replace(seen, metric="guest.memory", source="guest.memory", value=None),
    )
    decision = replace(SCALING_OUT, inputs=inputs)
    record = TickRecord(Observation(NOW, 10.0), (), (decision,), Memory(journal.controller, NOW))
    journal.commit_tick(record, ())
    loads = journal.history("web", NOW - 60, NOW + 60).loads
    assert {name: each[0].avg for name, each in loads.items()} == {
        "guest.cpu": 0.5,
        "guest.cpu (max)": 0.9,
        "prometheus down": 4.0,
        "prometheus up": 3.0,
    }


def test_a_history_is_loads_and_changes(journal: Journal) -> None:
    for number in range(3):
        decision = replace(SCALING_OUT, at=NOW + number * 60, admitted=4 if number else 3)
        record = TickRecord(Observation(decision.at, 10.0), (), (decision,), Memory(journal.controller, decision.at))
        journal.commit_tick(record, ())
    history = journal.history("web", NOW - 60, NOW + 180)
    assert [decision.admitted for decision in history.decisions] == [3, 4]
    assert [each.samples for each in history.loads["guest.cpu"]] == [1, 1, 1]
    assert history.span_seconds == 60
    assert journal.history("db", NOW - 60, NOW + 180).loads == {}
    assert journal.history("web", NOW + 61, NOW + 180).decisions == ()


def test_what_a_host_lacks_is_an_event_when_it_begins(journal: Journal) -> None:
    chronicle = Chronicle(journal)
    lacking: dict[str, Parameter] = {"host": "local", "refused": 2, "need_bytes": 1 << 30, "have_bytes": 1 << 20}
    refused = replace(STEADY, reasons=(Reason(ReasonCode.REFUSED_FOR_MEMORY, lacking),))
    for decision in (STEADY, refused, refused, STEADY, refused):
        chronicle.capacity(decision)
    first, second = journal.events()
    assert (first.kind, first.group, first.detail["reason"]) == ("capacity", "db", "refused_for_memory")
    assert "host local has no memory for 2 more" in str(first.detail["why"])
    assert second.detail == first.detail
