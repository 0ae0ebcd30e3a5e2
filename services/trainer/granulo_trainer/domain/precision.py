# SPDX-License-Identifier: GPL-3.0-or-later
"""What a training computes in, by what the device is fast at."""

from collections.abc import Iterable, Sequence

from granulo_trainer.domain.config import Precision

_BFLOAT16_GPU = (8, 0)
_BFLOAT16_CPU = frozenset({"amx_bf16", "avx512_bf16"})


def fastest(gpus: Sequence[tuple[int, int]], cpu_flags: Iterable[str]) -> Precision:
    """The fastest precision.

    Parameters
    ----------
    gpus : sequence of (major, minor)
        Compute capability of each GPU that is used; the least able one decides.
    cpu_flags : iterable of str
        Instruction sets of the CPU, as ``/proc/cpuinfo`` names them.

    Returns
    -------
    {"mixed_bfloat16", "mixed_float16", "float32"}
        GPUs compute in bfloat16 from capability 8.0 on, older ones in float16 with a loss scale.
        CPUs without bfloat16 instructions would emulate it.
    """
    if gpus:
        return "mixed_bfloat16" if min(gpus) >= _BFLOAT16_GPU else "mixed_float16"
    return "mixed_bfloat16" if _BFLOAT16_CPU & set(cpu_flags) else "float32"
