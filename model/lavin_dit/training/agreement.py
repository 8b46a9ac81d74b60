"""What all processes of a run have to see alike: the same results, or the same error."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import distributed

from lavin_dit.training.processes import LONGEST_WAIT, Processes

ResultT = TypeVar("ResultT")


class Agreement:
    """A process group of its own, so that training's collectives can go on meanwhile; no group for one process alone."""

    def __init__(self, processes: Processes, errors: tuple[type[Exception], ...]) -> None:
        """`errors` are those that one process has for all of them; another is a bug and ends the process that has it."""
        self._processes, self._errors = processes, errors
        self.group = distributed.new_group(backend="gloo", timeout=LONGEST_WAIT) if processes.world_size > 1 else None

    def of_all(self, action: Callable[[], Any]) -> list[Any]:
        """What each process comes to, in every process; if some fail, all fail with the error of the first of them."""
        result, error = None, None
        try:
            result = action()
        except self._errors as caught:
            error = caught
        outcomes = [(result, error)]
        if self.group is not None:
            outcomes *= self._processes.world_size
            distributed.all_gather_object(outcomes, (result, error), group=self.group)
        for _, failure in outcomes:
            if failure is not None:
                raise failure
        return [outcome for outcome, _ in outcomes]

    def on_first(self, action: Callable[[], ResultT]) -> ResultT:
        """What the first process comes to, in every process; so with its error."""
        found: ResultT = self.of_all(action if self._processes.is_first else nothing)[0]
        return found


def nothing() -> None:
    """For the processes that have no part in an action."""
