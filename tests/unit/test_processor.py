# SPDX-License-Identifier: GPL-3.0-or-later
"""What a processor says of itself."""

from pathlib import Path

import pytest

from granulo_segmenter.predictor.processor import has_bfloat16


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx512f avx512_bf16", True),
        ("fpu amx_bf16 amx_tile", True),
        ("fpu avx2 avx512f", False),
    ],
)
def test_bfloat16_is_known_by_the_flags(flags: str, expected: bool, tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: spectre_v1\n")
    assert has_bfloat16(path) is expected
    assert not has_bfloat16(tmp_path / "nowhere")
