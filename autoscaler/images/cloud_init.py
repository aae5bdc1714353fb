"""What cloud-init is told in a clone: templates with the clone's values and secrets filled in.

Only `@{...}` is replaced, as in the files made for load balancers: shell, YAML and Jinja keep their `$` and braces.
"""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from autoscaler.core.action import Clone
from autoscaler.core.errors import AutoscalerError, PolicyError
from autoscaler.core.policy import CloudInit, Secret, Template
from autoscaler.core.ports import Identity
from autoscaler.core.words import nearest
from autoscaler.secret_file import read_secret

USER_DATA, META_DATA, NETWORK_CONFIG = "user-data", "meta-data", "network-config"
INSTANCE_ID = "instance-id"
VALUES = ("instance", "group", "host", "hostname", "uuid", "mac")
"""What `@{...}` may name beside secrets."""
_SECRET_KINDS = ("secret", "secret_base64")
# `@@{` stands for `@{`, and every `@` without a brace for itself.
_PLACEHOLDER = re.compile(r"@(?:(?P<escaped>@)(?=\{)|\{(?P<name>[^{}\s]*)\}|(?=\{))")
_CLOUD_CONFIG = "#cloud-config"
# How cloud-init tells what user-data is; anything else it leaves unused, with a warning in the guest's log.
_HEADERS = (
    _CLOUD_CONFIG,
    "#!",
    "#include",
    "#cloud-boothook",
    "#part-handler",
    "#cloud-config-archive",
    "#cloud-config-jsonp",
    "## template:",
    "Content-Type:",
    "MIME-Version:",
)
# One MAC address in eighty is to YAML 1.1 a number to the base of 60.
_MAC = "@{mac}"
_MAC_OF_DIGITS = "52:54:00:12:34:56"
_MAC_AS_NUMBER = str(yaml.safe_load(_MAC_OF_DIGITS))
_DEFAULT_META_DATA = Template("", f"{INSTANCE_ID}: '@{{instance}}'\nlocal-hostname: '@{{hostname}}'\n")
_NO_USER_DATA = Template("", f"{_CLOUD_CONFIG}\n{{}}\n")


class CloudInitError(AutoscalerError):
    """A seed cannot be made; the message names no secret's value."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a template; line and column count from 1."""

    line: int
    column: int
    message: str


def faults(kind: str, template: Template, secrets: Iterable[Secret]) -> Iterator[Fault]:
    """Find what is wrong with a template; `kind` is the name of the file that is made of it.

    What is made of it has to be YAML where cloud-init reads YAML, and meta-data must tell instances apart.
    """
    names = frozenset(secret.name for secret in secrets)
    wrong = list(_unknown(template.text, names))
    yield from wrong
    if wrong:
        return
    first, second = (_parse(kind, _fill(template, _stand_ins(each, names))) for each in ("a", "b"))
    if isinstance(first, Fault):
        yield first
    elif _MAC_AS_NUMBER in str(first) and _MAC in template.text:
        yield Fault(*_place(template.text, template.text.index(_MAC)), f"{_MAC} may read as a number: put it in quotes")
    elif kind == META_DATA and not _tells_apart(first, second):
        yield Fault(
            1,
            1,
            f"cloud-init does nothing in a clone whose {INSTANCE_ID} it has seen before; "
            f"begin with {INSTANCE_ID}: '@{{instance}}'",
        )


