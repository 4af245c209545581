"""What the command line shows while it works: messages, and bars on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from caloforge._errors import one_line

if TYPE_CHECKING:
    from caloforge.training.fit import Progress as TrainingProgress

output = Console(highlight=False, soft_wrap=True, markup=False)
messages = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def warn(text: str) -> None:
    """Prints a warning as one line on standard error."""
    messages.print(f"warning: {one_line(text)}")


def show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Shows a warning as a line; those for programmers, of what libraries will drop, are none of the user's."""
    if issubclass(category, UserWarning) and not issubclass(category, DeprecationWarning):
        warn(str(message))


@contextmanager
def counting_each(unit: str) -> Iterator[Callable[[str, int, int | None], None]]:
    """Yields what shows a bar for each task, `(task, done, total)`, on a terminal; nothing elsewhere."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=messages)
    tasks: dict[str, TaskID] = {}

    def show(task: str, done: int, total: int | None = None) -> None:
        if task not in tasks:
            tasks[task] = bar.add_task(task, total=total)
        bar.update(tasks[task], completed=done, total=total)

    with bar if messages.is_terminal else nullcontext():  # a bar that was never begun shows nothing
        yield show


EVERY = 60.0
"""Seconds between two lines of progress where there is no terminal."""

WORTH_A_LINE = 30.0
"""Seconds from which the speed is told at the end, where there is no terminal."""


@contextmanager
def counting(task: str, total: int | None = None, unit: str = "events") -> Iterator[Callable[..., None]]:
    """Yields what shows how many are done, `(done)` or `(done, total)`: a bar on a terminal, elsewhere a line a minute.

    At the end of what took longer than `WORTH_A_LINE` a line tells the speed.
    """
    started = told = time.monotonic()
    last = 0

    def tell(done: int, of: int | None) -> None:
        seconds = time.monotonic() - started
        whole = f" of {of:,}" if of else ""
        messages.print(f"{task}: {done:,}{whole} {unit} in {seconds:.0f} s, {done / seconds:.3g} a second")

    with counting_each(unit) as show:

        def count(done: int, of: int | None = total) -> None:
            nonlocal told, last
            show(task, done, of)
            last = done
            if not messages.is_terminal and time.monotonic() - told > EVERY:
                told = time.monotonic()
                tell(done, of)

        yield count
    if not messages.is_terminal and time.monotonic() - started > WORTH_A_LINE:
        tell(last, None)


class TrainingBar:
    """Shows a training: a bar on a terminal, a line an epoch elsewhere."""

    def __init__(self) -> None:
        self._live = messages.is_terminal
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            console=messages,
            disable=not self._live,
        )
        self._bar.start()
        self._task: Any = None
        self._stage = ""

    def __call__(self, progress: TrainingProgress) -> None:
        """Shows one step."""
        values = " ".join(f"{key} {value:.4g}" for key, value in progress.values.items())
        minutes, seconds = divmod(int(progress.remaining), 60)
        text = f"{values}  {progress.samples_per_second:.0f} samples/s  {minutes}:{seconds:02d} left"
        done = (progress.epoch - 1) * progress.steps + progress.step
        total = progress.epochs * progress.steps
        if self._stage != progress.stage:
            self._task = self._bar.add_task(progress.stage, total=total, text="")
            self._stage = progress.stage
        label = f"{progress.stage} epoch {progress.epoch}/{progress.epochs}"
        self._bar.update(self._task, description=label, completed=done, text=text)
        if progress.step == progress.steps and not self._live:
            messages.print(f"{label}  {text}")
        if done == total:
            self._bar.stop_task(self._task)
            self._bar.refresh()
