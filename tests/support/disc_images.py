# SPDX-License-Identifier: GPL-3.0-or-later
"""Measured images of discs of given sizes."""

import numpy as np

from granulo_analyzer.domain.ensemble import MeasuredImage

FRAME_PX = 600


def image_of(
    diameters: np.ndarray, edges: np.ndarray, number: int, size_nm: float
) -> MeasuredImage:
    """Discs; ``edges`` has the touched ones as bits."""
    area = np.pi * diameters**2 / 4
    columns: dict[str, np.ndarray] = {
        "label": np.arange(1, len(diameters) + 1),
        "area_px": area,
        "area_nm2": area * size_nm**2,
        "touched_edges": edges,
        "touches_border": edges > 0,
        "aspect_ratio": np.ones(len(diameters)),
        "circularity": np.ones(len(diameters)),
        "solidity": np.ones(len(diameters)),
    }
    for name in ("ecd", "min_feret", "max_feret", "feret_x", "feret_y"):
        columns |= {f"{name}_px": diameters, f"{name}_nm": diameters * size_nm}
    columns |= {"sqrt_area_px": np.sqrt(area), "sqrt_area_nm": np.sqrt(area) * size_nm}
    return MeasuredImage(f"i{number}", FRAME_PX, FRAME_PX, (size_nm, size_nm), columns)
