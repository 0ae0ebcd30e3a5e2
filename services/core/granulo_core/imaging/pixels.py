# SPDX-License-Identifier: GPL-3.0-or-later
"""Physical size of a pixel."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class PixelSize:
    """How many nanometres one pixel spans; where it is unknown there is no `PixelSize` at all."""

    x_nm: float
    """Width of a pixel in nm."""
    y_nm: float
    """Height of a pixel in nm."""

    def __post_init__(self) -> None:
        """Refuse what is no length: 0, negative, NaN, infinite."""
        for name in ("x_nm", "y_nm"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number of nanometres, got {value!r}")

    @classmethod
    def square(cls, size_nm: float) -> "PixelSize":
        """A pixel as high as wide."""
        return cls(size_nm, size_nm)

    @property
    def area_nm2(self) -> float:
        """Area of one pixel in nm²."""
        return self.x_nm * self.y_nm

    @property
    def mean_nm(self) -> float:
        """Side of the square of the same area, in nm."""
        return math.sqrt(self.area_nm2)

    def as_tuple(self) -> tuple[float, float]:
        """``(x_nm, y_nm)``."""
        return (self.x_nm, self.y_nm)
