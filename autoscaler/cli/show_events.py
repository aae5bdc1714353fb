"""Events for people: one line each."""

from collections.abc import Mapping

from rich.text import Text

from autoscaler.reasons import duration, moment
from autoscaler.store import Event

_ALARMS = frozenset({"reload_refused", "policy_vanished", "host_unreachable", "no_figure", "image_changed"})
_SENTENCES: Mapping[str, str] = {
    "request scale": "held at {count} for {for_seconds}, asked by {by}",
    "request auto": "follows its policy again, asked by {by}",
    "request pause": "paused, asked by {by}",
    "request resume": "acted for again, asked by {by}",
    "request reset": "launches are tried again, asked by {by}",
    "request delete": "to be deleted with all its instances, asked by {by}",
    "request protect": "protected from removal, asked by {by}",
    "request unprotect": "protected no longer, asked by {by}",
    "request detach": "taken out of its group, asked by {by}",
    "request attach": "put back into its group, asked by {by}",
    "request refresh": "to be refreshed to the image of its policy, asked by {by}",
    "request cancel_refresh": "its refresh is to stop where it is, asked by {by}",
    "request roll_back": "to go back to its previous image, asked by {by}",
    "refresh": "{why}",
    "reload": "policies read again ({policies}), asked by {by}",
    "reload_refused": "policies refused, the earlier ones run on, asked by {by}: {error}",
    "policy_vanished": "its policy file vanished: its instances run on unmanaged",
    "scaled": "scaled from {before} to {admitted} ({recommended} recommended): {reasons}",
    "capacity": "{why}",
    "image_imported": "image {image} version {version} stored on host {host}, by {by}",
    "image_published": "image {image} version {version} is followed, asked by {by}",
    "image_rolled_back": "image {image} version {version} is followed again, asked by {by}",
    "image_pruned": "image {image} version {version} removed from host {host}, asked by {by}",
    "image_changed": "{why}",
    "host_unreachable": "host {host} does not answer: {why}",
    "host_answers": "host {host} answers again",
    "no_figure": "{query}: no figure: {why}",
    "figure": "{query}: figures again",
    "instance": "{before} → {after}: {reason}",
    "instance new": "{after}: {reason}",
    "instance so": "{before} → {after}",
    "instance new so": "{after}",
    "instance as before": "{reason}",
}
"""By kind, of requests and instances also by what changed; others show their details as they are."""


class _Shown(dict[str, str]):
    """Details as text; what an older journal lacks shows as a question mark."""

    def __missing__(self, name: str) -> str:
        return "?"


def event_line(event: Event) -> Text:
    """Give when, of what, and what happened."""
    text = Text(f"{moment(event.at)}  ")
    subject = event.instance or event.group
    if subject is not None:
        text.append(subject, "bold").append(": ")
    return text.append(describe_event(event), "red" if event.kind in _ALARMS else "")


def describe_event(event: Event) -> str:
    """Say what happened, on one line."""
    detail = _Shown({name: _shown(name, value) for name, value in event.detail.items()})
    kind = _kind(event)
    sentence = _SENTENCES.get(kind)
    if sentence is not None:
        return sentence.format_map(detail)
    figures = ", ".join(f"{name} {value}" for name, value in detail.items())
    return f"{kind.replace('_', ' ')}{f': {figures}' if figures else ''}"


def _kind(event: Event) -> str:
    before, after = event.detail.get("before"), event.detail.get("after")
    match event.kind:
        case "request":
            return f"request {event.detail.get('change')}"
        case "instance" if before == after:
            return "instance as before"
        case "instance":
            new = "" if before else " new"
            # Nothing is said twice: some reasons are called as the state they lead to.
            return f"instance{new}{' so' if event.detail.get('reason') == after else ''}"
    return event.kind


def _shown(name: str, value: str | float) -> str:
    if name.endswith("_seconds") and not isinstance(value, str):
        return duration(value)
    if name in {"reason", "reasons", "before", "after"}:
        return str(value).replace(" ", ", ").replace("_", " ")
    return " ".join(str(value).split())
