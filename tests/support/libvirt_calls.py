"""Which of libvirt's calls the hypervisor room makes, and from where they can be reached: read off the source."""

import ast
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import libvirt
import libvirt_qemu

ROOM = Path(__file__).resolve().parents[2] / "autoscaler" / "hypervisor"

SHOWN = frozenset({"BuildSite", "ImageStore", "Inspection", "LibvirtHypervisor"})
"""The classes that other rooms may use."""

_CLASSES = ("virConnect", "virDomain", "virStoragePool", "virStorageVol", "virNetwork", "virStream")
_READS = re.compile(
    r"(get|list|lookup|numOf|is|has|compare|baseline|XMLDesc$|UUID|.*LookupBy|.*EventRegister|.*EventDeregister|.*Info$)"
)
# Names that say neither; everything that is not here and not matched above counts as changing something.
_ALSO_READ = frozenset(
    {
        "c_pointer",
        "close",
        "connect",
        "ID",
        "OSType",
        "name",
        "key",
        "path",
        "info",
        "infoFlags",
        "state",
        "metadata",
        "hostname",
        "maxMemory",
        "maxVcpus",
        "memoryStats",
        "blkioParameters",
        "blockPeek",
        "blockStats",
        "blockStatsFlags",
        "diskErrors",
        "domainListGetStats",
        "domainXMLFromNative",
        "domainXMLToNative",
        "findStoragePoolSources",
        "fsInfo",
        "guestInfo",
        "interfaceAddresses",
        "interfaceParameters",
        "interfaceStats",
        "jobStats",
        "memoryParameters",
        "memoryPeek",
        "messages",
        "numaParameters",
        "perfEvents",
        "schedulerParameters",
        "schedulerParametersFlags",
        "schedulerType",
        "screenshot",
        "securityLabel",
        "securityLabelList",
        "snapshotCurrent",
        "snapshotListNames",
        "snapshotNum",
        "vcpus",
        "vcpusFlags",
        "autostart",
        "authorizedSSHKeysGet",
        "backupGetXMLDesc",
        "guestVcpus",
        "managedSaveGetXMLDesc",
        "migrateGetCompressionCache",
        "migrateGetMaxDowntime",
        "migrateGetMaxSpeed",
        "saveImageGetXMLDesc",
        "bridgeName",
        "DHCPLeases",
        "newStream",
        "download",
        "recv",
        "recvAll",
        "recvHole",
        "recvFlags",
        "sparseRecvAll",
        "finish",
        "abort",
        "eventRemoveCallback",
        "eventUpdateCallback",
        "eventAddCallback",
        "virConnGetLastError",
        "virConnResetLastError",
        "setKeepAlive",
        "setIdentity",
        "registerCloseCallback",
        "unregisterCloseCallback",
        "agentSetResponseTimeout",
    }
)


def mutating_names() -> frozenset[str]:
    """Every method of libvirt's objects, and every function of its QEMU part, that is not known only to read."""
    names = {
        name
        for class_name in _CLASSES
        for name, value in vars(getattr(libvirt, class_name)).items()
        if callable(value) and not name.startswith("_")
    }
    names |= {name for name in dir(libvirt_qemu) if name.startswith("qemu")}
    return frozenset(name for name in names if not _READS.match(name) and name not in _ALSO_READ)


@dataclass
class Function:
    """A function or method of the room, with everything inside it; named `module.function` or `module.Class.method`."""

    name: str
    calls: set[str] = field(default_factory=set)
    """The mutating calls it makes itself."""
    leads_to: set[str] = field(default_factory=set)
    """The functions of the room it names, whether it calls them or hands them on."""


def sources() -> dict[str, str]:
    """The room's modules, by name."""
    return {path.stem: path.read_text() for path in sorted(ROOM.rglob("*.py"))}


def functions(texts: Mapping[str, str]) -> dict[str, Function]:
    """Read the room."""
    modules = {module: ast.parse(text) for module, text in texts.items()}
    bodies = {name: body for module, tree in modules.items() for name, body in _bodies(module, tree)}
    imports = {module: _imports(tree) for module, tree in modules.items()}
    mutating = mutating_names()
    return {name: _function(name, body, imports, set(bodies), mutating) for name, body in bodies.items()}


def _bodies(module: str, tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    # What is outside of functions runs at import, and is a function of its own here.
    top = ast.Module([], [])
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield f"{module}.{node.name}", node
        elif isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, ast.FunctionDef):
                    yield f"{module}.{node.name}.{part.name}", part
                else:
                    top.body.append(part)
        else:
            top.body.append(node)
    yield f"{module}.<module>", top


def _imports(tree: ast.Module) -> dict[str, str]:
    """Name what a module imports from the room: modules as `module`, functions as `module.function`."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("autoscaler.hypervisor"):
            inside = (node.module or "").removeprefix("autoscaler.hypervisor").strip(".")
            for alias in node.names:
                found[alias.asname or alias.name] = f"{inside}.{alias.name}" if inside else alias.name
    return found


def _function(
    name: str, body: ast.AST, imports: dict[str, dict[str, str]], names: set[str], mutating: frozenset[str]
) -> Function:
    module = name.partition(".")[0]
    mine = imports[module]
    function = Function(name)
    for node in ast.walk(body):
        if isinstance(node, ast.Attribute):
            _attribute(node, function, mine, names, mutating)
        elif isinstance(node, ast.Name):
            target = mine.get(node.id, f"{module}.{node.id}")
            function.leads_to |= {target} & names or {f"{target}.__init__"} & names
    return function


def _attribute(
    node: ast.Attribute, function: Function, imports: dict[str, str], names: set[str], mutating: frozenset[str]
) -> None:
    if isinstance(node.value, ast.Name):
        if node.value.id == "self":
            owner = function.name.rpartition(".")[0]
            function.leads_to |= {f"{owner}.{node.attr}"} & names
            return
        target = imports.get(node.value.id)
        if target is not None and f"{target}.{node.attr}" in names:
            function.leads_to.add(f"{target}.{node.attr}")
            return
        if node.value.id in _CLASSES or (node.value.id == "libvirt" and node.attr.startswith("VIR_")):
            return
    if _is_own_part(node.value):
        # A part of this object, whose class the source does not say: any class's method of that name.
        function.leads_to |= {name for name in names if name.count(".") == 2 and name.endswith(f".{node.attr}")}
        return
    if node.attr in mutating:
        function.calls.add(node.attr)


def _is_own_part(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"


def reached_from(start: str, room: Mapping[str, Function], without: Collection[str] = ()) -> set[str]:
    """Name every function that may run when this one does, but for what only runs within those left out."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name not in seen and name not in without:
            seen.add(name)
            waiting += room[name].leads_to
    return seen


def changes(start: str, room: Mapping[str, Function], without: Collection[str] = ()) -> set[tuple[str, str]]:
    """Name every mutating call that may be made when this function runs, with the function that makes it."""
    return {(name, call) for name in reached_from(start, room, without) for call in room[name].calls}


def entries(room: Mapping[str, Function]) -> set[str]:
    """What others can begin with: methods of the classes the room shows, and what nothing in the room leads to."""
    led_to = {name for function in room.values() for name in function.leads_to if name != function.name}
    shown = {name for name in room if name.split(".")[1] in SHOWN}
    return shown | (set(room) - led_to)