def render(clone: Clone, identity: Identity) -> dict[str, str]:
    """Make the files of a clone's seed, by their names; its secrets are read now.

    Raises CloudInitError when a secret cannot be read, or what is made of it is not what cloud-init reads.
    """
    cloud_init = clone.cloud_init or CloudInit()
    values = {
        "instance": clone.instance,
        "group": clone.group,
        "host": clone.host,
        "hostname": clone.instance,
        "uuid": identity.uuid,
        "mac": identity.mac,
    }
    for secret in cloud_init.secrets:
        values |= _of_secret(secret, clone.group)
    templates = {
        META_DATA: cloud_init.meta_data or _DEFAULT_META_DATA,
        USER_DATA: cloud_init.user_data or _NO_USER_DATA,
        NETWORK_CONFIG: cloud_init.network_config,
    }
    files = {}
    for kind, template in templates.items():
        if template is not None:
            files[kind] = _fill(template, values)
            # The parser's own words may quote the text, and with it the secret.
            found = _parse(kind, files[kind])
            if isinstance(found, Fault):
                raise CloudInitError(
                    f"{kind} of group {clone.group} cannot be made of {template.path}: with its secrets it is no YAML "
                    f"from line {found.line} on. Put @{{secret:NAME}} in quotes, or @{{secret_base64:NAME}} there"
                )
    return files


def _unknown(text: str, secrets: frozenset[str]) -> Iterator[Fault]:
    for match in _PLACEHOLDER.finditer(text):
        if match["escaped"] is not None:
            continue
        name, place = match["name"], _place(text, match.start())
        if name is None:
            yield Fault(*place, "'@{' opens a placeholder that '}' does not close; write @@{ for the text @{")
        elif not _is_known(name, secrets):
            yield Fault(*place, f"unknown placeholder @{{{name}}}; {_meant(name, secrets)}")


def _place(text: str, offset: int) -> tuple[int, int]:
    before = text[:offset]
    return before.count("\n") + 1, offset - before.rfind("\n")


def _is_known(name: str, secrets: frozenset[str]) -> bool:
    kind, colon, secret = name.partition(":")
    return name in VALUES or (colon != "" and kind in _SECRET_KINDS and secret in secrets)


def _meant(name: str, secrets: frozenset[str]) -> str:
    kind, _, secret = name.partition(":")
    if kind in _SECRET_KINDS:
        return nearest(secret, secrets, "cloud_init.secrets names")
    return nearest(name, (*VALUES, "secret:NAME"))


def _stand_ins(instance: str, secrets: frozenset[str]) -> dict[str, str]:
    values = dict.fromkeys((*VALUES, *(f"{kind}:{name}" for kind in _SECRET_KINDS for name in secrets)), "x")
    return values | {
        "instance": instance,
        "hostname": instance,
        "uuid": f"{instance}-0",
        "mac": _MAC_OF_DIGITS,
    }


def _of_secret(secret: Secret, group: str) -> dict[str, str]:
    try:
        content = read_secret(Path(secret.path))
        text = content.decode()
    except PolicyError as error:
        why = "; ".join(f"{problem.file}: {problem.message}" for problem in error.problems)
        raise CloudInitError(f"secret {secret.name} of group {group}: {why}") from error
    except UnicodeDecodeError:
        # Not chained: the error holds the bytes.
        raise CloudInitError(
            f"secret {secret.name} of group {group}: {secret.path} is no text in UTF-8. Write it so, or in base64"
        ) from None
    return {f"secret:{secret.name}": text, f"secret_base64:{secret.name}": base64.b64encode(content).decode()}


def _fill(template: Template, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: found["escaped"] or values[found["name"]], template.text)


def _parse(kind: str, text: str) -> object:
    """Read what cloud-init would read as YAML; gives a Fault where it could not, and None for what is no YAML to it."""
    if kind == USER_DATA:
        header = text.partition("\n")[0].rstrip()
        if not header.startswith(_HEADERS):
            return Fault(
                1, 1, f"cloud-init would not know what this is; begin with {_CLOUD_CONFIG}, or #! for a script"
            )
        if header != _CLOUD_CONFIG:
            return None
    try:
        found = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        return Fault(line, column, f"is no YAML: {error.problem}")
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        return Fault(1, 1, "is no YAML: a character or a value in it is none that YAML knows")
    if not isinstance(found, dict) and not (kind == USER_DATA and found is None):
        return Fault(1, 1, "must be keys and values, KEY: VALUE")
    return found


def _tells_apart(first: object, second: object) -> bool:
    one, other = (found.get(INSTANCE_ID) if isinstance(found, dict) else None for found in (first, second))
    return one is not None and one != other
