"""`quelmdb check`: whether every rule of the format holds."""

from __future__ import annotations

import json
from dataclasses import asdict

import click
from rich.text import Text

from .common import answer_no, json_option, looking_at, store_argument
from .render import console, plain, printable, progress, table, to_terminal


@click.command("check")
@store_argument
@json_option
def command(store: str, as_json: bool) -> None:
    """Checks every rule of a store's format, and lists what is wrong.

    Into a pipe go rule, job id and message of each problem. Exits with 0 where
    there is none, with 1 where there are some.

    \b
    Example:
      quelmdb check jobs.qdb && echo sound
    """
    with looking_at(store) as opened:
        with progress("checking"):
            problems = opened.check()
        jobs = sum(opened.counts().values())
    if as_json:
        click.echo(json.dumps([asdict(problem) for problem in problems]))
    elif not to_terminal():
        for problem in problems:
            plain(problem.rule, problem.job_id, problem.message)
    elif problems:
        found = table("job", "rule", "problem", right=("job",))
        found.columns[2].no_wrap = False
        for problem in problems:
            job = "" if problem.job_id is None else str(problem.job_id)
            found.add_row(job, Text(problem.rule), Text(printable(problem.message), "red"))
        console().print(found)
    else:
        console().print(f"{jobs:,} jobs, no problems")
    if problems:
        answer_no()
