"""`quelmdb check`: whether every rule of the format holds."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict

import click
from rich.text import Text

from quelmdb import Problem
from quelmdb.errors import CorruptStoreError
from quelmdb.maintenance.offline import check_unopened, repair_store

from .common import answer_no, json_option, looking_at, program, store_argument
from .render import console, plain, printable, progress, say, table, to_terminal


@click.command("check")
@store_argument
@click.option("--repair", "repairs", is_flag=True, help="Make a sound store of it.")
@json_option
def command(store: str, repairs: bool, as_json: bool) -> None:
    """Checks every rule of a store's format, and lists what is wrong.

    Into a pipe go rule, job id and message of each problem. Exits with 0 where
    there is none, with 1 where there are some.

    With --repair, which needs that nobody has the store open, a new file is made of every job that
    is whole, its indexes, counters and worker names anew. Nothing is lost: what is no whole job
    is set aside in a file in the store's directory (a CBOR sequence), and the damaged file
    is kept there as NNNNNN.damaged, to be deleted by you. Exits with 1 where anything was set
    aside, or the last transaction may be undone, with 2 where nothing of a store is left: it is as
    it was then.

    \b
    Example:
      quelmdb check jobs.qdb && echo sound
      quelmdb check jobs.qdb --repair
    """
    if repairs:
        _repair(store, as_json)
        return
    with progress("checking"):
        jobs, problems = _checked(store)
    if as_json:
        click.echo(json.dumps([asdict(problem) for problem in problems]))
    elif problems or not to_terminal():
        _print(problems)
        if problems:
            say(f"{program()} check {shlex.quote(store)} --repair makes a sound store of it")
    else:
        console().print(f"{jobs:,} jobs, no problems")
    if problems:
        answer_no()


def _checked(store: str) -> tuple[int, list[Problem]]:
    """How many jobs a store has (0 where that cannot be told), and its problems."""
    if problems := check_unopened(store):
        return 0, problems
    try:
        with looking_at(store) as opened:
            problems = opened.check()
            return 0 if problems else sum(opened.counts().values()), problems
    except CorruptStoreError as error:
        return 0, [Problem("structure", str(error))]


def _repair(store: str, as_json: bool) -> None:
    with progress("repairing", 100) as tell:
        repaired = repair_store(
            store, lambda done, total: tell(int(100 * done / max(total, done, 1)))
        )
    if as_json:
        found = asdict(repaired)
        click.echo(json.dumps({**found, "aside": repaired.aside and str(repaired.aside)}))
    else:
        _print(repaired.problems)
        say(f"{repaired.kept:,} jobs kept, {repaired.set_aside:,} things set aside")
        if repaired.aside is not None:
            say(f"they are in {repaired.aside}")
        if repaired.undone:
            say("what the last transaction changed may be undone: not all of it is readable")
        if repaired.loose:
            say(f"{repaired.loose:,} of the jobs may be older versions, or had been deleted")
    if repaired.set_aside or repaired.undone:
        answer_no()


def _print(problems: Sequence[Problem]) -> None:
    if not to_terminal():
        for problem in problems:
            plain(problem.rule, problem.job_id, problem.message)
    elif problems:
        found = table("job", "rule", "problem", right=("job",))
        found.columns[2].no_wrap = False
        for problem in problems:
            job = "" if problem.job_id is None else str(problem.job_id)
            found.add_row(job, Text(problem.rule), Text(printable(problem.message), "red"))
        console().print(found)
