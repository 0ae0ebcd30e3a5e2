# SPDX-License-Identifier: Apache-2.0
"""Models, their versions and checkpoints: part of the client."""

from granulo.trainer.v1 import trainer_service_pb2 as trainer_pb
from granulo.trainer.v1 import trainer_service_pb2_grpc as trainer_grpc
from granulo_client import names
from granulo_client.calls import CREATE_TIMEOUT_S
from granulo_client.connection import Connection
from granulo_client.jobs import Job


class ModelRegistry(Connection):
    """Part of `Client`: what was trained, which of it is served, and other choices."""

    def models(self) -> list[trainer_pb.Model]:
        """All models of the registry."""
        stub = trainer_grpc.TrainerServiceStub(self.channels.to("trainer"))
        pages = self._calls.pages(stub.ListModels, trainer_pb.ListModelsRequest(), "trainer")
        return [model for page in pages for model in page.models]

    def model(self, name: str) -> trainer_pb.Model:
        """A model by its name."""
        stub = trainer_grpc.TrainerServiceStub(self.channels.to("trainer"))
        request = trainer_pb.GetModelRequest(name=names.model(name))
        return self._calls.call(stub.GetModel, request, "trainer")

    def model_versions(self, model: str) -> list[trainer_pb.ModelVersion]:
        """All versions of a model."""
        stub = trainer_grpc.TrainerServiceStub(self.channels.to("trainer"))
        request = trainer_pb.ListModelVersionsRequest(parent=names.model(model))
        pages = self._calls.pages(stub.ListModelVersions, request, "trainer")
        return [version for page in pages for version in page.model_versions]

    def model_version(self, name: str) -> trainer_pb.ModelVersion:
        """A version by name, ``models/{model}/versions/{version}`` or ``{model}/{version}``."""
        stub = trainer_grpc.TrainerServiceStub(self.channels.to("trainer"))
        request = trainer_pb.GetModelVersionRequest(name=names.model_version(name))
        return self._calls.call(stub.GetModelVersion, request, "trainer")

    def promote(self, version: str) -> trainer_pb.Model:
        """Make a version the one that the model server serves."""
        stub = trainer_grpc.TrainerServiceStub(self.channels.to("trainer"))
        request = trainer_pb.PromoteModelVersionRequest(name=names.model_version(version))
        return self._calls.call(
            stub.PromoteModelVersion, request, "trainer", timeout_s=CREATE_TIMEOUT_S
        )

    def rollback(self, model: str) -> trainer_pb.Model:
        """Serve again what was served before the last promotion."""
        stub = trainer_grpc.TrainerServiceStub(self.channels.to("trainer"))
        request = trainer_pb.RollbackModelRequest(name=names.model(model))
        return self._calls.call(stub.RollbackModel, request, "trainer", timeout_s=CREATE_TIMEOUT_S)

    def export_model(
        self, version: str, file_format: str
    ) -> Job[trainer_pb.ExportModelVersionResponse]:
        """Make a version's files for use outside of Granulo.

        Parameters
        ----------
        version : str
            ``{model}/{version}`` or its resource name.
        file_format : str
            ``saved-model`` or ``onnx``.
        """
        request = trainer_pb.ExportModelVersionRequest(
            name=names.model_version(version), format=names.export_format(file_format)
        )
        stub = trainer_grpc.TrainerServiceStub(self.channels.to("trainer"))
        return self._calls.job(
            stub.ExportModelVersion, request, trainer_pb.ExportModelVersionResponse, "trainer"
        )

    def checkpoints(self, version: str) -> list[trainer_pb.Checkpoint]:
        """Checkpoints of a version in the order of epochs, also while it trains."""
        stub = trainer_grpc.TrainerServiceStub(self.channels.to("trainer"))
        request = trainer_pb.ListCheckpointsRequest(parent=names.model_version(version))
        pages = self._calls.pages(stub.ListCheckpoints, request, "trainer")
        return [checkpoint for page in pages for checkpoint in page.checkpoints]

    def rank_checkpoints(
        self, version: str, *, by: str = "", page: bool = False
    ) -> trainer_pb.RankCheckpointsResponse:
        """Order the checkpoints of a version from best to worst.

        Parameters
        ----------
        version : str
            ``{model}/{version}`` or the resource name.
        by : str
            ``ap50``, ``f1``, ``label-free``, ``held-out`` or ``last``; by default the first of
            ``ap50``, ``label-free`` and ``last`` that the version has figures for.
        page : bool
            Also make the page of all predictions; `download` gets it.
        """
        stub = trainer_grpc.TrainerServiceStub(self.channels.to("trainer"))
        request = trainer_pb.RankCheckpointsRequest(parent=names.model_version(version), page=page)
        if by:
            request.criterion = names.criterion(by)
        return self._calls.call(
            stub.RankCheckpoints, request, "trainer", timeout_s=CREATE_TIMEOUT_S
        )

    def select_checkpoint(
        self, checkpoint: str, *, selected_by: str, reason: str, averaged_epochs: int = 1
    ) -> Job[trainer_pb.ModelVersion]:
        """Make a new version of a checkpoint that a person chose.

        Parameters
        ----------
        checkpoint : str
            ``{model}/{version}/{epoch}`` or the resource name.
        selected_by, reason : str
            Who chose, and why; both are kept with the version.
        averaged_epochs : int
            The weights are the mean over so many epochs that end with the chosen one.
        """
        stub = trainer_grpc.TrainerServiceStub(self.channels.to("trainer"))
        request = trainer_pb.SelectCheckpointRequest(
            name=names.checkpoint(checkpoint),
            selected_by=selected_by,
            reason=reason,
            averaged_epochs=averaged_epochs,
        )
        return self._calls.job(stub.SelectCheckpoint, request, trainer_pb.ModelVersion, "trainer")
