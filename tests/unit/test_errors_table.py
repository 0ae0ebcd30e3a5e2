# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors: one table, its page, and what of an error crosses a process border."""

import pickle
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from google.rpc import code_pb2

from granulo_core.errors import (
    REASONS,
    Code,
    FieldViolation,
    GranuloError,
    Reason,
    invalid_fields,
    not_found,
)

REPOSITORY = Path(__file__).resolve().parents[2]


def test_every_reason_has_a_code_and_a_meaning() -> None:
    assert set(REASONS) == set(Reason)
    for reason, (_, meaning) in REASONS.items():
        assert reason.value == reason.name
        assert meaning.endswith(".")


@pytest.mark.parametrize("code", list(Code))
def test_codes_are_those_of_google_rpc_and_of_grpc(code: Code) -> None:
    assert code_pb2.Code.Value(code.name) == code.value
    assert grpc.StatusCode[code.name].value[0] == code.value


def test_the_page_of_errors_is_made_from_the_table() -> None:
    script = REPOSITORY / "scripts" / "document_errors.py"
    run = subprocess.run(
        [sys.executable, script, "--check"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_an_error_crosses_a_process_border_whole() -> None:
    error = GranuloError(
        Reason.SERVER_BUSY,
        "The queue is full.",
        metadata={"queue": "render"},
        violations=[FieldViolation("count", "must be positive")],
        retry_after_s=1.5,
    )
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is GranuloError
    assert (copy.reason, copy.code, str(copy)) == (
        Reason.SERVER_BUSY,
        Code.RESOURCE_EXHAUSTED,
        "The queue is full.",
    )
    assert copy.metadata == {"queue": "render"}
    assert copy.violations == error.violations
    assert copy.retry_after_s == 1.5


def test_every_unusable_field_is_in_the_sentence() -> None:
    error = invalid_fields([FieldViolation("a.b", "is negative"), FieldViolation("c", "is NaN")])
    assert error.message == "a.b: is negative; c: is NaN"
    assert error.code is Code.INVALID_ARGUMENT
    assert [violation.field for violation in error.violations] == ["a.b", "c"]


def test_what_is_not_found_is_named_for_people_and_programs() -> None:
    error = not_found("datasets/x", "List the datasets.")
    assert error.message == "datasets/x does not exist. List the datasets."
    assert error.metadata == {"name": "datasets/x"}
