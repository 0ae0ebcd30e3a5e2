# SPDX-License-Identifier: GPL-3.0-or-later
"""When a training ends, how fast it learns and what it needs: rules without a framework."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from granulo.trainer.v1 import trainer_service_pb2 as pb
from granulo_core.errors import GranuloError, Reason
from granulo_core.store import LocalStore
from granulo_trainer import convert, memory, registry
from granulo_trainer.domain import budget
from granulo_trainer.domain.budget import End
from granulo_trainer.domain.config import ConfigError, TrainingConfig, preset_config
from granulo_trainer.domain.memory import (
    _parameters,
    largest_batch,
    largest_patch,
    smaller,
    training_bytes,
)
from granulo_trainer.domain.precision import fastest
from granulo_trainer.workflow import create_version

GIB = 1 << 30


def config(**changes: Any) -> TrainingConfig:
    return preset_config("small", **{"epochs": 4, "steps_per_epoch": 10, **changes})


def epochs(*values: float, name: str = "loss", steps: int = 10) -> list[dict[str, float]]:
    return [
        {"loss": 1.0, "steps": float(steps * n), "elapsed_s": 30.0 * n, name: value}
        for n, value in enumerate(values, start=1)
    ]


def test_the_first_spent_budget_ends_the_training() -> None:
    history = epochs(0.9, 0.8)
    assert budget.end_of(config(), history) is None
    assert budget.end_of(config(epochs=2), history) is End.EPOCHS
    assert budget.end_of(config(max_steps=20), history) is End.STEPS
    assert budget.end_of(config(max_minutes=1.0), history) is End.MINUTES
    assert budget.end_of(config(max_minutes=1.1), history) is None
    assert budget.end_of(config(max_steps=20, epochs=2), history) is End.EPOCHS


def test_a_run_without_an_epoch_always_trains_one() -> None:
    assert budget.end_of(config(max_minutes=0.01), [], seconds=100.0) is None


def test_early_stopping_counts_epochs_without_a_better_figure() -> None:
    history = epochs(0.5, 0.7, 0.7, 0.6, name="validation_ap50")
    assert budget.epochs_without_gain("small", history) == 2
    patient = config(epochs=9, early_stopping_epochs=3)
    assert budget.end_of(patient, history) is None
    assert budget.end_of(replace(patient, early_stopping_epochs=2), history) is End.EARLY_STOPPING
    assert budget.end_of(replace(patient, early_stopping_epochs=0), history) is None


def test_early_stopping_waits_for_the_first_particle_that_is_found() -> None:
    history = epochs(0.0, 0.0, 0.0, name="heldout_ap50")
    assert budget.epochs_without_gain("small", history) == 0
    assert (
        budget.epochs_without_gain("small", [*history, *epochs(0.2, 0.1, name="heldout_ap50")]) == 1
    )


def test_early_stopping_judges_by_the_best_figure_that_there_is() -> None:
    falling = [{"loss": 1.0}, {"loss": 0.5}]
    assert budget.stopping_figure("small", falling) == "loss"
    assert budget.epochs_without_gain("small", falling) == 0
    held = [{**figures, "heldout_ap50": 0.3} for figures in falling]
    assert budget.stopping_figure("small", held) == "heldout_ap50"
    both = [{**figures, "validation_ap50": 0.2, "validation_dsc": 0.9} for figures in held]
    assert budget.stopping_figure("small", both) == "validation_ap50"
    assert budget.stopping_figure("paper", both) == "validation_dsc"


def test_the_end_is_told_with_its_reason() -> None:
    history = epochs(0.5, 0.7, 0.6, name="validation_ap50")
    stopped = config(epochs=9, early_stopping_epochs=1)
    text = budget.explain(stopped, history, End.EARLY_STOPPING)
    assert text == (
        "ended after 3 epochs and 30 steps: no better validation_ap50 for 1 epoch (early stopping)"
    )
    assert "max_minutes 1.5" in budget.explain(config(max_minutes=1.5), history, End.MINUTES)
    figures = budget.run_figures(stopped, history, End.EARLY_STOPPING)
    assert figures == {
        "epochs_trained": 3.0,
        "steps_trained": 30.0,
        "minutes_trained": 1.5,
        "stopped_early": 1.0,
    }


@given(
    step=st.integers(0, 39),
    seconds=st.floats(0, 600),
    minutes=st.floats(0.1, 10),
    later=st.integers(1, 20),
)
def test_learning_rates_span_whatever_budget_is_nearer_to_its_end(
    step: int, seconds: float, minutes: float, later: int
) -> None:
    timed = config(max_minutes=minutes)
    share = budget.share_spent(timed, step, seconds)
    assert share == pytest.approx(min(1.0, max(step / 40, seconds / (60 * minutes))))
    rate = budget.learning_rate_at(timed, 100, share)
    assert 0.01 * timed.learning_rate <= rate <= timed.learning_rate * (1 + 1e-12)
    assert budget.learning_rate_at(timed, 100, min(1.0, share + later / 100)) <= rate + 1e-15
    assert budget.learning_rate_at(timed, 100, 1.0) == pytest.approx(0.01 * timed.learning_rate)


def test_learning_rates_warm_up_and_stay_constant_for_the_paper() -> None:
    assert budget.learning_rate_at(config(), 0) < 0.05 * config().learning_rate
    assert budget.learning_rate_at(preset_config("paper"), 0) == 0.001
    assert budget.learning_rate_at(preset_config("paper"), 70_000) == 0.001


def test_steps_to_come_follow_the_pace_where_minutes_are_the_limit() -> None:
    timed = config(max_minutes=1.0)
    assert budget.expected_steps(timed, 0, 0.0) == 40
    assert budget.expected_steps(timed, 5, 15.0) == 20
    assert budget.expected_steps(timed, 5, 1.0) == 40
    assert budget.expected_steps(timed, 7, 99.0) == 7
    assert budget.time_left_s(timed, 5, 15.0, 3.0) == 45.0
    assert budget.time_left_s(config(), 30, 15.0, 3.0) == 30.0


def test_precision_follows_the_least_able_device() -> None:
    assert fastest([(8, 0)], []) == "mixed_bfloat16"
    assert fastest([(9, 0), (7, 5)], ["avx512_bf16"]) == "mixed_float16"
    assert fastest([], ["sse2", "avx512_bf16"]) == "mixed_bfloat16"
    assert fastest([], ["sse2", "amx_bf16"]) == "mixed_bfloat16"
    assert fastest([], ["avx512f"]) == "float32"


def test_unusable_settings_are_told_all_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        preset_config("small", width=-1.0, patch_px=250, precision="half", learning_rate=7.0)
    fields = [name for name, _ in caught.value.problems]
    assert sorted(fields) == ["learning_rate", "patch_px", "precision", "width"]

    message = pb.TrainingConfig(
        datasets=["datasets/a"], preset="small", epochs=-1, patch_px=250, precision="half",
        max_minutes=5, deterministic=True, width=9, learning_rate=1e9,
    )  # fmt: skip
    with pytest.raises(GranuloError) as refused:
        convert.training_config(message, 5000)
    named = sorted(item.field.rpartition(".")[2] for item in refused.value.violations)
    assert named == ["deterministic", "epochs", "learning_rate", "patch_px", "precision", "width"]


@given(
    batch=st.integers(1, 256),
    patch=st.integers(2, 64).map(lambda n: 32 * n),
    preset=st.sampled_from(["small", "base", "paper"]),
    available=st.integers(1, 64).map(lambda n: n * GIB),
)
def test_what_is_said_to_fit_does_fit(batch: int, patch: int, preset: str, available: int) -> None:
    wanted = preset_config(preset, batch_size=batch, patch_px=patch)
    fitting = largest_batch(wanted, available)
    if fitting:
        assert training_bytes(replace(wanted, batch_size=fitting)) <= available
    if fitting < batch:
        assert training_bytes(replace(wanted, batch_size=fitting + 1)) > available
        assert memory.violations(wanted, available)
    else:
        assert memory.violations(wanted, available) == []
    side = largest_patch(wanted, available)
    assert side == 0 or training_bytes(replace(wanted, batch_size=1, patch_px=side)) <= available


def test_the_presets_fit_into_eight_gibibytes() -> None:
    for preset in ("small", "base", "paper"):
        assert memory.violations(preset_config(preset), 8 * GIB) == []


def test_a_refusal_for_memory_names_what_would_fit() -> None:
    (found,) = memory.violations(preset_config("small", batch_size=256, patch_px=1024), 8 * GIB)
    assert found.field == "batch_size"
    assert "a batch_size of" in found.description
    many = memory.violations(preset_config("paper", patch_px=2048), 2 * GIB)
    assert [item.field for item in many] == ["batch_size", "patch_px"]
    assert "a patch_px of" in many[0].description
    (wide,) = memory.violations(preset_config("paper", width=4.0), 2 * GIB)
    assert wide.field == "width"
    assert memory.machine_memory_bytes() > GIB // 2


def test_the_memory_estimate_counts_the_papers_weights() -> None:
    assert _parameters(preset_config("paper")) == pytest.approx(31_030_593, rel=0.01)


def test_less_is_suggested_as_long_as_there_is_less() -> None:
    assert "batch_size of 4" in smaller(config())
    assert "patch_px of 128" in smaller(config(batch_size=1))
    assert "smaller width" in smaller(config(batch_size=1, patch_px=64))


def test_a_failed_version_says_why(local_store: LocalStore) -> None:
    version = registry.claim(local_store, "m", "sha256:0")
    assert registry.failure_of(local_store, version) == ""
    registry.mark_failed(local_store, version, "the loss became nan")
    assert registry.failure_of(local_store, version) == "the loss became nan"
    message = convert.unfinished_version(
        version,
        registry.state_of(local_store, version),
        registry.claim_time(local_store, version),
        registry.failure_of(local_store, version),
    )
    assert message.state == pb.ModelVersion.STATE_FAILED
    assert message.failure == "the loss became nan"


def test_a_worker_that_the_kernel_kills_is_told_with_what_to_try() -> None:
    def died(exit_code: str) -> GranuloError:
        text = f"The worker died (exit code {exit_code})."
        return GranuloError(Reason.WORKER_DIED, text, metadata={"exit_code": exit_code})

    killed = create_version._with_remedy(died("-9"), config())
    assert killed.reason is Reason.WORKER_DIED
    assert "a batch_size of 4 or a smaller patch_px" in killed.message
    crashed = died("-11")
    assert create_version._with_remedy(crashed, config()) is crashed
