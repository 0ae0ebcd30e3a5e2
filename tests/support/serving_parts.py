# SPDX-License-Identifier: GPL-3.0-or-later
"""Around a segmenter under load: its store, its processes and what they use."""

import hashlib
import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from granulo.type.v1 import artifact_pb2
from granulo_core.store import LocalStore
from granulo_segmenter.predictor import wire


@dataclass
class Running:
    """A store, a sync, a model server and a segmenter."""

    store: LocalStore
    address: str
    model_address: str
    server: "subprocess.Popen[str]"
    segmenter: "subprocess.Popen[bytes]"
    networks: Path
    log: Path

    def promote(self, model: str, version: int, network: str) -> None:
        """What the trainer writes when it promotes a version."""
        objects = []
        for path in sorted(p for p in (self.networks / network).rglob("*") if p.is_file()):
            name = path.relative_to(self.networks / network)
            stored = self.store.put_file(f"serving/{model}/{version}/{name}", path)
            objects.append({"key": stored.key, "digest": stored.digest})
        reference = json.dumps({"version": version, "objects": objects}).encode()
        self.store.put(f"refs/models/{model}.json", reference, "application/json")

    def status(self, model: str) -> dict[int, tuple[int, str]]:
        """State and message of every version that the model server knows."""
        request = wire.new("GetModelStatusRequest", model_spec=wire.new("ModelSpec", name=model))
        with grpc.insecure_channel(self.model_address) as channel:
            call = channel.unary_unary(
                wire.GET_MODEL_STATUS,
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=lambda data: wire.parse("GetModelStatusResponse", data),
            )
            try:
                found = call(request, timeout=20).model_version_status
            except grpc.RpcError:
                return {}
        return {item.version: (item.state, item.status.error_message) for item in found}

    def upload(self, data: bytes, name: str = "image.png") -> artifact_pb2.Artifact:
        key = f"uploads/{hashlib.sha256(data).hexdigest()}"
        self.store.put(key, data, "image/png")
        return artifact_pb2.Artifact(uri=key, display_name=name)


def peak_mib(process: "subprocess.Popen[Any]") -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert found
    return int(found.group(1)) / 1024


def cpu_s(*processes: "subprocess.Popen[Any]") -> float:
    total = 0
    for process in processes:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")
