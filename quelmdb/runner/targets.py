"""How the workers that a process runs are named, and found: targets."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from quelmdb.runner.workers import TargetError, Worker, WorkerFunction, check, made_of

Target = str | ModuleType | type[Worker] | WorkerFunction[..., Any]
"""``module:attribute`` or ``module`` as text, or that itself. A module stands for all
workers that are defined in it."""


def load(targets: Iterable[Target]) -> list[type[Worker]]:
    """The workers that these targets name, each once.

    Raises `TargetError`, in one line, for what cannot be imported, has no such attribute,
    is no worker, or has none; and for two workers of the same name.
    """
    found: dict[str, type[Worker]] = {}
    for target in targets:
        for one in _workers_of(target):
            check(one)
            name = one.worker_name()
            if found.setdefault(name, one) is not one:
                raise TargetError(
                    f"two workers have the name {name!r}: {reference(one)} and "
                    f"{reference(found[name])}"
                )
    if not found:
        raise TargetError("there is nothing to run: name a worker, as module:attribute")
    return list(found.values())


def reference(found: type[Worker]) -> str:
    """The target, as text, under which another process finds this worker.

    Raises `TargetError` where none does: it was defined inside of a function.
    """
    module = "__main__" if found.__module__ == "__mp_main__" else found.__module__
    if "<locals>" in found.__qualname__:
        raise TargetError(
            f"{module}:{found.__qualname__} cannot be found by other processes: define it at "
            "the top of its module"
        )
    return f"{module}:{found.__qualname__}"


def _workers_of(target: Target) -> list[type[Worker]]:
    if isinstance(target, ModuleType):
        return _defined_in(target)
    if not isinstance(target, str):
        return [_worker_of(target, repr(target))]
    module_name, colon, path = target.partition(":")
    value: Any = _import(module_name, target)
    if not colon:
        return _defined_in(value)
    for part in path.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            raise TargetError(f"{target}: {module_name} has no {path!r}") from None
    return [_worker_of(value, target)]


def _import(name: str, target: str) -> ModuleType:
    if not name or name.startswith("."):
        raise TargetError(f"{target!r} is no target: one is module:attribute, or module")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _not_importable(name, error) from error
        where = f" (in {os.getcwd()} or sys.path)"
        raise TargetError(f"{target}: there is no module {error.name}{where}") from None
    except (Exception, SystemExit) as error:
        raise _not_importable(name, error) from error


def _not_importable(name: str, error: BaseException) -> TargetError:
    said = " ".join(str(error).split())
    return TargetError(f"{name} cannot be imported: {type(error).__name__}: {said}")


def _defined_in(module: ModuleType) -> list[type[Worker]]:
    found = []
    for value in vars(module).values():
        made = made_of(value)
        # One without `perform` is a base of others.
        if made and made.__module__ == module.__name__ and made.perform is not Worker.perform:
            found.append(made)
    if not found:
        raise TargetError(f"{module.__name__} defines no workers")
    return found


def _worker_of(value: Any, target: str) -> type[Worker]:
    made = made_of(value)
    if made is None:
        raise TargetError(
            f"{target} is no worker but {type(value).__name__}: a subclass of Worker or a "
            "function with @worker is one"
        )
    return made
