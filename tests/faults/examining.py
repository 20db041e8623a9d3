"""What processes make of damaged images of a data file: each is read, checked, written to and
now and then repaired, in a process that may die of it.

One server that has imported the library forks a process an image, and another where that died.
"""

from __future__ import annotations

import logging
import os
import pickle
import random
import reprlib
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import quelmdb
from quelmdb import Job, QuelmdbError
from quelmdb.layout import OWNERS_FILE
from quelmdb.maintenance.offline import check_unopened, repair_store
from quelmdb.maintenance.repair import Repaired
from tests.damage import data_file
from tests.faults.asking import listings, questions
from tests.faults.images import STALE, Image
from tests.faults.specimens import FIELDS, Fields, Specimen
from tests.faults.verdicts import Stage, Verdict

T = TypeVar("T")
Source = Callable[[Specimen, int], Image]
"""Which image has a number."""

_CPU_SECONDS: Final = 10  # a page that is its own neighbour might keep LMDB going for ever
_MEMORY: Final = 2**30
_FEW: Final = 150  # of the jobs, which are asked for one by one
_NEW: Final = "new"
_ID, _WORKER, _ARGUMENTS, _CREATED_AT = 0, 1, 2, 4  # among the fields


_STAGES_OF_ONE: Final = [Stage.READ, Stage.CHECK, Stage.WRITE]  # copy of the image


def serve(
    pipe: Connection, place: Path, whole: Specimen, image: Source, numbers: range, often: int
) -> None:
    """Sends the verdict of each image; one in `often` is repaired, too."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # LMDB tells why it aborts
    place.mkdir()
    right = _answers(whole, place)
    for number in numbers:
        examination = _Examination(whole, right, place, number, image(whole, number))
        pipe.send(examination.verdict(repairing=number % often == 0))
    pipe.send(None)


def _answers(whole: Specimen, place: Path) -> dict[str, Any]:
    """What the sound store says, and that it is what was put into it."""
    sound = _Examination(whole, {}, place, 0, Image("sound", "nowhere", whole.data))
    verdict = sound.verdict(repairing=True)
    assert not verdict.failures, verdict
    assert (verdict.right, verdict.found) == (True, False), verdict
    assert verdict.repaired == (len(whole.jobs), 0, 0), verdict
    assert sound.told == whole.jobs.keys()
    return sound.answers


class _Examination:
    """Of one image."""

    def __init__(
        self, whole: Specimen, right: dict[str, Any], place: Path, number: int, damaged: Image
    ) -> None:
        self.whole = whole
        self.right = right
        self.number = number
        self.kind = damaged.kind
        self._place = place
        self.image = damaged
        self._verdict = Verdict(number, damaged.kind, damaged.where)
        self.answers: dict[str, Any] = {}
        self.told: set[int] = set()
        """Jobs that were told as they are."""

    @property
    def found(self) -> bool | None:
        """Whether `check` found anything."""
        return self._verdict.found

    def verdict(self, *, repairing: bool) -> Verdict:
        """Runs the stages, each of them whether the one before survived or not."""
        left = _STAGES_OF_ONE
        while left:
            left = self._run(left)
        if repairing:
            self._run([Stage.REPAIR])
        return self._verdict._replace(failures=(*self._verdict.failures, *self._unfound()))

    def _unfound(self) -> Iterator[str]:
        told = self._verdict
        # Of a page as it was before every byte may be right, and be in its place.
        if told.found is False and not told.right and told.kind != STALE:
            yield "what it left out or told otherwise is not found by check"

    def _run(self, stages: list[Stage]) -> list[Stage]:
        """Runs stages until one is its process's death, and returns those behind it."""
        path = self._place / "jobs.qdb"
        shutil.rmtree(path, ignore_errors=True)
        data_file(path).parent.mkdir(parents=True)
        data_file(path).write_bytes(self.image.data)
        (path / OWNERS_FILE).touch()
        inner, outer = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(inner)
            _Child(self, path, outer).run(stages)
        os.close(outer)
        stage, done = stages[0], 0
        with os.fdopen(inner, "rb") as pipe:
            for what, value in _messages(pipe):
                if what == "stage":
                    stage, done = value, stages.index(value)
                elif what == "done":
                    done = len(stages)
                else:
                    self._take(what, value)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            name = signal.Signals(os.WTERMSIG(status)).name
            self._change(crashes=(*self._verdict.crashes, f"{stage.value}: {name}"))
            return stages[done + 1 :]
        if done < len(stages):
            self._take("failure", f"{stage.value} ended with {os.WEXITSTATUS(status)}")
        return []

    def _take(self, what: str, value: Any) -> None:
        match what:
            case "failure":
                self._change(failures=(*self._verdict.failures, value))
            case "told":
                self.told = value
            case "answer":
                question, answer = value
                self.answers[question] = answer
            case _:
                self._change(**{what: value})

    def _change(self, **fields: Any) -> None:
        self._verdict = self._verdict._replace(**fields)


