# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory of the machine that trains, and the refusal of what cannot fit into it."""

import os
from contextlib import suppress
from pathlib import Path

from granulo_core.errors import FieldViolation, invalid_fields
from granulo_trainer.domain.config import TrainingConfig
from granulo_trainer.domain.memory import largest_batch, largest_patch, training_bytes

# A container's limit, in the two generations of control groups.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_GIB = 1 << 30


def machine_memory_bytes() -> int:
    """Memory that this process may use at most: the machine's, or its container's limit."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _LIMITS:
        with suppress(OSError, ValueError):  # no control group, or "max"
            found.append(int(Path(path).read_text(encoding="ascii")))
    return min(found)


def check_fits(config: TrainingConfig, memory_mib: int, path: str) -> None:
    """Refuse what needs more memory than there is.

    Parameters
    ----------
    config : TrainingConfig
    memory_mib : int
        Of the machine that trains; 0 takes this machine's.
    path : str
        Field of the request that holds the configuration.

    Raises
    ------
    GranuloError
        FIELD_INVALID with what would fit.
    """
    found = violations(config, memory_mib << 20 or machine_memory_bytes())
    if found:
        raise invalid_fields(
            [FieldViolation(f"{path}.{item.field}", item.description) for item in found]
        )


def violations(config: TrainingConfig, available_bytes: int) -> list[FieldViolation]:
    """What of a configuration does not fit into the memory, and what would.

    Parameters
    ----------
    config : TrainingConfig
    available_bytes : int
        Memory of the machine that trains.
    """
    needed = training_bytes(config)
    if needed <= available_bytes:
        return []
    text = (
        f"batch_size {config.batch_size} with patch_px {config.patch_px} needs about "
        f"{needed / _GIB:.1f} GiB to train, and the machine has {available_bytes / _GIB:.1f} GiB; "
    )
    batch = largest_batch(config, available_bytes)
    if batch:
        return [FieldViolation("batch_size", f"{text}a batch_size of {batch} fits")]
    patch = largest_patch(config, available_bytes)
    if patch:
        text = f"{text}a batch_size of 1 with a patch_px of {patch} fits"
        return [FieldViolation(name, text) for name in ("batch_size", "patch_px")]
    return [FieldViolation("width", f"{text}no patch of this network fits, take a smaller width")]
