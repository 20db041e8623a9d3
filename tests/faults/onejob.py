"""What one job allows: whether calls on it could have told what they did, in some order.

A search: of the calls that are left, any may be the next that was called before all others had
returned; its effect must be what it told. (Wing and Gong, Testing and Verifying Concurrent
Objects, 1993; with the memory of states of Lowe, 2017.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

Verb = Literal[
    "insert",
    "claim",
    "complete",
    "fail",
    "fail later",
    "release",
    "cancel",
    "retry",
    "rescue",
    "find",
]

ENDS: Final = ("complete", "fail", "fail later", "release")


class Call(NamedTuple):
    """One call, as far as one job goes."""

    process: int
    verb: Verb
    job: int
    called: int
    returned: int | None
    """None: its process died before."""
    told: str = ""
    """The status that it told, or "stale" (not started under that claim), "refused" (it has
    not the right status), "missing" (it is not stored); empty where it did not return."""
    claim: int = 0
    """That it told or, of those that end one, that it was given."""
    attempt: int = 0
    """That it told."""
    limit: int = 1
    """Of a call of which nothing is known: the most jobs that it may have touched."""


class Death(NamedTuple):
    """Of a process: it was alive at `began`, and is dead at `ended`."""

    began: int
    ended: int
    killed: bool = True
    """Otherwise it has closed the store."""


class Life(NamedTuple):
    """All that is known of one job."""

    calls: Sequence[Call]
    deaths: Mapping[int, Death]
    max_attempts: int | None = None


class State(NamedTuple):
    """A job, and what decides what may become of it."""

    status: str = "missing"
    attempt: int = 0
    claim: int = 0
    process: int = 0
    """Of its last claim."""
    cancelling: bool = False
    hidden: int = 0
    """Since its last claim that is known, so many that nobody was told of."""


_FOREVER: Final = 2**63
_ENDED: Final = ("completed", "failed", "cancelled")


def is_possible(life: Life, hidden: Sequence[Call] = (), most: int = 0) -> bool:
    """Whether the calls could have told this, with at most `most` of the `hidden` ones, of
    which nobody was told."""
    calls = sorted((*life.calls, *hidden), key=lambda call: (not call.returned, call.called))
    must = sum(1 << place for place, call in enumerate(calls) if call.returned)
    untold = set(map(id, hidden))
    ends = [
        life.deaths[call.process].ended if call.returned is None else _FOREVER for call in calls
    ]
    # What was done, the state after it, the latest moment that is certain to have come, and
    # how many hidden ones are left.
    start = (0, State(), 0, most)
    seen = {start}
    stack = [start]
    while stack:
        done, state, now, left = stack.pop()
        if done & must == must:
            return True
        horizon = min(
            call.returned
            for place, call in enumerate(calls)
            if call.returned and not done >> place & 1
        )
        after = [
            (done, silent, max(now, since), left)
            for silent, since in _by_itself(life, state)
            if since <= horizon
        ]
        for place in range(len(calls) - 1, -1, -1):
            call = calls[place]
            if done >> place & 1 or call.called > horizon or ends[place] < now:
                continue
            is_hidden = id(call) in untold
            if is_hidden and not left:
                continue
            changed = _after(life, state, call)
            if changed is not None:
                later = max(now, call.called)
                after.append((done | 1 << place, changed, later, left - is_hidden))
        for one in after:
            if one not in seen:
                seen.add(one)
                stack.append(one)
    return False


def calls_that_may_have_happened(life: Life, under_way: Sequence[Call]) -> list[Call]:
    """Those of calls whose processes died that were made in the life of this job."""
    first = min(call.called for call in life.calls)
    last = max(call.returned or call.called for call in life.calls)
    return [
        call
        for call in under_way
        if call.called <= last and life.deaths[call.process].ended >= first
    ]


def _by_itself(life: Life, state: State) -> Iterator[tuple[State, int]]:
    """What becomes of a job that is left alone, and from when on."""
    if state.status == "scheduled":  # its time has come, and some claim has seen it
        yield state._replace(status="queued"), 0
    if state.status == "started" and state.process in life.deaths:  # and some claim rescues it
        yield _rescued(life, state), life.deaths[state.process].began


def _rescued(life: Life, state: State) -> State:
    status = "queued"
    if state.cancelling:
        status = "cancelled"
    elif life.max_attempts is not None and state.attempt >= life.max_attempts:
        status = "failed"
    return state._replace(status=status, process=0, cancelling=False)


def _after(life: Life, state: State, call: Call) -> State | None:
    """The state behind a call, None where it cannot have told this, or is nothing to be
    tried: it never returned, and would change nothing."""
    told, changed = _effect(life, state, call)
    if call.returned is None:
        return None if changed == state else changed
    return changed if told == call.told else None


def _effect(life: Life, state: State, call: Call) -> tuple[str, State]:
    """What a call tells in this state, and the state behind it."""
    match call.verb:
        case "insert":
            if state.status == "missing":
                return "queued", State("queued")
            return "refused", state
        case "claim":
            return _claimed(state, call)
        case "find":
            return (state.status if _is_told(state, call) else "another"), state
        case "rescue":
            death = life.deaths.get(state.process)
            is_held = state.status == "started" and _is_told(state, call)
            if not is_held or death is None or death.began > (call.returned or _FOREVER):
                return "another", state
            rescued = _rescued(life, state)
            return rescued.status, rescued
    if state.status == "missing":
        return "missing", state
    match call.verb:
        case "cancel":
            if state.status in _ENDED:
                return "refused", state
            if state.status == "started":
                return "started", state._replace(cancelling=True)
            return "cancelled", state._replace(status="cancelled")
        case "retry":
            if state.status not in ("failed", "cancelled", "scheduled"):
                return "refused", state
            return "queued", state._replace(status="queued")
        case _:
            return _ended(life, state, call)


def _claimed(state: State, call: Call) -> tuple[str, State]:
    if state.status != "queued":
        return "another", state
    attempt = state.attempt + 1
    if call.returned is None:
        return "", state._replace(
            status="started", attempt=attempt, process=call.process, hidden=state.hidden + 1
        )
    if call.attempt != attempt or call.claim <= state.claim:
        return "another", state
    return "started", State("started", attempt, call.claim, call.process)


def _ended(life: Life, state: State, call: Call) -> tuple[str, State]:
    if state.status != "started" or state.hidden or state.claim != call.claim:
        return "stale", state
    status, attempt = "completed", state.attempt
    match call.verb:
        case "fail":
            status = "failed"
        case "fail later":
            has_more = life.max_attempts is None or attempt < life.max_attempts
            status = "scheduled" if has_more else "failed"
            status = "cancelled" if state.cancelling else status
        case "release":
            status, attempt = "cancelled" if state.cancelling else "queued", attempt - 1
    return status, state._replace(status=status, attempt=attempt, process=0, cancelling=False)


def _is_told(state: State, call: Call) -> bool:
    """Whether attempt and claim are those that a call tells."""
    is_claim = call.claim > state.claim if state.hidden else call.claim == state.claim
    return is_claim and call.attempt == state.attempt
