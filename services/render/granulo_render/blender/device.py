# SPDX-License-Identifier: GPL-3.0-or-later
"""The device that Cycles renders on: the CPU, or the kind of GPU that the settings ask for."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import bpy

from granulo_core.errors import FieldViolation, invalid_fields
from granulo_render.settings import RenderSettings

CPU = "cpu"
AUTO = "auto"
_KINDS = ("optix", "cuda", "hip", "oneapi", "metal")  # `auto` takes the first with a device
_CACHES = {
    "XDG_CACHE_HOME": "",  # Cycles' own compiled kernels
    "CUDA_CACHE_PATH": "cuda",
    "OPTIX_CACHE_PATH": "optix",
    "SYCL_CACHE_DIR": "sycl",
}


@dataclass(frozen=True)
class Device:
    """What renders."""

    kind: str
    """``cpu``, ``optix``, ``cuda``, ``hip``, ``oneapi`` or ``metal``."""
    names: tuple[str, ...]
    """Of the GPUs; empty for the CPU."""


def choose(wanted: str, found: Mapping[str, Sequence[str]]) -> Device:
    """Choose among the devices of a machine.

    Parameters
    ----------
    wanted : str
        The setting ``render_device``.
    found : mapping of str to sequence of str
        Names of the GPUs that Cycles finds, by kind.

    Raises
    ------
    GranuloError
        FIELD_INVALID when a GPU is asked for that is absent; it names what was found.
    """
    if wanted == CPU:
        return Device(CPU, ())
    if wanted == AUTO:
        kind = next((kind for kind in _KINDS if found.get(kind)), CPU)
        return Device(kind, tuple(found.get(kind, ())))
    if not found.get(wanted):
        others = [f"{kind} ({', '.join(found[kind])})" for kind in _KINDS if found.get(kind)]
        seen = "; ".join(others) if others else "no GPU, only the CPU"
        raise invalid_fields(
            [
                FieldViolation(
                    "GRANULO_RENDER_DEVICE",
                    f"asks for {wanted}, but Cycles found {seen}. Choose what is there, or auto.",
                )
            ]
        )
    return Device(wanted, tuple(found[wanted]))


def configure(scene: bpy.types.Scene, wanted: str, store_url: str = "") -> Device:
    """Let a scene render on a device.

    Parameters
    ----------
    scene : bpy.types.Scene
    wanted : str
        A value of the setting ``render_device``.
    store_url : str
        Compiled kernels are kept beside a store in a local folder; the setting's by default.

    Raises
    ------
    GranuloError
        FIELD_INVALID when a GPU is asked for that is absent.
    """
    device = Device(CPU, ())
    if wanted != CPU:
        _keep_kernels(store_url or RenderSettings.load().store_url)
        preferences = bpy.context.preferences.addons["cycles"].preferences
        device = choose(wanted, _found(preferences.get_devices_for_type))
    scene.cycles.device = "CPU" if device.kind == CPU else "GPU"
    if device.kind != CPU:
        preferences.compute_device_type = device.kind.upper()
        for item in preferences.devices:
            item.use = item.type == device.kind.upper()  # the CPU only where nothing else renders
    return device


def _found(devices_of: Callable[[str], Sequence[bpy.types.PropertyGroup]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for kind in _KINDS:
        try:
            devices = devices_of(kind.upper())
        except (TypeError, ValueError):  # this build of Blender knows no such devices
            continue
        found[kind] = [item.name for item in devices if item.type == kind.upper()]
    return found


def _keep_kernels(store_url: str) -> None:
    """Keep compiled kernels beside a local store, so that only the first start is slow.

    Cycles and the drivers read these variables when they first compile; what a user set stays.
    """
    folder = store_url.removeprefix("file://")
    if "://" in folder:
        return
    cache = Path(folder).absolute().parent / "cache"
    for variable, name in _CACHES.items():
        os.environ.setdefault(variable, str(cache / name))
    os.environ.setdefault("SYCL_CACHE_PERSISTENT", "1")
