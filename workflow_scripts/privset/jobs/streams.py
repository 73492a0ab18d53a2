"""A run over several tasks, one after another, each of which looks to its method like a run of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from privset.jobs.run import Run


def over_tasks(run: Run, sequence: list[tuple[int, ...]], learn: Callable[[tuple[int, ...], Any, Run], Any], kept: Any) -> Any:
    """`kept = learn(classes, kept, run)` for one task after another; returns what is kept in the end.

    Each task's `run` looks to its method like a run of its own. An interrupted one resumes within its task.
    """
    state = run.restore() or {"task": 0, "kept": kept, "inner": None}
    kept, inner = state["kept"], state["inner"]
    for task in range(state["task"], len(sequence)):
        steps = [0]

        def start(total: int, steps: list[int] = steps) -> None:
            steps[0] = total
            run.start(total * len(sequence))

        inside = replace(
            run,
            start=start,
            report=lambda step, loss, task=task, steps=steps: run.report(task * steps[0] + step, loss),
            snapshot=lambda step, make: None,
            restore=lambda inner=inner: inner,
            checkpoint=lambda inner, task=task, kept=kept: run.checkpoint({"task": task, "kept": kept, "inner": inner}),
        )
        kept, inner = learn(sequence[task], kept, inside), None
        run.checkpoint({"task": task + 1, "kept": kept, "inner": None})
    return kept
