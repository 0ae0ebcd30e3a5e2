# SPDX-License-Identifier: GPL-3.0-or-later
"""Pages, REQUIRED fields and error details, without a server."""

from contextlib import suppress
from urllib.parse import quote

import pytest
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st

from granulo.analyzer.v1 import analyzer_service_pb2
from granulo.type.v1 import artifact_pb2
from granulo_core.errors import REASONS, FieldViolation, GranuloError, Reason, invalid_fields
from granulo_core.rpc.paging import paginate
from granulo_core.rpc.required import missing_fields
from granulo_core.rpc.status import from_status, to_status


@given(count=st.integers(0, 60), page_size=st.integers(0, 70))
def test_pages_hold_every_item_once_and_in_order(count: int, page_size: int) -> None:
    items, seen, token = list(range(count)), [], ""
    for _ in range(count + 1):
        page, token = paginate(items, page_size, token, default=7, maximum=20)
        assert len(page) <= min(page_size or 7, 20)
        seen += page
        if not token:
            break
    assert seen == items


@given(token=st.text(max_size=12))
def test_any_token_gives_a_page_or_a_clear_error(token: str) -> None:
    with suppress(GranuloError):
        page, _ = paginate([1, 2, 3], 2, token)
        assert page in ([1, 2], [2, 3], [3], [])


def test_a_token_that_no_page_gave_is_refused() -> None:
    for token in ("x", "2", "bzI", "µ", "eDI="):
        with pytest.raises(GranuloError) as refused:
            paginate([1, 2, 3], 2, token)
        assert [v.field for v in refused.value.violations] == ["page_token"]


def test_a_negative_page_size_is_refused() -> None:
    with pytest.raises(GranuloError) as refused:
        paginate([1], -1, "")
    assert refused.value.violations[0].field == "page_size"


def test_required_fields_are_found_inside_of_lists_and_messages() -> None:
    request = analyzer_service_pb2.CreateAnalysisRequest()
    assert [v.field for v in missing_fields(request)] == ["analysis"]
    labels = artifact_pb2.Artifact(uri="uploads/a")
    request.analysis.label_set.items.add(labels=labels)
    assert missing_fields(request) == []
    request.analysis.label_set.items.add()
    request.analysis.label_set.items.add(labels=artifact_pb2.Artifact(digest="sha256:0"))
    request.analysis.label_set.pixel_size.x_nm = 2.0
    assert [v.field for v in missing_fields(request)] == [
        "analysis.label_set.items[1].labels",
        "analysis.label_set.items[2].labels.uri",
        "analysis.label_set.pixel_size.y_nm",
    ]


@pytest.mark.parametrize("reason", list(Reason))
def test_every_error_survives_the_way_to_a_status_and_back(reason: Reason) -> None:
    error = GranuloError(
        reason,
        "What was wrong, and what to do.",
        metadata={"name": "datasets/a"},
        violations=[FieldViolation("a.b[0]", "must be more than 0.")],
        retry_after_s=1.5,
    )
    status = to_status(error)
    assert status.code == REASONS[reason][0].value
    back = from_status(status)
    assert (back.reason, back.message, back.metadata, back.violations) == (
        reason,
        error.message,
        error.metadata,
        error.violations,
    )
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.ToMilliseconds() == 1500


@given(st.lists(st.tuples(st.text(max_size=400), st.text(max_size=3000)), max_size=60))
def test_a_status_is_never_larger_than_what_grpc_delivers(texts: list[tuple[str, str]]) -> None:
    status = to_status(invalid_fields([FieldViolation(*pair) for pair in texts]))
    # gRPC's limit is 8 KiB of metadata: Base64, and the message once more, percent-encoded.
    assert status.ByteSize() * 4 / 3 + len(quote(status.message)) < 7800
    assert status.details
    assert bool(texts) == (len(status.details) > 1)
