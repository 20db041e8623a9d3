"""The two sets of rules, put together from their themes."""

from __future__ import annotations

from quelmdb.testing.rules.batches import BatchRules
from quelmdb.testing.rules.cancels import CancelRules
from quelmdb.testing.rules.claims import ClaimRules
from quelmdb.testing.rules.endings import EndingRules
from quelmdb.testing.rules.events import EventRules
from quelmdb.testing.rules.failures import FailureRules
from quelmdb.testing.rules.ids import IdRules
from quelmdb.testing.rules.lifecycle import LifecycleRules
from quelmdb.testing.rules.listings import ListingRules
from quelmdb.testing.rules.many import ManyRules
from quelmdb.testing.rules.pauses import PauseRules
from quelmdb.testing.rules.priorities import PriorityRules
from quelmdb.testing.rules.progress import ProgressRules, ResultRules
from quelmdb.testing.rules.prunes import PruneRules
from quelmdb.testing.rules.recordings import RecordingRules
from quelmdb.testing.rules.refusals import RefusalRules
from quelmdb.testing.rules.rescues import RescueRules
from quelmdb.testing.rules.restores import RestoreRules
from quelmdb.testing.rules.retries import RetryRules
from quelmdb.testing.rules.schedules import RunAtRules, ScheduleRules
from quelmdb.testing.rules.snapshots import SnapshotRules
from quelmdb.testing.rules.submits import SubmitRules
from quelmdb.testing.rules.threads import ThreadRules
from quelmdb.testing.rules.unique import UniqueRules
from quelmdb.testing.rules.updates import UpdateRules
from quelmdb.testing.rules.values import ValueRules
from quelmdb.testing.rules.verbs import VerbRules
from quelmdb.testing.rules.views import ViewRules
from quelmdb.testing.rules.waits import WaitRules


class PersistenceContract(
    IdRules, UpdateRules, RunAtRules, ListingRules, ValueRules, RefusalRules, RecordingRules
):
    """Everything that `Persistence` promises. Subclass it and implement `open_store`."""


class JobStoreContract(
    ViewRules,
    ManyRules,
    BatchRules,
    SubmitRules,
    VerbRules,
    RestoreRules,
    SnapshotRules,
    ClaimRules,
    EndingRules,
    FailureRules,
    RetryRules,
    ScheduleRules,
    PriorityRules,
    UniqueRules,
    CancelRules,
    PauseRules,
    ProgressRules,
    ResultRules,
    PruneRules,
    RescueRules,
    WaitRules,
    EventRules,
    ThreadRules,
    LifecycleRules,
    PersistenceContract,
):
    """Everything that `JobStore` promises. Subclass it and implement `open_store` and `reopen`."""
