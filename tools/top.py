"""`quelmdb top`: what goes on in a store, live."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

import quelmdb
from quelmdb import Job, JobStore, Status, Store
from quelmdb.errors import QuelmdbError

from .common import looking_at, store_argument
from .keys import ESCAPE, Keyboard, keyboard, undisturbed
from .render import console, printable
from .show import field_texts
from .topmodel import Selection, Watch, as_json
from .topview import HELP, HELP_KEYS, KEYS, PAGE_KEYS, frame, screen

INTERVAL = 1.0
RESIZE_SECONDS = 0.25  # how soon a change of the screen's size is seen
WRITE_SECONDS = 5.0  # that a change may wait for other writers
ONCE_LINES = 40
LONGEST = 50_000  # characters of a field of a job
_STEPS = {"up": -1, "k": -1, "down": 1, "j": 1, "home": -(10**6), "end": 10**6}


@click.command("top")
@store_argument
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="Between two looks.  [default: 1]",
)
@click.option("--once", is_flag=True, help="Print one look, and end.")
@click.option("--json", "as_object", is_flag=True, help="With --once: one JSON object.")
def command(store: str, interval: float | None, once: bool, as_object: bool) -> None:
    """Shows what goes on in a store, live.

    Jobs by status and worker, rates, the oldest one queued, running jobs with their
    processes, dead owners, the file, readers that keep old pages, failed jobs.

    Keys: arrows or j and k select a job, Enter or i looks into it, r retries it, c cancels
    it, ? helps, q quits. The store is open for reading only, but for the moment of a change.

    --once shows one look, without rates; with --interval it waits so long, and has rates.

    \b
    Example:
      quelmdb top jobs.qdb
      quelmdb top jobs.qdb --once --json | jq '.oldest_queued.updated_at'
      quelmdb top jobs.qdb --once --json --interval 5 | jq .rates.completed
    """
    if as_object and not once:
        raise click.UsageError("--json is one look: --once --json")
    if once:
        _once(store, interval, as_object)
    elif not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("a live view needs a terminal: --once prints one look")
    elif console().is_dumb_terminal:
        raise click.UsageError(
            "a live view needs a terminal that moves its cursor, and TERM is "
            f"{os.environ['TERM']}: --once prints one look"
        )
    else:
        _Top(store, interval or INTERVAL).run()


def _once(store: str, interval: float | None, as_object: bool) -> None:
    watch = Watch()
    with looking_at(store) as opened:
        look = watch.look(opened)
        if interval is not None:
            time.sleep(interval)
            look = watch.look(opened)
    if as_object:
        click.echo(json.dumps(as_json(look)))
        return
    out = console()
    lines = frame(look, None, "", out.width, ONCE_LINES)
    while lines and not lines[-1].plain.strip():
        lines.pop()
    for line in lines:
        line.rstrip()
        out.print(line, no_wrap=True, overflow="crop", end="\n")


class _Top:
    """The live view: what is on the screen, and what the keys do."""

    def __init__(self, path: str, interval: float) -> None:
        self._path = path
        self._interval = interval
        self._console = console()
        self._watch = Watch()
        self._selection = Selection()
        self._message = ""
        self._on_yes: Callable[[], None] | None = None  # what a question is about
        self._page: _Page | None = None  # what lies over the view
        self._running = True

    def run(self) -> None:
        """Until it is quit."""
        self._store = _opened(self._path)
        try:
            self._look = self._watch.look(self._store)  # an error is told before all
            with _logging_to(self._say), keyboard() as keys, self._live() as live:
                while self._running:
                    self._draw(live)
                    self._wait(keys, live)
        except EOFError:
            pass  # the terminal is gone
        finally:
            self._store.close()

    def _live(self) -> Live:
        return Live(
            console=self._console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def _draw(self, live: Live) -> None:
        width, height = self._console.size
        self._selection.follow(self._look.jobs())
        if self._page is None:
            lines = frame(self._look, self._selection.id, self._message or KEYS, width, height)
        else:
            footer = self._message or (HELP_KEYS if self._page.job_id is None else PAGE_KEYS)
            lines = screen(self._page.lines(self._console), footer, width, height)
        with undisturbed():
            live.update(Group(*lines), refresh=True)

    def _wait(self, keys: Keyboard, live: Live) -> None:
        """For keys, another size of the screen, or the next look."""
        next_look = time.monotonic() + self._interval
        while self._running and (left := next_look - time.monotonic()) > 0:
            size = self._console.size
            pressed = keys.read(min(left, RESIZE_SECONDS))
            for key in pressed:
                self._press(key)
            if pressed or self._console.size != size:
                self._draw(live)
        if self._running:
            self._look = self._watch.look(self._store)

    def _say(self, text: str) -> None:
        self._message = printable(text)

    # --- Keys ---------------------------------------------------------------

    def _press(self, key: str) -> None:
        act, self._on_yes, self._message = self._on_yes, None, ""
        if act is not None:
            if key in ("y", "Y"):
                act()
            else:
                self._say("nothing is changed")
        elif self._page is not None and (key == ESCAPE or key in "qi?" or key == "enter"):
            self._page = None
        elif key == "q":
            self._running = False
        elif key in _STEPS or key in ("page up", "page down"):
            self._move(_STEPS.get(key) or self._console.height // 2 * (1 if "down" in key else -1))
        elif key == "?":
            self._page = _Page(map(Text, HELP))
        else:  # the selection may have moved on below a page
            self._act(key, self._page.job_id if self._page is not None else self._selection.id)

    def _act(self, key: str, job_id: int | None) -> None:
        """What a key does to the job that people look at."""
        if job_id is None:
            self._say("no job is selected")
        elif key in ("i", "enter"):
            self._show(job_id)
        elif key == "r":
            self._change(job_id, lambda store, one: store.retry(one))
        elif key == "c":
            self._ask(job_id)

    def _move(self, by: int) -> None:
        if self._page is None:
            self._selection.move(self._look.jobs(), by)
        else:
            self._page.scroll(by, self._console.height - 1)

    def _show(self, job_id: int) -> None:
        try:
            job = self._store.find(job_id)
            if job is not None:
                fields = list(field_texts(job, self._console.width))
        except QuelmdbError as error:
            self._say(str(error))
            return
        if job is None:
            self._say(f"job {job_id} is not stored any more")
        else:
            self._page = _Page(fields, job_id)

    def _ask(self, job_id: int) -> None:
        self._say(f"cancel job {job_id}? y: yes, any other key: no")
        self._on_yes = lambda: self._change(job_id, lambda store, one: store.cancel(one))

    def _change(self, job_id: int, act: Callable[[JobStore, int], Job]) -> None:
        """A process has a store open either for reading or for writing."""
        self._store.close()
        try:
            with quelmdb.open(self._path, create=False, write_timeout=WRITE_SECONDS) as store:
                job = act(store, job_id)
            asked = job.status is Status.STARTED
            self._say(f"job {job_id} is {'asked to end' if asked else job.status}")
        except QuelmdbError as error:
            self._say(str(error))
        finally:
            self._store = _opened(self._path)
        self._look = self._watch.look(self._store)
        if self._page is not None:
            self._show(job_id)


class _Page:
    """Text that is more than a screen, about a job or none."""

    def __init__(self, fields: Iterable[Text], job_id: int | None = None) -> None:
        self.job_id = job_id
        self._fields = list(fields)
        self._first = 0
        self._width = 0
        self._wrapped: list[Text] = []

    def lines(self, out: Console) -> list[Text]:
        """From where it is scrolled to."""
        if out.width != self._width:
            self._width = out.width
            self._wrapped = [
                line for field in self._fields for line in field[:LONGEST].wrap(out, out.width)
            ]
        return self._wrapped[self._first :]

    def scroll(self, by: int, height: int) -> None:
        """By so many lines, as far as there are some."""
        self._first = max(min(self._first + by, len(self._wrapped) - height), 0)


def _opened(path: str) -> Store:
    return quelmdb.open(path, create=False, readonly=True)


class _Telling(logging.Handler):
    """What the library logs, to where it does not break the screen."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(record.getMessage())


@contextmanager
def _logging_to(tell: Callable[[str], None]) -> Iterator[None]:
    logger = logging.getLogger("quelmdb")
    before = logger.handlers[:]
    logger.handlers[:] = [_Telling(tell)]
    try:
        yield
    finally:
        logger.handlers[:] = before
