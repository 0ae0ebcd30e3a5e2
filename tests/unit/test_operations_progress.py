# SPDX-License-Identifier: GPL-3.0-or-later
"""Units of an operation whose tasks learn on the way how many they have."""

from granulo_core.engine.port import TaskContext
from granulo_core.operations.context import _Counter
from granulo_core.operations.reporting import TaskProgress, read_progress, report
from granulo_core.store import LocalStore


def test_a_task_may_revise_its_own_total() -> None:
    counter = _Counter({"a": 10, "b": 5})
    counter.report("a", 3.0, 6.0)
    counter.report("b", 1.0, None)
    assert (counter.done, counter.total) == (4, 11)
    counter.report("a", 4.0, 8.0)
    assert (counter.done, counter.total) == (5, 13)
    counter.finish("a")
    assert (counter.done, counter.total) == (9, 13)
    counter.finish("b")
    assert (counter.done, counter.total) == (13, 13)


def test_a_revised_total_reaches_the_operation(local_store: LocalStore) -> None:
    context = TaskContext(local_store.url, "operations/trainer/x", "train")
    report(context, units_done=3.0, message="epoch 1", figures={"loss": 0.5}, units_total=6.0)
    words = read_progress(local_store, "operations/trainer/x", ["train"])
    assert words == {"train": TaskProgress(3.0, "epoch 1", {"loss": 0.5}, 6.0)}
