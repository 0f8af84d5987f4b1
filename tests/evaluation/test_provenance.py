"""A signed video says what it is and of what, plays as before, and shows that it was changed."""

import hashlib
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import c2pa
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cluster import cli
from data_pipeline.media import probe
from evaluation.animator import Animator, Take, digest_of_files
from evaluation.provenance import GENERATED, GENERATION, SETTINGS, Credentials, CredentialsError
from tests.evaluation.certificates import Authority, ec_key, key_pem, rsa_key, write_credentials
from tests.evaluation.checkpoints import write_export
from tests.evaluation.test_animator import QUICK, pictures, tone
from tests.evaluation.test_picture import astronaut
from training.clip_file import write_clip


@dataclass(frozen=True)
class Read:
    state: str
    manifest: dict[str, Any]
    n_manifests: int

    def assertion(self, label: str) -> dict[str, Any]:
        (found,) = (each["data"] for each in self.manifest["assertions"] if each["label"] == label)
        return found


def read(content: bytes, trusted: Authority | None = None) -> Read:
    """As a program reads that knows this authority, or none."""
    trust = {} if trusted is None else {"trust": {"trust_anchors": trusted.pem}}
    context = c2pa.Context.from_dict(SETTINGS | trust)
    with c2pa.Reader("video/mp4", io.BytesIO(content), context=context) as reader:
        store = json.loads(reader.json())
        manifest = store["manifests"][store["active_manifest"]]
        return Read(reader.get_validation_state(), manifest, len(store["manifests"]))


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.make()


@pytest.fixture(scope="module")
def credentials(tmp_path_factory, authority) -> tuple[Path, Path]:
    return write_credentials(tmp_path_factory.mktemp("credentials"), authority, ec_key())


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_export(tmp_path_factory.mktemp("model") / "export")


@pytest.fixture(scope="module")
def take(tmp_path_factory) -> Take:
    folder = tmp_path_factory.mktemp("inputs")
    astronaut().save(folder / "face.png")
    return Take(folder / "face.png", tone(folder / "voice.wav", 0.5), folder / "talk.mp4", seed=4)


@pytest.fixture(scope="module")
def signed(model, take, credentials) -> Path:
    Animator.load(model, QUICK, credentials=Credentials.read(*credentials)).animate(take)
    return take.output


def test_a_signed_video_says_that_it_is_generated_by_what_and_from_what(
    signed, model, take, authority
) -> None:
    found = read(signed.read_bytes(), authority)
    assert found.state == "Trusted"
    assert found.manifest["title"] == "talk.mp4"
    assert found.manifest["claim_generator_info"][0]["name"] == "hallo3"
    (created,) = found.assertion("c2pa.actions.v2")["actions"]
    assert (created["action"], created["digitalSourceType"]) == ("c2pa.created", GENERATED)
    assert created["softwareAgent"]["name"] == "hallo3"
    assert len(created["parameters"]["ingredients"]) == 2
    inputs = [(each["title"], each["relationship"]) for each in found.manifest["ingredients"]]
    assert inputs == [("image", "inputTo"), ("audio", "inputTo")]
    told = found.assertion(GENERATION)
    assert told["checkpoint"] == digest_of_files(model)
    for kind, path in (("image", take.image), ("audio", take.audio)):
        assert told[kind] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert told["seed"] == 4
    by_us = {each["label"] for each in found.manifest["assertions"] if each.get("created")}
    assert {"c2pa.actions.v2", GENERATION} <= by_us


def test_whoever_does_not_know_the_authority_can_still_check_that_nothing_was_changed(signed) -> None:
    assert read(signed.read_bytes()).state == "Valid"