def _messages(pipe: BinaryIO) -> Iterator[tuple[str, Any]]:
    while True:
        try:
            yield pickle.load(pipe)
        except (EOFError, pickle.UnpicklingError):
            return


class _Child:
    """The process that may die."""

    def __init__(self, examination: _Examination, path: Path, pipe: int) -> None:
        self._examination = examination
        self._whole = examination.whole
        self._path = path
        self._pipe = pipe
        self._told: set[int] = set(examination.told)
        self._told_before: set[int] = set()
        self._hidden = examination.image.hides_the_last_state(self._whole)

    def run(self, stages: list[Stage]) -> None:
        """Never returns."""
        code = 1
        try:
            logging.disable()
            resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, 2 * _CPU_SECONDS))
            resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
            for stage in stages:
                self._say("stage", stage)
                try:
                    _STAGES[stage](self)
                except QuelmdbError as error:
                    match stage:
                        case Stage.READ:
                            self._say("right", False)
                            self._say("errors", True)
                        case Stage.CHECK:
                            self._say("found", True)
                        case Stage.REPAIR:
                            self._say("failure", f"it is not repaired: {error}")
            self._say("done", True)
            code = 0
        except BaseException:
            self._say("failure", traceback.format_exc())
        finally:
            os._exit(code)

    def _say(self, what: str, value: object) -> None:
        os.write(self._pipe, pickle.dumps((what, value)))

    def _some(self, ids: Iterable[int]) -> list[int]:
        """All of the sound store: what is asked of the others is known then."""
        few, rng = list(ids), random.Random(self._examination.number)
        return rng.sample(few, _FEW) if self._examination.right else few

    # --- Reading ----------------------------------------------------------------

    def read(self) -> None:
        readonly = self._examination.number % 4 == 1
        with quelmdb.open(self._path, create=False, readonly=readonly) as store:
            for job_id in self._some(self._whole.versions):
                self._told_jobs(f"find {job_id}", partial(_found, store, job_id))
            for question, listing in listings(store):
                self._told_jobs(question, listing)
                self._say("told", self._told)
            with store.snapshot() as snapshot:
                self._told_jobs("snapshot", lambda: list(snapshot.all(after=500)))
                self._told_jobs("snapshot, failed", lambda: list(snapshot.failed()))
            for question, ask in questions(store):
                self._compare(question, partial(_unless_error, ask))
        changed = self._whole.before.keys()
        if self._hidden and self._told_before and not self._told & changed:
            self._say("before_last", True)

    def _told_jobs(self, question: str, ask: Callable[[], list[Job | None]]) -> None:
        """Their ids are compared with those of the sound store, each job with what it was."""
        self._compare(question, lambda: self._ids_of(_unless_error(ask)))

    def _compare(self, question: str, ask: Callable[[], Any]) -> None:
        answer, right = ask(), self._examination.right.get(question)
        if right is None:
            self._say("answer", (question, answer))
        elif answer != right:
            self._say("right", False)
            self._say("errors" if answer is None else "omissions", True)

    def _ids_of(self, jobs: list[Job | None] | None) -> list[int | None] | None:
        if jobs is None:
            return None
        ids = []
        for job in jobs:
            fields = _unless_error(partial(self._whole.fields_of, job)) if job else ()
            if fields is None:
                self._say("right", False)
                self._say("errors", True)
            elif fields:
                self._look_at(fields)
                ids.append(fields[_ID])
        return ids

    def _look_at(self, fields: Fields) -> None:
        job_id = fields[_ID]
        if fields == self._whole.jobs.get(job_id):
            self._told.add(job_id)
        elif fields in self._whole.versions.get(job_id, ()):
            self._say("right", False)
            if self._hidden and fields == self._whole.before.get(job_id):
                self._told_before.add(job_id)
            else:
                self._say("older", True)
        else:
            self._say("failure", f"a job that never was: {_shortened(fields)}")

    # --- The other stages ---------------------------------------------------------

    def check(self) -> None:
        """As `quelmdb check` does it."""
        if check_unopened(self._path):
            self._say("found", True)
            return
        with quelmdb.open(self._path, create=False, readonly=True) as store:
            self._say("found", store.check() != [])

    def write(self) -> None:
        """Verbs of every kind; what they tell of jobs that were there is true."""
        with quelmdb.open(self._path, create=False) as store:
            _unless_error(lambda: store.insert_many([Job(_NEW), Job("worker 1", 0)]))
            _unless_error(lambda: store.insert(Job(_NEW, b"n" * 9000, unique_key="key 19")))
            claimed = _unless_error(lambda: store.claim(limit=9)) or []
            claimed += _unless_error(lambda: store.claim("first", "later", limit=2)) or []
            for job in claimed:
                self._look_at_identity(job)
                _unless_error(partial(store.complete, job, "done"))
            _unless_error(lambda: store.destroy(5))
            _unless_error(lambda: store.update(Job("worker 2", b"u" * 5000, id=300)))
            for job_id in self._some(self._whole.jobs):
                found = _unless_error(partial(store.find, job_id))
                if found is not None and job_id != 300:
                    self._look_at_identity(found)

    def _look_at_identity(self, job: Job) -> None:
        """What no verb but update changes."""
        fields = _unless_error(partial(self._whole.fields_of, job))
        if fields and fields[_WORKER] not in (_NEW, "worker 1"):
            known = self._whole.versions.get(job.id or 0, ())
            if _identity(fields) not in map(_identity, known):
                self._say("failure", f"after writes, a job that never was: {_shortened(fields)}")

    def repair(self) -> None:
        """What could be read is in the repaired store, or set aside, and no job is altered."""
        done = repair_store(self._path)
        with quelmdb.open(self._path, create=False) as store:
            if problems := store.check():
                self._say("failure", f"the repaired store has problems: {problems}")
            jobs = {job.id or 0: self._whole.fields_of(job) for job in store.all()}
        kept, older = set(), 0
        undone = self._undone(done, jobs)
        for job_id, fields in jobs.items():
            known = self._whole.versions.get(job_id, ())
            if known and fields[_WORKER] in done.invented.values():
                fields = (job_id, known[0][_WORKER], *fields[_WORKER + 1 :])
            if fields == self._whole.jobs.get(job_id):
                kept.add(job_id)
                continue
            if undone and fields == self._whole.before.get(job_id):
                kept.add(job_id)
                continue
            older += 1
            if fields not in known:
                self._say("failure", f"repaired, a job that never was: {_shortened(fields)}")
        aside = done.aside.read_bytes() if done.aside else b""
        lost = {
            job_id
            for job_id in self._whole.jobs.keys() - kept
            if self._had(job_id)
            and not all(piece.value in aside for piece in self._whole.pieces[job_id])
        }
        if lost:
            self._say("failure", f"lost by repair: {lost}")
        self._say("undone", undone)
        self._say("repaired", (len(jobs), len(self._whole.jobs.keys() - jobs.keys()), older))

    def _undone(self, done: Repaired, jobs: dict[int, Fields]) -> bool:
        """Whether the last transaction is, and says so; or it cannot be seen."""
        whole, examination = self._whole, self._examination
        undone = {job_id for job_id, old in whole.before.items() if jobs.get(job_id) == old}
        if not undone or not self._hidden:
            return False
        if undone & examination.told:
            self._say("failure", f"could be read, and is undone by repair: {undone}")
        unseen = examination.image.shows_an_older_state(whole)
        if not done.undone and not done.loose and not unseen:
            self._say("failure", f"undone by repair, which does not say so: {undone}")
        return done.undone or unseen

    def _had(self, job_id: int) -> bool:
        """Whether a job could be read of the image, or is whole on its pages."""
        has = partial(self._examination.image.has, whole=self._whole)
        return job_id in self._examination.told or all(map(has, self._whole.pieces[job_id]))


_STAGES: Final[dict[Stage, Callable[[_Child], None]]] = {
    Stage.READ: _Child.read,
    Stage.CHECK: _Child.check,
    Stage.WRITE: _Child.write,
    Stage.REPAIR: _Child.repair,
}


def _found(store: quelmdb.Store, job_id: int) -> list[Job | None]:
    return [store.find(job_id)]


def _shortened(fields: Fields) -> str:
    return ", ".join(
        f"{name} {reprlib.repr(field)}" for name, field in zip(FIELDS, fields, strict=True)
    )


def _unless_error(question: Callable[[], T]) -> T | None:
    try:
        return question()
    except (QuelmdbError, MemoryError):  # a length of which a bit has flipped says up to 4 GiB
        return None


def _identity(fields: Fields) -> object:
    return fields[_WORKER], fields[_ARGUMENTS], fields[_CREATED_AT]
