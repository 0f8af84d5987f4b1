"""CSIM: is the person in the video the one in the portrait?

    portrait, every k-th frame -> its face -> identity embedding, of length 1
    value of a clip: mean over these frames of the cosine between frame and portrait, -1 ... 1

Cosine similarity of ArcFace embeddings (Deng et al., CVPR 2019), as papers on talking heads report it since
Zakharov et al., ICCV 2019. Only insightface's networks give `csim`; the embedded one gives `csim-dlib`, of
which other people have 0.8 and more: compare it with itself only.
"""

from collections.abc import Mapping

import numpy as np

from data_pipeline import weights
from data_pipeline.config import FacesConfig
from data_pipeline.models import insightface_pack
from data_pipeline.models.detections import Detections, iou
from data_pipeline.models.embedded_faces import WEIGHTS as EMBEDDED
from data_pipeline.models.face_models import FaceModels, face_models
from evaluation.metrics.mean_of_clips import MeanOfClips
from evaluation.metrics.metric import CannotScore, Found, SeenClip

NAMES = {"insightface": "csim", "embedded": "csim-dlib"}
EVERY = 10
MIN_IOU = 0.3
"""Of a detection with the speaker's box, to be the speaker's face."""


class Csim(MeanOfClips):
    """`csim`, or `csim-dlib`; higher is better."""

    def __init__(self, config: FacesConfig, every: int = EVERY) -> None:
        """`every`: of so many frames the first is compared. Raises WeightsUnavailable where the pack of
        insightface is not here."""
        super().__init__([NAMES[config.backend]])
        self._config, self._every = config, every
        self.protocol: Mapping[str, object] = {
            "every": every,
            "networks": _networks(config),
            "detector_px": config.detector_px,
            "detector_threshold": config.detector_threshold,
        }

    def setup(self) -> None:
        self._models: FaceModels = face_models(self._config)

    def measure(self, clip: SeenClip) -> Found:
        """Frames without a clear face do not count. Raises CannotScore where the portrait, or every frame,
        is without one."""
        person = self._who(clip.reference, None)
        if person is None:
            raise CannotScore(
                f"{clip.name}: the reference shows no face, with which frames could be compared"
            )
        cosines = []
        for number in range(0, len(clip.frames), self._every):
            if not clip.seen[number]:
                continue
            who = self._who(clip.frames[number], clip.boxes[number])
            if who is not None:
                cosines.append(float(person @ who))
        if not cosines:
            raise CannotScore(f"{clip.name}: none of every {self._every} frames shows a clear face")
        return Found({self.names[0]: float(np.mean(cosines))})

    def _who(self, image: np.ndarray, box: np.ndarray | None) -> np.ndarray | None:
        """(D,) of length 1: the person in `box`, or the largest; None where there is no clear face."""
        found = self._models.detect(image)
        place = _largest(found) if box is None else _nearest(found, box)
        if place is None:
            return None
        face = self._models.fit(image, found.boxes[place], found.points[place])
        if not face.fits:
            return None
        embedding = self._models.embed(image, face).astype(np.float64)
        return embedding / np.linalg.norm(embedding)


def _networks(config: FacesConfig) -> dict[str, str]:
    """{name: sha256} of what finds faces and tells people apart."""
    if config.backend == "insightface":
        pack = insightface_pack.find(config.insightface)
        return {pack.name: weights.digest_of_folder(pack.folder)}
    return weights.digests_of(EMBEDDED)


def _largest(found: Detections) -> int | None:
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    return int(sides.prod(axis=1).argmax()) if len(found) else None


def _nearest(found: Detections, box: np.ndarray) -> int | None:
    overlaps = [iou(other, box) for other in found.boxes]
    return int(np.argmax(overlaps)) if overlaps and max(overlaps) >= MIN_IOU else None