def test_a_signed_video_has_the_same_pictures_sound_and_comment_as_one_that_is_not(
    signed, model, take, tmp_path
) -> None:
    plain = tmp_path / "plain.mp4"
    Animator.load(model, QUICK).animate(Take(take.image, take.audio, plain, seed=4))
    assert len(pictures(signed)) == len(pictures(plain)) == 13
    for kind in ("video", "audio"):
        packets = []
        for path in (signed, plain):
            with av.open(str(path)) as file:
                (stream,) = getattr(file.streams, kind)
                packets.append([(bytes(each), each.pts) for each in file.demux(stream)])
        assert packets[0] == packets[1]
    with av.open(str(signed)) as file, av.open(str(plain)) as other:
        assert json.loads(file.metadata["comment"]) == json.loads(other.metadata["comment"])
    assert probe(signed).audio is not None
    with pytest.raises(c2pa.C2paError.ManifestNotFound):
        read(plain.read_bytes())


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_one_changed_byte_shows(signed, share, authority) -> None:
    content = bytearray(signed.read_bytes())
    content[int(share * len(content))] ^= 1
    assert read(bytes(content), authority).state == "Invalid"


def test_in_a_longer_video_which_is_hashed_in_pieces_too(credentials, authority, tmp_path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (8, 480, 720, 3), dtype=np.uint8)
    write_clip(tmp_path / "plain.mp4", [noise], 25)
    Credentials.read(*credentials).sign(tmp_path / "plain.mp4", tmp_path / "out.mp4", "out.mp4", {}, {})
    whole = (tmp_path / "out.mp4").read_bytes()
    assert len(whole) > 1.5 * 2**20
    assert read(whole, authority).state == "Trusted"
    for place in (len(whole) // 3, len(whole) - 1):
        content = bytearray(whole)
        content[place] ^= 1
        assert read(bytes(content), authority).state == "Invalid"


def test_credentials_of_an_input_come_along_and_broken_ones_do_not_hurt(
    signed, credentials, authority, tmp_path
) -> None:
    video = tmp_path / "plain.mp4"
    write_clip(video, [astronaut_frame()], 25)
    changed = bytearray(signed.read_bytes())
    changed[-100] ^= 1
    (tmp_path / "changed.mp4").write_bytes(changed)
    for name, path, manifests in (("whole", signed, 2), ("changed", tmp_path / "changed.mp4", 2)):
        out = tmp_path / f"{name}-signed.mp4"
        Credentials.read(*credentials).sign(video, out, "talk.mp4", {"generated": True}, {"audio": path})
        found = read(out.read_bytes(), authority)
        assert (found.state, found.n_manifests) == ("Trusted", manifests)


@pytest.mark.parametrize("name", ["a.ogg", "a.bmp", "a.unheard_of", "a.png", "a.mp4"])
def test_an_input_of_any_form_can_be_named(name, credentials, authority, tmp_path) -> None:
    (tmp_path / name).write_bytes(b"what C2PA cannot read")
    video = tmp_path / "plain.mp4"
    write_clip(video, [astronaut_frame()], 25)
    inputs = {"image": tmp_path / name}
    Credentials.read(*credentials).sign(video, tmp_path / "out.mp4", "talk.mp4", {}, inputs)
    found = read((tmp_path / "out.mp4").read_bytes(), authority)
    assert (found.state, found.manifest["ingredients"][0]["title"]) == ("Trusted", "image")


def astronaut_frame() -> np.ndarray:
    return np.asarray(astronaut().resize((64, 64)))[None]


@pytest.mark.parametrize(
    ("make", "algorithm"),
    [
        (ec_key, "es256"),
        (lambda: ec_key(ec.SECP384R1()), "es384"),
        (lambda: ec_key(ec.SECP521R1()), "es512"),
        (rsa_key, "ps256"),
    ],
)
def test_the_algorithm_is_the_key_s(make, algorithm, authority, tmp_path) -> None:
    given = Credentials.read(*write_credentials(tmp_path, authority, make()))
    assert (given.algorithm, given.signer) == (algorithm, "a newsroom")


def test_what_cannot_sign_is_refused_in_words_that_quote_no_key(authority, tmp_path) -> None:
    key, odd = ec_key(), ec_key(ec.SECP256K1())
    files = {
        "cert": authority.issue(key),
        "expired": authority.issue(key, -20, -10),
        "future": authority.issue(key, 5, 30),
        "server": authority.issue(key, for_mail=False),
        "turned": authority.pem.encode() + authority.issue(key),
        "key": key_pem(key),
        "other": key_pem(ec_key()),
        "locked": key_pem(key, b"secret"),
        "odd": key_pem(odd),
        "of odd": authority.issue(odd),
        "empty": b"",
    }
    paths = {name: tmp_path / f"{name}.pem" for name in files}
    for name, content in files.items():
        paths[name].write_bytes(content)
    paths["nowhere"] = tmp_path / "nowhere.pem"
    for certificate, private, words in (
        ("nowhere", "key", r"nowhere\.pem: No such file"),
        ("cert", "nowhere", r"nowhere\.pem: No such file"),
        ("empty", "key", r"empty\.pem: no certificates in PEM form"),
        ("key", "key", r"key\.pem: no certificates in PEM form"),
        ("cert", "cert", r"cert\.pem: no private key in PEM form"),
        ("cert", "locked", r"locked\.pem: is protected by a passphrase; take it off"),
        ("cert", "other", r"other\.pem: does not fit .*cert\.pem, which is of a newsroom"),
        ("turned", "key", r"turned\.pem: the key's certificate is number 2 in it; put it first"),
        ("expired", "key", r"expired\.pem: a newsroom has expired on 20"),
        ("future", "key", r"future\.pem: a newsroom is valid from 20"),
        ("of odd", "odd", r"odd\.pem: C2PA knows keys on P-256"),
        ("server", "key", r"server\.pem: cannot sign: .*certificate is invalid; C2PA takes"),
    ):
        with pytest.raises(CredentialsError, match=words) as error:
            Credentials.read(paths[certificate], paths[private])
        assert files["key"].decode().splitlines()[1] not in str(error.value)
    assert "PRIVATE" not in repr(Credentials.read(paths["cert"], paths["key"]))


def test_a_signature_that_is_refused_leaves_the_windows_and_no_video(
    model, take, credentials, authority, tmp_path
) -> None:
    good = Credentials.read(*credentials)
    expired = Credentials(authority.issue(ec_key(), -20, -10), good.key, good.algorithm, good.signer)
    new = Take(take.image, take.audio, tmp_path / "talk.mp4")
    with pytest.raises(CredentialsError, match="not valid at time of signing"):
        Animator.load(model, QUICK, credentials=expired).animate(new)
    assert not new.output.exists()
    heard: list[int] = []
    Animator.load(model, QUICK, credentials=good).animate(new, lambda made, of: heard.append(made))
    assert heard == [13]
    assert [path.name for path in tmp_path.iterdir()] == ["talk.mp4"]
    assert read(new.output.read_bytes(), authority).state == "Trusted"


def arguments(take: Take, checkpoint: Path, *more: str | Path) -> list[str]:
    flags = {
        "--image": take.image,
        "--audio": take.audio,
        "--output": take.output,
        "--checkpoint": checkpoint,
    }
    return ["animate", *(str(part) for flag in flags.items() for part in flag), *map(str, more)]


def test_credentials_are_looked_at_before_a_model_is(
    take, credentials, tmp_path, capsys, monkeypatch
) -> None:
    (tmp_path / "no_model").mkdir()
    given = arguments(take, tmp_path / "no_model", "--credentials", credentials[0], credentials[0])
    assert cli.main(given) == 2
    assert f"{credentials[0]}: no private key" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "c2pa", None)  # as where it is not installed
    given = arguments(take, tmp_path / "no_model", "--credentials", *credentials)
    assert cli.main(given) == 2
    assert "credentials need c2pa; pip install 'hallo3[provenance]'" in capsys.readouterr().err


def test_the_command_signs(take, model, credentials, authority, tmp_path) -> None:
    new = Take(take.image, take.audio, tmp_path / "talk.mp4")
    flags = ("--credentials", *credentials, "--steps", "2", "--guidance", "1", "--seconds", "0.2")
    assert cli.main(arguments(new, model, *flags)) == 0
    found = read(new.output.read_bytes(), authority)
    assert found.state == "Trusted"
    assert found.assertion(GENERATION)["seconds"] == 0.2
    assert len(pictures(new.output)) == 5
