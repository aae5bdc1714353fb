"""What instances take of their hosts, for people."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from autoscaler.core.observation import Unknown
from autoscaler.core.usage import Look, Usage, VcpuUsage
from autoscaler.reasons import duration, percent

_WIDTH_WITH_RATES = 78
_COLUMNS = {"PID": 7, "ON": 2, "CPU": 5, "STEAL": 5, "RSS": 5, "USED": 5, "OF": 5}
_RATES = {"READ": 5, "WRITE": 5, "IN": 5, "OUT": 5}


def _sum(*parts: float | None) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if known else None


SORTS: Mapping[str, Callable[[Usage], float | None]] = {
    "cpu": lambda it: it.cores if it.cores is not None else it.vcpu_cores,
    "steal": lambda it: it.steal_cores,
    "memory": lambda it: it.resident_bytes if it.resident_bytes is not None else it.guest_bytes,
    "disk": lambda it: _sum(it.disk_read_bytes_per_second, it.disk_write_bytes_per_second),
    "net": lambda it: _sum(it.net_rx_bytes_per_second, it.net_tx_bytes_per_second),
    "name": lambda _: None,
}
"""What the greediest is looked for by; equals, and those of which it is not known, come by their names."""


def in_order(usages: Sequence[Usage], sort: str) -> tuple[Usage, ...]:
    """Sort usages by one of `SORTS`, the greatest first and what is not known last."""

    def key(usage: Usage) -> tuple[float, str, str]:
        amount = SORTS[sort](usage)
        return (1.0 if amount is None else -amount, usage.group, usage.instance)

    return tuple(sorted(usages, key=key))


def top_picture(
    looks: Sequence[Look], usages: Sequence[Usage], width: int, interval_seconds: float
) -> Iterator[RenderableType]:
    """Give one table per host, no wider than `width` columns where names are not long."""
    span = duration(interval_seconds)
    yield Text(f"CPU and STEAL in percent of one processor over {span}; sizes in KiB, MiB, GiB", "dim")
    for look in looks:
        yield Text()
        mine = [usage for usage in usages if usage.host == look.host]
        yield _title(look, mine)
        if mine:
            yield _table(mine, with_rates=width >= _WIDTH_WITH_RATES)
        for why in dict.fromkeys(usage.process_why for usage in mine if usage.process_why is not None):
            unread = [usage.instance for usage in mine if usage.process_why == why]
            whose = "no" if len(unread) == len(mine) else f"not every ({', '.join(unread)})"
            yield Text(f"  {whose} process could be read: {why}", "yellow")


def _title(look: Look, mine: Sequence[Usage]) -> Text:
    text = Text("host ").append(look.host, "bold")
    if isinstance(look.running, Unknown):
        return text.append(f": {look.running.why}", "bold red")
    if not mine:
        return text.append(": no instance runs")
    text.append(f": {len(mine)} instance{'' if len(mine) == 1 else 's'}")
    cores, memory = (_sum(*map(SORTS[name], mine)) for name in ("cpu", "memory"))
    return text.append(f", CPU {_share(cores)}, memory {_short(memory)}")


def _table(usages: Sequence[Usage], *, with_rates: bool) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("INSTANCE", overflow="fold")
    # As wide as they may become: a table that is drawn anew keeps its columns where they are.
    for name, width in (_COLUMNS | _RATES if with_rates else _COLUMNS).items():
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    for usage in usages:
        rates = (
            usage.disk_read_bytes_per_second,
            usage.disk_write_bytes_per_second,
            usage.net_rx_bytes_per_second,
            usage.net_tx_bytes_per_second,
        )
        table.add_row(
            usage.instance,
            "-" if usage.pid is None else str(usage.pid),
            "",
            _share(SORTS["cpu"](usage)),
            _steal(usage.steal_cores),
            *map(_short, (usage.resident_bytes, usage.guest_used_bytes, usage.guest_bytes)),
            *(map(_short, rates) if with_rates else ()),
        )
        for thread in usage.threads:
            table.add_row(*_thread(thread))
    return table


def _thread(thread: VcpuUsage) -> tuple[str | Text, ...]:
    name = "  all vCPUs" if thread.vcpu is None else f"  vCPU {thread.vcpu}"
    return (name, str(thread.tid), str(thread.processor), _share(thread.cores), _steal(thread.steal_cores))


def _share(cores: float | None) -> str:
    return "-" if cores is None else percent(cores)


def _steal(cores: float | None) -> Text:
    return Text(_share(cores), "red" if cores is not None and cores >= 0.1 else "")


def _short(size_bytes: float | None) -> str:
    """Render bytes in at most five columns: ``980K``, ``1.2M``, ``210M``, ``12G``."""
    if size_bytes is None:
        return "-"
    for unit in ("", "K", "M", "G"):
        if size_bytes < 1000:
            return f"{size_bytes:.1f}{unit}" if unit and size_bytes < 9.95 else f"{size_bytes:.0f}{unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f}T"
