"""EvaluationConfig: everything that an evaluation depends on, typed, frozen and checked at the door.

Nothing heavy is imported here: a wrong key is told before torch is loaded.
"""

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from data_pipeline import config_file
from data_pipeline.config import FacesConfig, SyncConfig
from data_pipeline.config_file import Section
from evaluation.registry import check_metrics

PRESETS = Path(__file__).with_name("presets")

Format = Literal["auto", "dataset", "list", "hdtf", "celebv-hq", "celebv-text"]
PUBLISHED = ("hdtf", "celebv-hq", "celebv-text")


class BenchmarkConfig(Section):
    """Where items of (reference image, audio, ground-truth video) come from."""

    uri: str = Field(description="a dataset, a CSV or JSONL list, HDTF's folder, or CelebV's JSON file")
    format: Format = Field("auto", description="auto: a dataset's folder or a list")
    name: str | None = Field(None, pattern=r"^[\w.-]+$", description="in figures; None: that of the file")
    videos: str | None = Field(None, description="of a published list: the folder where your videos are")
    split: str = Field("test", description="of a dataset")
    version: int | None = Field(None, ge=1, description="of a dataset; None: the current one")
    items: str | None = Field(
        None, description="items.jsonl of another evaluation: these items and no others, unchanged"
    )
    max_items: int | None = Field(None, ge=1, description="the first so many, by the hash of their content")

    @model_validator(mode="after")
    def _possible(self) -> "BenchmarkConfig":
        if self.format in PUBLISHED and self.videos is None:
            raise ValueError(f"format {self.format} lists no files: give videos=FOLDER, where yours are")
        return self

    @property
    def title(self) -> str:
        """Its name in figures."""
        if self.name is not None:
            return self.name
        return self.format if self.format in PUBLISHED else re.sub(r"[^\w.-]+", "-", Path(self.uri).stem)


class ClipConfig(Section):
    """How videos are seen, generated and real ones alike."""

    width: int = Field(512, ge=16, le=4096, multiple_of=2, description="px into which they are fitted")
    height: int = Field(512, ge=16, le=4096, multiple_of=2)
    fps: int = Field(25, ge=10, le=60)
    max_s: float = Field(20.0, gt=0, description="from the beginning; what is longer is not looked at")


class SamplingConfig(Section):
    """How videos are generated; upstream's values."""

    seed: int = 0
    steps: int = Field(50, ge=1)
    guidance: float | None = Field(3.5, description="None: none, in half of the time")
    sampler: Literal["upstream", "clean"] = "upstream"
    size: tuple[int, int] | None = Field(None, description="height and width in px; None: as trained")
    skip_steps: float | None = Field(None, ge=0)


class GenerationConfig(Section):
    """What changes nothing of the videos, but where and how fast they are made."""

    workers: int | None = Field(None, ge=1, description="None: one a GPU, or one")
    workers_a_video: int = Field(1, ge=1)
    two_passes: bool = False
    tile: tuple[int, int] | None = None
    offload: bool = False
    encoders: list[str] = Field([], description="KEY=VALUE in place of what the checkpoint says")


class MetricsConfig(Section):
    """What is measured, and with which networks."""

    names: list[str] = Field([], description="empty: all; or MODULE:CLASS of your own")
    network: Literal["auto", "published", "stand-in"] = Field(
        "auto", description="of FID and FVD; auto: the published one where it is here"
    )
    sync: SyncConfig = Field(SyncConfig(), description="backend: syncnet, or lip_correlation without it")
    faces: FacesConfig = Field(FacesConfig(), description="of CSIM; backend: embedded, or insightface")

    @field_validator("names")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        check_metrics(names)
        return names


class EvaluationTracking(Section):
    """MLflow. Everything is under `output` either way."""

    uri: str | None = Field(None, description="None: MLFLOW_TRACKING_URI, else sqlite in OUTPUT/mlflow.db")
    experiment: str = "hallo3-evaluation"
    run_name: str | None = None
    model: str = Field("hallo3", description="the registered model, whose alias `champion` is moved")
    weights: bool = Field(False, description="send the checkpoint's weights as artifacts, too")
    enabled: bool = True


class EvaluationRayConfig(Section):
    """The actors that score, each with all metrics' networks."""

    scorers: int | None = Field(None, ge=1, description="None: as many as scorer_gpus or scorer_cpus let be")
    scorer_cpus: float = Field(1.0, gt=0)
    scorer_gpus: float | None = Field(
        None, ge=0, description="None: half a GPU, where there is one and device is not cpu"
    )
    object_store_gb: float = Field(0.3, gt=0, description="of a cluster that this command starts itself")


class EvaluationConfig(Section):
    """checkpoint + benchmark -> figures. These and `output` are the user's; the rest has defaults."""

    checkpoint: str | None = Field(None, description="a run, its export, or weights")
    benchmark: list[BenchmarkConfig] = Field(min_length=1, description="a URI, its section, or a list")
    output: str
    videos: str | None = Field(None, description="instead of a checkpoint: a folder of BENCHMARK/ITEM.mp4")
    metrics: MetricsConfig = Field(MetricsConfig(), description="its section, or its names alone")
    decoys: int = Field(3, ge=0, description="other items' speech, which a clip's own must beat")
    seed: int = Field(0, ge=0, description="of what is drawn, such as decoys")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    clip: ClipConfig = ClipConfig()
    sampling: SamplingConfig = SamplingConfig()
    generation: GenerationConfig = GenerationConfig()
    tracking: EvaluationTracking = EvaluationTracking()
    ray: EvaluationRayConfig = EvaluationRayConfig()
    cache: str | None = Field(
        None, description="where real clips and what was found in them are kept; None: OUTPUT/real"
    )
    shown: int = Field(4, ge=1, description="best and worst clips, each, that the report shows")
    watch_every_s: float = Field(30.0, ge=0, description="between two looks; 0: one look")

    @field_validator("output")
    @classmethod
    def _is_a_folder(cls, output: str) -> str:
        if "://" in output:
            raise ValueError(
                "is written by all workers at once: give a folder, one that they share on a cluster"
            )
        return output

    @field_validator("benchmark", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        """A URI, a section, or a list of either."""
        many = given if isinstance(given, list) else [given]
        return [{"uri": one} if isinstance(one, str) else one for one in many]

    @field_validator("metrics", mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        return {"names": given} if isinstance(given, list) else given

    @model_validator(mode="after")
    def _one_source(self) -> "EvaluationConfig":
        if self.checkpoint is not None and self.videos is not None:
            raise ValueError(
                f"checkpoint ({self.checkpoint}) makes videos and videos ({self.videos}) are there: give one"
            )
        titles = [one.title for one in self.benchmark]
        twice = next((title for title in titles if titles.count(title) > 1), None)
        if twice:
            raise ValueError(f"two benchmarks are called {twice}; give one of them another name")
        return self


def load_config(config: str, overrides: list[str]) -> EvaluationConfig:
    """The configuration of a preset or a YAML file, with `key=value` on top. Raises ConfigError."""
    return config_file.load(EvaluationConfig, PRESETS, config, overrides)
