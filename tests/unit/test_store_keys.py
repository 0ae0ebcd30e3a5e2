# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of keys and addresses that hold for all inputs."""

import os
import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from granulo_core.errors import GranuloError, Reason
from granulo_core.store import LocalStore, open_store
from granulo_core.store.keys import check_key, check_prefix, media_type_of

allowed_parts = st.from_regex(r"[A-Za-z0-9_=-][A-Za-z0-9._=-]{0,20}", fullmatch=True)
allowed_keys = st.lists(allowed_parts, min_size=1, max_size=6).map("/".join)


@given(key=allowed_keys)
def test_an_allowed_key_is_unchanged_and_so_is_each_of_its_beginnings(key: str) -> None:
    assert check_key(key) == key
    for end in range(len(key) + 1):
        if not key[:end].endswith("."):
            assert check_prefix(key[:end]) == key[:end]


@given(key=st.text(max_size=30) | st.from_regex(r"[./a-c]{0,12}", fullmatch=True))
def test_no_accepted_key_leads_out_of_a_folder_or_has_two_spellings(key: str) -> None:
    with suppress(GranuloError):
        check_key(key)
        path = os.path.normpath(f"/store/{key}")
        assert path == f"/store/{key}"
        assert re.fullmatch(r"[A-Za-z0-9._=/-]+", key)
        assert not any(part.startswith(".") for part in key.split("/"))


@pytest.mark.parametrize("key", ["", "../a", "a" * 701])
def test_a_refused_key_is_named_as_the_field(key: str) -> None:
    with pytest.raises(GranuloError) as caught:
        check_key(key)
    assert caught.value.reason is Reason.FIELD_INVALID
    assert caught.value.violations[0].field == "key"
    assert len(caught.value.message) < 300


def test_the_media_type_follows_from_the_suffix_alone() -> None:
    assert media_type_of("a/b.TIF") == "image/tiff"
    assert media_type_of("a.tif/b") == "application/octet-stream"
    assert media_type_of("report.html") == "text/html"
    assert media_type_of("uploads/3f9a") == "application/octet-stream"


@pytest.mark.parametrize("name", ["plain", "with space", "prozent%20", "ümlaut", "hash#1", "q?x"])
def test_any_folder_name_survives_the_address(tmp_path: Path, name: str) -> None:
    store = LocalStore(tmp_path / name)
    store.put("a/b", b"1")
    again = open_store(store.url)
    assert isinstance(again, LocalStore)
    assert again.root == tmp_path / name
    assert again.get("a/b") == b"1"


def test_a_plain_path_is_a_store_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_store("some/data").url == (tmp_path / "some" / "data").as_uri()


@pytest.mark.parametrize("url", ["", "http://host/x", "file://host/x", "gs://bucket", "file:x"])
def test_other_addresses_are_refused_with_the_forms_that_work(url: str) -> None:
    with pytest.raises(GranuloError, match="s3://bucket/prefix") as caught:
        open_store(url)
    assert caught.value.violations[0].field == "store_url"
