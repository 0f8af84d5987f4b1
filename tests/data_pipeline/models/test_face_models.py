"""A face backend from its configuration, and who a picture shows."""

import numpy as np
import pytest

from data_pipeline.config import FacesConfig
from data_pipeline.models.face_models import NotOneFace, face_models, identity_of_picture
from data_pipeline.stages.faces import Faces
from tests.data_pipeline import face_media
from tests.data_pipeline.face_media import clip_of


def test_the_identity_of_a_picture_is_near_that_of_a_clip_of_the_same_person():
    config = FacesConfig()
    woman = face_media.astronaut()
    stage = Faces(config)
    stage.setup()
    clip = stage(clip_of([woman[:256, 96:352]] * 3))
    identity = identity_of_picture(woman, config)
    assert identity.shape == (128,)
    assert identity.dtype == np.float32
    assert np.linalg.norm(identity - clip.identity_embedding) < face_models(config).same_person_distance / 2


@pytest.mark.parametrize("cut", [np.s_[:256, 96:352], np.s_[40:200, 150:300], np.s_[60:170, 170:280]])
def test_a_picture_may_be_cut_as_tight_as_the_face(cut):
    config = FacesConfig()
    whole = identity_of_picture(face_media.astronaut(), config)
    identity = identity_of_picture(np.ascontiguousarray(face_media.astronaut()[cut]), config)
    assert np.linalg.norm(identity - whole) < face_models(config).same_person_distance


def test_a_picture_without_a_face_identifies_nobody():
    with pytest.raises(NotOneFace, match="no face in the picture of 320 x 240 px"):
        identity_of_picture(np.full((240, 320, 3), 120, np.uint8), FacesConfig())


def test_a_picture_of_several_people_identifies_nobody():
    with pytest.raises(NotOneFace, match="6 faces in the picture of 1280 x 886 px"):
        identity_of_picture(face_media.group(), FacesConfig())
