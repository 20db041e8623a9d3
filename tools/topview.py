"""How `quelmdb top` looks: a look at a store as lines, as many as fit and none too long."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from rich.text import Text

from quelmdb import Job, Status

from .render import (
    NO_WORKER,
    STYLES,
    age,
    arguments_of,
    cut,
    duration,
    error_of,
    printable,
    size,
)
from .topmodel import Look

KEYS: Final = "↑↓ select  i look into  r retry  c cancel  ? help  q quit"
PAGE_KEYS: Final = "↑↓ scroll  r retry  c cancel  Esc back"
HELP_KEYS: Final = "↑↓ scroll  Esc back"
HELP: Final = (
    "up, down, j, k     select a running or a failed job",
    "page up, page down, home, end",
    "enter, i           look into it; any of these keys move, Esc leaves",
    "r                  retry it: failed, cancelled or scheduled, it is queued",
    "c                  cancel it; of a running one that is asked for",
    "?                  this",
    "q                  quit",
    "",
    "Rates are those of the last 5 seconds. `age` is since a running job was claimed,",
    "and since a failed one failed.",
    "A job of a dead process is red: the next claim of any runner takes it back.",
    "Readers that are listed keep old pages: while they do the file grows.",
    "The store is open for reading only, but for the moment of a change.",
)
_ALIGNED: Final = 9  # columns of a number
_ID: Final = 9  # columns of an id
_NARROWEST_WORKER: Final = 12


class Cell(NamedTuple):
    """A piece of a line; a negative width: flush right. 0: the rest of the line."""

    text: str
    width: int
    style: str = ""


def frame(look: Look, selected: int | None, footer: str, width: int, height: int) -> list[Text]:
    """All of the screen: exactly `height` lines of at most `width` columns."""
    head = _head(look, width)
    room = height - len(head) - 1
    workers = _workers(look, width)
    running = _running_rows(look, selected, width)
    failed = _failed_rows(look, selected, width)
    rooms = _shares(room, [len(workers), len(running), len(failed)])
    lines = [*head]
    lines += workers[: rooms[0]]
    lines += _around(running, rooms[1], _place([one.job.id for one in look.running], selected))
    lines += _around(failed, rooms[2], _place([job.id for job in look.failed], selected))
    return screen(lines, footer, width, height)


def screen(lines: Sequence[Text], footer: str, width: int, height: int) -> list[Text]:
    """Lines, and a footer at the foot."""
    body = [*lines[: max(height - 1, 0)]]
    body += [Text("")] * (height - 1 - len(body))
    return [*body, _line([Cell(footer, 0)], width, "reverse")][:height]


# --- What stands above -----------------------------------------------------


def _head(look: Look, width: int) -> list[Text]:
    info = look.info
    clock = datetime.now().strftime("%H:%M:%S")
    title = f"{printable(info.path)}  {info.durability}, generation {info.generation}"
    used, free = size(info.used_bytes), size(info.free_bytes)
    file = f"file {size(info.file_bytes)}, {used} of it in use, {free} of that free"
    lines = [
        _line([Cell(title, width - 9, "bold"), Cell(clock, -9)], width),
        _line([Cell(file, 0)], width),
        _line([Cell(_rates(look), 0)], width),
        _line([Cell(_oldest(look), 0)], width),
        _line([Cell(_owners(look), 0, "red" if look.dead else "")], width),
    ]
    if look.readers:
        lines.append(_line([Cell(_readers(look), 0, "yellow")], width))
    return lines


def _rates(look: Look) -> str:
    if look.rates is None:
        return "rates: at the next look"
    return "  ".join(f"{name} {_rate(rate)}/s" for name, rate in look.rates._asdict().items())


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 or rate == 0 else f"{rate:.1f}"


def _oldest(look: Look) -> str:
    job, due = look.oldest, look.info.next_due
    text = "nothing queued"
    if job is not None:
        text = f"oldest queued: job {job.id} of {_worker(job)}, for {age(job.updated_at)}"
    if due is not None:
        text += f"; next due {due.astimezone():%Y-%m-%d %H:%M:%S}"
    return text


def _owners(look: Look) -> str:
    alive = sum(owner.alive for owner in look.info.owners)
    text = f"{alive} process{'' if alive == 1 else 'es'} with claims"
    if look.dead:
        text += f"; dead, to be rescued: {', '.join(f'pid {pid}' for pid in look.dead)}"
    return text


def _readers(look: Look) -> str:
    first, *others = look.readers
    who = first.holder.process
    name = cut(who.command or "", 20) if who.alive else "dead"
    since = first.holder.since
    text = (
        f"old pages held by pid {who.pid} ({name}): {first.holder.behind:,} behind, "
        f"for {age(since) if since else f'{duration(first.seen)} or more'}"
    )
    return text + (f"; and {len(others)} more: quelmdb readers" if others else "")


# --- The tables ------------------------------------------------------------


def _workers(look: Look, width: int) -> list[Text]:
    info = look.info
    statuses = list(Status)
    if width - len(statuses) * (_ALIGNED + 1) < _NARROWEST_WORKER:
        statuses = [status for status in statuses if info.counts[status]]
        statuses = statuses[: max((width - _NARROWEST_WORKER) // (_ALIGNED + 1), 0)]
    first = max(width - len(statuses) * (_ALIGNED + 1), 1)

    def row(name: str, counts: dict[Status, int], style: str = "") -> Text:
        numbers = [
            Cell(
                _number(counts[status]), -_ALIGNED - 1, STYLES[status] if counts[status] else "dim"
            )
            for status in statuses
        ]
        return _line([Cell(name, first), *numbers], width, style)

    heads = [Cell(status.value, -_ALIGNED - 1) for status in statuses]
    busiest = sorted(info.workers.items(), key=lambda item: -sum(item[1].values()))
    rows = [_line([Cell("WORKER", first), *heads], width, "bold")]
    rows += [row("all", info.counts, "bold")] if len(busiest) != 1 else []
    for name, counts in busiest:
        paused = " (paused)" if name in info.paused else ""
        rows.append(row((printable(name) if name is not None else NO_WORKER) + paused, counts))
    return rows


def _running_rows(look: Look, selected: int | None, width: int) -> list[Text]:
    started = look.info.counts[Status.STARTED]
    rows = [_heading(f"RUNNING {started:,}", ("pid", 8), ("age", 8), ("tries", 6), width=width)]
    for one in look.running:
        pid = "-" if one.pid is None else str(one.pid)
        style = "" if one.alive else "red"
        cells = [Cell(pid, -8, style), Cell(age(one.since), -8)]
        about = _progress(one.job) + arguments_of(one.job, width)
        rows.append(_job_row(one.job, [*cells, _tries(one.job)], about, selected, width, style))
    return rows


def _failed_rows(look: Look, selected: int | None, width: int) -> list[Text]:
    failed = look.info.counts[Status.FAILED]
    rows = [_heading(f"FAILED {failed:,}", ("age", 8), ("tries", 6), width=width)]
    for job in look.failed:
        cells = [Cell(age(job.updated_at), -8), _tries(job)]
        rows.append(_job_row(job, cells, error_of(job, width), selected, width, ""))
    return rows


def _heading(title: str, *columns: tuple[str, int], width: int) -> Text:
    cells = [Cell(title, _ID + 1 + _worker_width(width))]
    cells += [Cell(name, -columns_width) for name, columns_width in columns]
    return _line(cells, width, "bold")


def _job_row(
    job: Job, cells: list[Cell], about: str, selected: int | None, width: int, style: str
) -> Text:
    first = [
        Cell(str(job.id), -_ID),
        Cell("", 1),
        Cell(_worker(job), _worker_width(width)),
    ]
    shown = _line([*first, *cells, Cell("  ", 2), Cell(about, 0)], width, style)
    if job.id == selected:
        shown.stylize("reverse")
    return shown


def _worker_width(width: int) -> int:
    return max(width // 4, 8)


def _tries(job: Job) -> Cell:
    return Cell(str(job.attempt), -6)


def _progress(job: Job) -> str:
    if job.progress is None:
        return ""
    done, total, note = job.progress
    of_them = "" if total is None else f"/{total:,}"
    return f"{done:,}{of_them} {printable(note or '')} ".replace("  ", " ")


def _worker(job: Job) -> str:
    return NO_WORKER if job.worker is None else printable(job.worker)


def _number(count: int) -> str:
    text = f"{count:,}"
    return text if len(text) <= _ALIGNED else f"{count / 1e6:,.0f} M"


# --- Lines and their room --------------------------------------------------


def _line(cells: Sequence[Cell], width: int, style: str = "") -> Text:
    """One line of exactly `width` columns."""
    line = Text(no_wrap=True)
    for text, columns, cell_style in cells:
        room = abs(columns) if columns else max(width - line.cell_len, 0)
        cell = Text(text, cell_style)
        if columns < 0:
            cell.truncate(room, overflow="ellipsis")
            cell.pad_left(room - cell.cell_len)
        else:
            cell.truncate(room, overflow="ellipsis", pad=True)
        line.append_text(cell)
    line.truncate(width, pad=True)
    if style:
        line.stylize(style)
    return line


def _shares(room: int, wanted: list[int]) -> list[int]:
    """How many lines each part gets: what it wants, and where that is too much, what is
    left is shared out evenly."""
    shares = [0] * len(wanted)
    left = max(room, 0)
    while left:
        hungry = [place for place, want in enumerate(wanted) if shares[place] < want]
        if not hungry:
            break
        for place in hungry[:left]:
            shares[place] += 1
        left = max(room, 0) - sum(shares)
    return shares


def _around(rows: list[Text], room: int, place: int | None) -> list[Text]:
    """A heading, and those rows among which the one at `place` is."""
    if room < 2:
        return rows[:room]
    shown = room - 1
    first = max(min((place or 0) - shown // 2, len(rows) - 1 - shown), 0)
    return [rows[0], *rows[1 + first : 1 + first + shown]]


def _place(ids: Sequence[int | None], selected: int | None) -> int | None:
    return ids.index(selected) if selected in ids else None
