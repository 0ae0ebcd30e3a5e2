# SPDX-License-Identifier: GPL-3.0-or-later
"""REQUIRED fields, read from the contract's own annotations (`google.api.field_behavior`)."""

from functools import cache

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from granulo_core.errors import FieldViolation


def missing_fields(message: Message, path: str = "") -> list[FieldViolation]:
    """All REQUIRED fields that are not set, also inside of the messages that are.

    Parameters
    ----------
    message : Message
    path : str
        Path of ``message`` in the request.

    Returns
    -------
    list of FieldViolation
    """
    found = [
        FieldViolation(path + field.name, "is required; set it.")
        for field in _required(message.DESCRIPTOR)
        if not _is_set(message, field)
    ]
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        if field.is_repeated:
            for index, item in enumerate(value):
                found += missing_fields(item, f"{path}{field.name}[{index}].")
        else:
            found += missing_fields(value, f"{path}{field.name}.")
    return found


@cache
def _required(descriptor: Descriptor) -> tuple[FieldDescriptor, ...]:
    behaviour = field_behavior_pb2.field_behavior
    return tuple(
        field
        for field in descriptor.fields
        if field_behavior_pb2.REQUIRED in field.GetOptions().Extensions[behaviour]
    )


def _is_set(message: Message, field: FieldDescriptor) -> bool:
    if field.has_presence:
        return message.HasField(field.name)
    value = getattr(message, field.name)
    return bool(len(value) if field.is_repeated else value)
