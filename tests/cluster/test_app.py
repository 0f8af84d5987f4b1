"""What `hallo3 app` cannot use is said before a model is loaded."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import cli
from tests.evaluation.certificates import Authority, ec_key, key_pem


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def app(checkpoint: Path, *more: object) -> int:
    return cli.main(["app", "--checkpoint", str(checkpoint), *map(str, more)])


def test_a_port_that_is_in_use_is_named(taken, tmp_path, capsys) -> None:
    assert app(tmp_path, "--port", taken) == 2
    assert f"--host 127.0.0.1 --port {taken}: Address already in use" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--host", "nobody.invalid"), "--host nobody.invalid --port 7860: "),
        (("--host", "192.0.2.1"), "--host 192.0.2.1 --port 7860: "),
        (("--port", "70000"), "--port 70000: "),
    ],
)
def test_an_address_that_is_not_this_machine_s_is_named(more, words, tmp_path, capsys) -> None:
    assert app(tmp_path, *more) == 2
    assert words in capsys.readouterr().err


def test_a_checkpoint_or_a_key_that_is_none_is_named(tmp_path, capsys) -> None:
    assert app(tmp_path / "nowhere") == 2
    assert f"{tmp_path / 'nowhere'}: no such file or folder" in capsys.readouterr().err
    (tmp_path / "cert.pem").write_bytes(Authority.make().issue(ec_key()))
    (tmp_path / "key.pem").write_bytes(key_pem(ec_key()))
    pems = tmp_path / "cert.pem", tmp_path / "key.pem"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert app(tmp_path, "--port", port, "--credentials", *pems) == 2
    assert "key.pem: does not fit" in capsys.readouterr().err
