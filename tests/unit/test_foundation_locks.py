# SPDX-License-Identifier: GPL-3.0-or-later
"""The locks: hash-pinned, without index addresses, and in agreement with one another."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WHOLE = ROOT / "requirements.lock"
# Not the generator's lock: its environment is older than the runtime on purpose.
SERVICE_LOCKS = sorted(
    set((ROOT / "locks").glob("*.txt")) - set((ROOT / "locks").glob("overrides*"))
)
ALL_LOCKS = [WHOLE, *SERVICE_LOCKS]


def pinned(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9.-]+)(?:\[[^\]]*\])?==(\S+)", lock.read_text(), re.MULTILINE))


@pytest.mark.parametrize("lock", ALL_LOCKS, ids=lambda path: path.name)
def test_every_requirement_is_pinned_by_hash(lock):
    statements = re.sub(r"#.*", "", lock.read_text()).replace("\\\n", " ").split("\n")
    statements = [statement for statement in statements if statement.strip()]

    assert len(statements) == len(pinned(lock)) > 5
    assert all("--hash=sha256:" in statement for statement in statements)


@pytest.mark.parametrize("lock", ALL_LOCKS, ids=lambda path: path.name)
def test_no_lock_names_an_index_a_folder_or_a_checkout(lock):
    forbidden = re.compile(
        r"https?://|file:|--(extra-)?index|--find.links|^-e |^-f |^-i | @ ", re.M
    )

    assert forbidden.findall(lock.read_text()) == []


@pytest.mark.parametrize(
    "lock",
    [path for path in SERVICE_LOCKS if path.name != "protos.txt"],
    ids=lambda path: path.name,
)
def test_service_locks_have_the_versions_of_the_whole(lock):
    whole = pinned(WHOLE)
    # What CUDA TensorFlow brings along is in no other lock.
    own = {"tensorflow"} if "-gpu" in lock.name else set()

    differing = {
        name: (version, whole.get(name))
        for name, version in pinned(lock).items()
        if whole.get(name) != version and name not in own and not name.startswith("nvidia-")
    }
    assert differing == {}


def test_only_one_tensorflow_is_installed():
    assert "tensorflow-cpu" in pinned(WHOLE)
    assert "tensorflow" not in pinned(WHOLE)
    assert (
        pinned(ROOT / "locks" / "trainer-gpu.txt")["tensorflow"] == pinned(WHOLE)["tensorflow-cpu"]
    )


@pytest.mark.parametrize(
    ("lock", "absent"),
    [
        ("render.txt", {"tensorflow-cpu", "tensorflow"}),
        ("trainer.txt", {"bpy", "matplotlib"}),
        ("segmenter.txt", {"bpy", "matplotlib"}),
        ("analyzer.txt", {"bpy", "tensorflow-cpu"}),
    ],
)
def test_a_service_lock_leaves_out_what_only_other_services_need(lock, absent):
    assert absent & pinned(ROOT / "locks" / lock).keys() == set()
