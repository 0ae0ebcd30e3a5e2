# SPDX-License-Identifier: Apache-2.0
"""Typed Python client of Granulo and the `granulo` command."""

from granulo_client.client import Client
from granulo_client.errors import (
    AlreadyExistsError,
    CancelledError,
    DataLossError,
    DeadlineExceededError,
    FailedPreconditionError,
    FieldViolation,
    GranuloClientError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UsageError,
)
from granulo_client.jobs import Job, Operations
from granulo_client.recipes import load_recipe
from granulo_client.security import Security

__all__ = [
    "AlreadyExistsError",
    "CancelledError",
    "Client",
    "DataLossError",
    "DeadlineExceededError",
    "FailedPreconditionError",
    "FieldViolation",
    "GranuloClientError",
    "InvalidArgumentError",
    "Job",
    "NotFoundError",
    "Operations",
    "PermissionDeniedError",
    "ResourceExhaustedError",
    "Security",
    "UnauthenticatedError",
    "UnavailableError",
    "UsageError",
    "load_recipe",
]
