# SPDX-License-Identifier: GPL-3.0-or-later
"""The messages of TensorFlow Serving that the client needs, without TensorFlow.

``tensorflow_serving.apis`` imports TensorFlow: six seconds and half a gigabyte in every process
that only wants to send an array. Messages are what is on the wire, so the few fields in use are
declared here, in a descriptor pool of their own that never meets the generated ones. The
conformance suite compares them with the real definitions field by field.
"""

from functools import cache
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from numpy.typing import NDArray

_PACKAGE = "tensorflow.serving"
_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _Field.TYPE_BOOL,
    "bytes": _Field.TYPE_BYTES,
    "float": _Field.TYPE_FLOAT,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "string": _Field.TYPE_STRING,
}
# message: {field: (number, type, repeated)}; enums travel as int32.
SCHEMA: dict[str, dict[str, tuple[int, str, bool]]] = {
    "Int64Value": {"value": (1, "int64", False)},
    "Dim": {"size": (1, "int64", False)},
    "TensorShapeProto": {"dim": (2, "Dim", True), "unknown_rank": (3, "bool", False)},
    "TensorProto": {
        "dtype": (1, "int32", False),
        "tensor_shape": (2, "TensorShapeProto", False),
        "tensor_content": (4, "bytes", False),
        "float_val": (5, "float", True),
        "half_val": (13, "int32", True),
    },
    "ModelSpec": {
        "name": (1, "string", False),
        "version": (2, "Int64Value", False),
        "signature_name": (3, "string", False),
        "version_label": (4, "string", False),
    },
    "InputsEntry": {"key": (1, "string", False), "value": (2, "TensorProto", False)},
    "PredictRequest": {
        "model_spec": (1, "ModelSpec", False),
        "inputs": (2, "InputsEntry", True),
        "output_filter": (3, "string", True),
    },
    "PredictResponse": {
        "outputs": (1, "InputsEntry", True),
        "model_spec": (2, "ModelSpec", False),
    },
    "GetModelStatusRequest": {"model_spec": (1, "ModelSpec", False)},
    "StatusProto": {"error_code": (1, "int32", False), "error_message": (2, "string", False)},
    "ModelVersionStatus": {
        "version": (1, "int64", False),
        "state": (2, "int32", False),
        "status": (3, "StatusProto", False),
    },
    "GetModelStatusResponse": {"model_version_status": (1, "ModelVersionStatus", True)},
}

PREDICT = f"/{_PACKAGE}.PredictionService/Predict"
GET_MODEL_STATUS = f"/{_PACKAGE}.ModelService/GetModelStatus"
STATE_AVAILABLE = 30
STATE_END = 50

_DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 4: np.dtype("u1"), 19: np.dtype("<f2")}
_NUMBERS = {dtype: number for number, dtype in _DTYPES.items()}


@cache
def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="granulo/predictor_wire.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in SCHEMA.items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind, repeated) in fields.items():
            field = message.field.add(
                name=field_name,
                number=number,
                label=_Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL,
                type=_SCALARS.get(kind, _Field.TYPE_MESSAGE),
            )
            if kind not in _SCALARS:
                field.type_name = f".{_PACKAGE}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in SCHEMA
    }


def new(name: str, /, **fields: Any) -> Any:
    """Make a message by its short name."""
    return _classes()[name](**fields)


def parse(name: str, data: bytes) -> Any:
    """Read a message by its short name; ``DecodeError`` where the bytes are none."""
    return _classes()[name].FromString(data)


def to_tensor(array: NDArray[Any]) -> Any:
    """Make a ``TensorProto`` of a uint8, float16 or float32 array."""
    dtype = array.dtype.newbyteorder("<") if array.dtype.itemsize > 1 else array.dtype
    number = _NUMBERS.get(np.dtype(dtype))
    if number is None:
        raise ValueError(f"only uint8, float16 and float32 tensors are sent, got {array.dtype}")
    shape = new("TensorShapeProto", dim=[new("Dim", size=size) for size in array.shape])
    content = np.ascontiguousarray(array, dtype=dtype).tobytes()
    return new("TensorProto", dtype=number, tensor_shape=shape, tensor_content=content)


def from_tensor(tensor: Any) -> NDArray[Any]:
    """Read an array from a ``TensorProto``, whichever of its forms the server chose.

    Raises
    ------
    ValueError
        When the type is another than uint8, float16 or float32, or the numbers do not fill the
        shape.
    """
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        raise ValueError(f"tensors of type {tensor.dtype} are not expected from a model")
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if tensor.tensor_content:
        flat = np.frombuffer(tensor.tensor_content, dtype=dtype)
    elif tensor.half_val:
        flat = np.array(tensor.half_val, dtype="<u2").view("<f2").astype(dtype)
    else:
        flat = np.array(tensor.float_val, dtype=dtype)
    count = int(np.prod(shape))
    if flat.size == 1 and count > 1:
        # A constant tensor is sent as its one value.
        flat = np.broadcast_to(flat, (count,))
    if flat.size != count:
        raise ValueError(f"a tensor of shape {shape} came with {flat.size} values")
    return np.asarray(flat.reshape(shape))
