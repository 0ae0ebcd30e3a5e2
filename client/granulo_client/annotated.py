# SPDX-License-Identifier: Apache-2.0
"""The client's methods for datasets, annotated images and cross-validations."""

from collections.abc import Sequence

from granulo.render.v1 import render_service_pb2 as render_pb
from granulo.render.v1 import render_service_pb2_grpc as render_grpc
from granulo.trainer.v1 import trainer_service_pb2 as trainer_pb
from granulo.trainer.v1 import trainer_service_pb2_grpc as trainer_grpc
from granulo_client import names
from granulo_client.calls import CREATE_TIMEOUT_S
from granulo_client.connection import Connection, Source
from granulo_client.jobs import Job


class AnnotatedData(Connection):
    """What `Client` can do with datasets."""

    def import_dataset(
        self,
        images: Sequence[tuple[Source, Source]],
        *,
        dataset_id: str = "",
        pixel_size_nm: float | tuple[float, float] | None = None,
        content_height_px: int = 0,
        validate_only: bool = False,
    ) -> trainer_pb.AnnotatedDataset:
        """Take in real micrographs with instance labels, to train on or to cross-validate.

        Parameters
        ----------
        images : sequence of (image, labels)
            Labels are as large as their image: every particle has a number and 0 is background, or
            0 and one other level, and every 4-connected component is a particle.
        dataset_id : str
            Name of the dataset; by default it follows from the content, so equal imports meet.
        pixel_size_nm : float or (float, float), optional
            Goes before the files' own.
        content_height_px : int
            Rows below are left out; 0 leaves out the data bars that are found in the images.
        validate_only : bool
            Check everything and keep nothing.

        Raises
        ------
        InvalidArgumentError
            Names what is wrong with each pair, all pairs at once.
        AlreadyExistsError
            The id belongs to other content.
        """
        dataset = trainer_pb.AnnotatedDataset(content_height_px=content_height_px)
        for image, labels in images:
            dataset.images.add(
                image=self._artifact(image, "trainer"), labels=self._artifact(labels, "trainer")
            )
        if pixel_size_nm is not None:
            both = pixel_size_nm if isinstance(pixel_size_nm, tuple) else (pixel_size_nm,) * 2
            dataset.pixel_size.x_nm, dataset.pixel_size.y_nm = both
        request = trainer_pb.ImportDatasetRequest(
            dataset=dataset, dataset_id=dataset_id, validate_only=validate_only
        )
        stub = trainer_grpc.TrainerServiceStub(self.channels.to("trainer"))
        return self._calls.call(stub.ImportDataset, request, "trainer", timeout_s=CREATE_TIMEOUT_S)

    def annotated_dataset(self, name: str) -> trainer_pb.AnnotatedDataset:
        """An annotated dataset by id or by resource name."""
        stub = trainer_grpc.TrainerServiceStub(self.channels.to("trainer"))
        request = trainer_pb.GetAnnotatedDatasetRequest(name=names.annotated(name))
        return self._calls.call(stub.GetAnnotatedDataset, request, "trainer")

    def annotated_datasets(self) -> list[trainer_pb.AnnotatedDataset]:
        """All annotated datasets, without their images."""
        stub = trainer_grpc.TrainerServiceStub(self.channels.to("trainer"))
        request = trainer_pb.ListAnnotatedDatasetsRequest()
        pages = self._calls.pages(stub.ListAnnotatedDatasets, request, "trainer")
        return [dataset for page in pages for dataset in page.datasets]

    def datasets(self) -> list[render_pb.Dataset]:
        """All rendered datasets."""
        stub = render_grpc.RenderServiceStub(self.channels.to("render"))
        pages = self._calls.pages(stub.ListDatasets, render_pb.ListDatasetsRequest(), "render")
        return [dataset for page in pages for dataset in page.datasets]

    def cross_validate(
        self,
        dataset: str,
        *,
        folds: int = 0,
        config: trainer_pb.TrainingConfig | None = None,
    ) -> Job[trainer_pb.CrossValidation]:
        """Train once for every fold of an annotated dataset and score the images left out (M19).

        Parameters
        ----------
        dataset : str
            Id or resource name of an annotated dataset.
        folds : int
            0 leaves out one image at a time.
        config : TrainingConfig, optional
            Settings of every fold; its `datasets` name what is trained on besides.
        """
        message = trainer_pb.CrossValidation(
            dataset=names.annotated(dataset), folds=folds, config=config
        )
        request = trainer_pb.CrossValidateRequest(cross_validation=message)
        stub = trainer_grpc.TrainerServiceStub(self.channels.to("trainer"))
        return self._calls.job(stub.CrossValidate, request, trainer_pb.CrossValidation, "trainer")

    def cross_validation(self, name: str) -> trainer_pb.CrossValidation:
        """A finished cross-validation by id or by resource name."""
        stub = trainer_grpc.TrainerServiceStub(self.channels.to("trainer"))
        request = trainer_pb.GetCrossValidationRequest(name=names.cross_validation(name))
        return self._calls.call(stub.GetCrossValidation, request, "trainer")
