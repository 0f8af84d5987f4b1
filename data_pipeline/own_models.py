"""The models that a user may put in the place of ours: names on a hub, or files and folders of their own.

What is in such a file counts for the digest of a measurement, not where it lies; a path is absolute, because
workers run elsewhere.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from data_pipeline.config_file import Section


class InsightFaceConfig(Section):
    """The models of `faces.backend=insightface`."""

    pack: str = Field("buffalo_l", description="a pack of its zoo, or a folder with an absolute path")
    root: str = Field("~/.insightface", description="packs are in its folder models/")

    @model_validator(mode="after")
    def _absolute(self) -> "InsightFaceConfig":
        for folder in (self.root, *([self.pack] if "/" in self.pack else [])):
            if not folder.startswith(("/", "~")):
                raise ValueError(f"give the folder {folder!r} with its absolute path: workers run elsewhere")
        return self


class WhisperXConfig(Section):
    """The models of `speech.backend=whisperx`. Each is a name on a hub, or a folder with an absolute path."""

    model: str = Field("large-v3", description="Whisper, as files of CTranslate2 where it is a folder")
    align_models: dict[str, str] = Field(
        {"en": "default"},
        description="by language; `default` is WhisperX's own; a language without one has no word times",
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compute_type: str = Field("default", description="CTranslate2's: int8, float16, float32, ...")

    def content(self) -> dict[str, Any]:
        """What a measurement depends on: of folders what is in their files, not where they lie.

        Raises WeightsUnavailable where a folder is not on this machine."""
        aligners = {language: _content(name) for language, name in self.align_models.items()}
        given = {"device": self.device, "compute_type": self.compute_type}
        return given | {"model": _content(self.model), "align_models": aligners}

    @model_validator(mode="after")
    def _absolute(self) -> "WhisperXConfig":
        for name in (self.model, *self.align_models.values()):
            if name.startswith("."):
                raise ValueError(f"give the folder {name!r} with its absolute path: workers run elsewhere")
        return self


def _content(model: str) -> str:
    """Of a folder the digest of what is in it; of a name the name."""
    from data_pipeline import weights

    return weights.digest_of_folder(Path(model).expanduser()) if model.startswith(("/", "~")) else model


class SyncNetConfig(Section):
    """The network of `sync.backend=syncnet`."""

    weights: str | None = Field(
        None, description="a state dict of your own, with an absolute path; null: the published one"
    )

    @model_validator(mode="after")
    def _absolute(self) -> "SyncNetConfig":
        if self.weights is not None and not self.weights.startswith(("/", "~")):
            raise ValueError(f"give the file {self.weights!r} with its absolute path: workers run elsewhere")
        return self
