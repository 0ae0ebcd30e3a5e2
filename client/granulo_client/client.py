# SPDX-License-Identifier: Apache-2.0
"""The typed client: one method per thing that Granulo does."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from granulo.analyzer.v1 import analyzer_service_pb2 as analyzer_pb
from granulo.analyzer.v1 import analyzer_service_pb2_grpc as analyzer_grpc
from granulo.render.v1 import recipe_pb2
from granulo.render.v1 import render_service_pb2 as render_pb
from granulo.render.v1 import render_service_pb2_grpc as render_grpc
from granulo.segmenter.v1 import segmenter_service_pb2 as segmenter_pb
from granulo.segmenter.v1 import segmenter_service_pb2_grpc as segmenter_grpc
from granulo.trainer.v1 import trainer_service_pb2 as trainer_pb
from granulo.trainer.v1 import trainer_service_pb2_grpc as trainer_grpc
from granulo_client import names
from granulo_client.annotated import AnnotatedData
from granulo_client.connection import PixelSizeNm, Source, pixel_size_message
from granulo_client.images import ImageCalls
from granulo_client.jobs import Job
from granulo_client.meshes import upload_meshes
from granulo_client.realism import RealismCalls
from granulo_client.registry import ModelRegistry
from granulo_client.screening import ScreeningCalls

_EVALUATE_TIMEOUT_S = 3600.0


class Client(AnnotatedData, ImageCalls, ModelRegistry, RealismCalls, ScreeningCalls):
    """Talks to Granulo's services; use it as a context manager, see `Connection`.

    Examples
    --------
    >>> with Client("127.0.0.1:50050") as client:
    ...     dataset = client.render("sio2", count=32, seed=1).result()
    ...     print(dataset.name, dataset.particle_count)
    """

    # Render ---------------------------------------------------------------------------------

    def presets(self) -> list[render_pb.Preset]:
        """Recipes that the renderer knows by name."""
        stub = render_grpc.RenderServiceStub(self.channels.to("render"))
        return [
            preset
            for page in self._calls.pages(
                stub.ListPresets, render_pb.ListPresetsRequest(), "render"
            )
            for preset in page.presets
        ]

    def render(
        self,
        source: str | recipe_pb2.Recipe,
        *,
        count: int,
        seed: int = 0,
        size_px: int = 0,
        dataset_id: str = "",
    ) -> Job[render_pb.Dataset]:
        """Render a dataset.

        Parameters
        ----------
        source : str or Recipe
            A preset's name or a recipe (`granulo_client.load_recipe` reads one from YAML). Mesh
            files that a recipe names are uploaded.
        count : int
            Number of scenes.
        seed : int
            Equal seeds give equal bytes.
        size_px : int
            Side of the images and labels; 0 takes the recipe's.
        dataset_id : str
            Name of the dataset; by default it follows from the request, so equal requests meet.
        """
        dataset = render_pb.Dataset(
            image_count=count, seed=seed, size_px=size_px, **self._recipe(source)
        )
        request = render_pb.CreateDatasetRequest(dataset=dataset, dataset_id=dataset_id)
        stub = render_grpc.RenderServiceStub(self.channels.to("render"))
        return self._calls.job(stub.CreateDataset, request, render_pb.Dataset, "render")

    def check_recipe(self, source: str | recipe_pb2.Recipe) -> recipe_pb2.Recipe:
        """A recipe with its defaults written out; renders nothing.

        Raises
        ------
        InvalidArgumentError
            Names every unusable field.
        """
        request = render_pb.CheckRecipeRequest(**self._recipe(source))
        stub = render_grpc.RenderServiceStub(self.channels.to("render"))
        return self._calls.call(stub.CheckRecipe, request, "render").recipe

    def preview(
        self,
        source: str | recipe_pb2.Recipe,
        *,
        frames: int = 1,
        seed: int = 0,
        size_px: int = 0,
        sheet: bool = False,
    ) -> Iterator[render_pb.PreviewRecipeResponse]:
        """Render a few small frames, one by one; nothing is stored.

        Parameters
        ----------
        source : str or Recipe
            As for `render`.
        frames : int
            1 to 4.
        seed : int
            Equal seeds give equal frames.
        size_px : int
            At most 512; 0 means 256.
        sheet : bool
            End with a message that holds only a contact sheet of all frames.
        """
        request = render_pb.PreviewRecipeRequest(
            frame_count=frames, seed=seed, size_px=size_px, sheet=sheet, **self._recipe(source)
        )
        stub = render_grpc.RenderServiceStub(self.channels.to("render"))
        return self._calls.stream(stub.PreviewRecipe, request, "render")

    def compare_recipe(
        self,
        source: str | recipe_pb2.Recipe,
        references: Sequence[Source],
        *,
        frames: int = 0,
        seed: int = 0,
        size_px: int = 0,
        profile: render_pb.ProfileLine | None = None,
    ) -> Iterator[render_pb.CompareRecipeResponse]:
        """Compare rendered frames with reference micrographs; nothing is stored.

        Parameters
        ----------
        source : str or Recipe
            As for `render`.
        references : sequence of Source
            1 to 32 micrographs.
        frames : int
            1 to 16; 0 means 4.
        seed : int
            Equal seeds give equal frames.
        size_px : int
            At most 1024; 0 means 512.
        profile : ProfileLine, optional
            Line of the intensity profile; by default the horizontal middle line.

        Returns
        -------
        iterator of CompareRecipeResponse
            Progress; only the last one has the comparison.
        """
        request = render_pb.CompareRecipeRequest(
            references=[self._artifact(item, "render") for item in references],
            frame_count=frames,
            seed=seed,
            size_px=size_px,
            profile=profile,
            **self._recipe(source),
        )
        stub = render_grpc.RenderServiceStub(self.channels.to("render"))
        return self._calls.stream(stub.CompareRecipe, request, "render")

    def dataset(self, name: str) -> render_pb.Dataset:
        """A dataset by id or by resource name."""
        stub = render_grpc.RenderServiceStub(self.channels.to("render"))
        request = render_pb.GetDatasetRequest(name=names.dataset(name))
        return self._calls.call(stub.GetDataset, request, "render")

    # Train ----------------------------------------------------------------------------------

    def train(
        self,
        datasets: Sequence[str],
        *,
        model: str,
        preset: str = "",
        epochs: int = 0,
        steps_per_epoch: int = 0,
        batch_size: int = 0,
        patch_px: int = 0,
        learning_rate: float = 0.0,
        seed: int = 0,
        validation: Sequence[tuple[Source, Source | None]] = (),
        weights: Mapping[str, float] | None = None,
        max_steps: int = 0,
        max_minutes: float = 0.0,
        early_stopping_epochs: int = 0,
        precision: str = "",
        deterministic: bool = False,
        base_version: str = "",
        width: float = 0.0,
    ) -> Job[trainer_pb.ModelVersion]:
        """Train one version of a model; zero or empty takes the preset's value.

        Parameters
        ----------
        datasets : sequence of str
            Ids of rendered datasets, or resource names of rendered and annotated ones.
        model : str
            Name of the model; it is created on first use.
        preset : str
            ``small``, ``base`` or ``paper``; by default that of the base version, else ``small``.
        validation : sequence of (image, labels or None)
            Micrographs that are predicted after every epoch and never trained on.
        weights : mapping of str to float, optional
            Share of the patches by dataset, relative to the others; 1 for those that are not named.
            By default in proportion to the datasets' numbers of images.
        max_steps, max_minutes : int, float
            Ends before the last epoch, whichever comes first.
        early_stopping_epochs : int
            Ends after so many epochs in a row without a better figure; 0 never.
        precision : str
            ``auto`` (default), ``float32``, ``mixed_bfloat16`` or ``mixed_float16``.
        deterministic : bool
            Bit by bit the same weights every time, interrupted or not; slower.
        base_version : str
            ``{model}`` (its promoted version) or ``{model}/{version}`` of the same network, whose
            weights are the first ones.
        width : float
            Factor on the numbers of feature maps; by default that of the base version, else 1.
        """
        images = []
        for image, labels in validation:
            item = trainer_pb.ValidationImage(image=self._artifact(image, "trainer"))
            if labels is not None:
                item.labels.CopyFrom(self._artifact(labels, "trainer"))
            images.append(item)
        config = trainer_pb.TrainingConfig(
            datasets=[names.dataset(name) for name in datasets],
            preset=preset,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
            batch_size=batch_size,
            patch_px=patch_px,
            learning_rate=learning_rate,
            seed=seed,
            validation=images,
            weights={names.dataset(name): weight for name, weight in (weights or {}).items()},
            max_steps=max_steps,
            max_minutes=max_minutes,
            early_stopping_epochs=early_stopping_epochs,
            precision=precision,
            deterministic=deterministic,
            base_version=names.model_or_version(base_version) if base_version else "",
            width=width,
        )
        request = trainer_pb.CreateModelVersionRequest(
            parent=names.model(model), model_version=trainer_pb.ModelVersion(config=config)
        )
        stub = trainer_grpc.TrainerServiceStub(self.channels.to("trainer"))
        return self._calls.job(stub.CreateModelVersion, request, trainer_pb.ModelVersion, "trainer")

    # Segment --------------------------------------------------------------------------------

    def segment(
        self,
        source: Sequence[Source] | str,
        *,
        model: str = "",
        method: str = "default",
        pixel_size_nm: PixelSizeNm | None = None,
        options: segmenter_pb.SegmentationOptions | None = None,
        outputs: segmenter_pb.SegmentationOutputs | None = None,
    ) -> Job[segmenter_pb.Segmentation]:
        """Segment micrographs.

        Parameters
        ----------
        source : sequence of Source, or str
            Images, or one dataset's name.
        model : str
            ``{model}`` (its promoted version) or ``{model}/{version}``; empty means ``default``.
        method : str
            ``default`` or ``paper``; goes before the method in ``options``.
        pixel_size_nm : float or (float, float), optional
            Goes before the files' own.
        options : SegmentationOptions, optional
            Further settings.
        outputs : SegmentationOutputs, optional
            Files beside labels, particle table and overlay.
        """
        segmentation = segmenter_pb.Segmentation(
            model=names.model_or_version(model) if model else ""
        )
        if options is not None:
            segmentation.options.CopyFrom(options)
        segmentation.options.method = names.method(method)
        if outputs is not None:
            segmentation.outputs.CopyFrom(outputs)
        if isinstance(source, str):
            segmentation.dataset = names.dataset(source)
        else:
            segmentation.images.images.extend(self._artifact(item, "segmenter") for item in source)
            if pixel_size_nm is not None:
                segmentation.images.pixel_size.CopyFrom(pixel_size_message(pixel_size_nm))
        request = segmenter_pb.CreateSegmentationRequest(segmentation=segmentation)
        stub = segmenter_grpc.SegmenterServiceStub(self.channels.to("segmenter"))
        return self._calls.job(
            stub.CreateSegmentation, request, segmenter_pb.Segmentation, "segmenter"
        )

    def segmentation(self, name: str) -> segmenter_pb.Segmentation:
        """A segmentation by its resource name, ``segmentations/{segmentation}``."""
        stub = segmenter_grpc.SegmenterServiceStub(self.channels.to("segmenter"))
        request = segmenter_pb.GetSegmentationRequest(name=name)
        return self._calls.call(stub.GetSegmentation, request, "segmenter")

    # Analyse --------------------------------------------------------------------------------

    def analyze(
        self,
        source: Sequence[tuple[Source, Source | None]] | str,
        *,
        pixel_size_nm: PixelSizeNm | None = None,
        settings: analyzer_pb.AnalysisSettings | None = None,
        particles: Sequence[Source | None] = (),
        amodal: Sequence[Source | None] = (),
    ) -> Job[analyzer_pb.Analysis]:
        """Measure the particles of label images.

        Parameters
        ----------
        source : sequence of (labels, image or None), or str
            Label images with their micrographs, or one segmentation's name.
        pixel_size_nm : float or (float, float), optional
            Goes before the files' own; not with a segmentation, which carries its own.
        settings : AnalysisSettings, optional
            How particles are counted and what is stated.
        particles : sequence of Source or None, optional
            The particle table of every label image, as segmenter and renderer write it, with the
            confidence or the visible fraction.
        amodal : sequence of Source or None, optional
            The whole particles of every label image, hidden parts included, as the renderer writes
            them.
        """
        analysis = analyzer_pb.Analysis(settings=settings)
        if isinstance(source, str):
            analysis.segmentation = source
        else:
            for labels, image in source:
                item = analysis.label_set.items.add(labels=self._artifact(labels, "analyzer"))
                if image is not None:
                    item.image.CopyFrom(self._artifact(image, "analyzer"))
            for name, files in (("particles", particles), ("amodal", amodal)):
                for item, file in zip(analysis.label_set.items, files, strict=False):
                    if file is not None:
                        getattr(item, name).CopyFrom(self._artifact(file, "analyzer"))
            if pixel_size_nm is not None:
                analysis.label_set.pixel_size.CopyFrom(pixel_size_message(pixel_size_nm))
        request = analyzer_pb.CreateAnalysisRequest(analysis=analysis)
        stub = analyzer_grpc.AnalyzerServiceStub(self.channels.to("analyzer"))
        return self._calls.job(stub.CreateAnalysis, request, analyzer_pb.Analysis, "analyzer")

    def particles(self, analysis: str) -> Iterator[analyzer_pb.Particle]:
        """Rows of an analysis' particle table."""
        stub = analyzer_grpc.AnalyzerServiceStub(self.channels.to("analyzer"))
        request = analyzer_pb.ListParticlesRequest(parent=analysis, page_size=1000)
        for page in self._calls.pages(stub.ListParticles, request, "analyzer"):
            yield from page.particles

    def evaluate(
        self, pairs: Sequence[analyzer_pb.EvaluationPair]
    ) -> analyzer_pb.EvaluateSegmentationResponse:
        """Compare predicted with true labels.

        Parameters
        ----------
        pairs : sequence of EvaluationPair
            Their artifacts come from resources or from `upload`.
        """
        stub = analyzer_grpc.AnalyzerServiceStub(self.channels.to("analyzer"))
        request = analyzer_pb.EvaluateSegmentationRequest(pairs=pairs)
        return self._calls.call(
            stub.EvaluateSegmentation, request, "analyzer", timeout_s=_EVALUATE_TIMEOUT_S
        )

    # ----------------------------------------------------------------------------------------

    def _recipe(self, source: str | recipe_pb2.Recipe) -> dict[str, Any]:
        """The field of a request that says what to render."""
        if isinstance(source, str):
            return {"preset": source}
        return {"recipe": upload_meshes(source, lambda path: self.upload(path, "render"))}
