"""The bar at a terminal that shows how far a scan is."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

from packetfs_compute.cli.render import usd_text

__all__ = ["bar"]


@contextmanager
def bar() -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yield what shows progress."""
    columns = (
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[usd]}"),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=None, usd="")

        def show(told: Mapping[str, Any]) -> None:
            shown.update(task, total=told["bytes_total"], completed=told["bytes_done"], usd=usd_text(told["cost_usd"]))

        yield show
