"""The page in a real browser, from the upload to the video that plays; and what it gives to nobody."""

import json
import re
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import httpx
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from evaluation.animator import Animator
from evaluation.app import serving
from evaluation.provenance import Credentials
from tests.browser import Visit, chromium
from tests.evaluation.certificates import Authority, ec_key, write_credentials
from tests.evaluation.checkpoints import write_export
from tests.evaluation.test_animator import QUICK, tone
from tests.evaluation.test_picture import astronaut

HOST = "127.0.0.1"
SOON_MS = 60_000
expect.set_options(timeout=SOON_MS)
PLAYER = "#player video"
PLAYS = """
async () => {
  const video = document.querySelector("#player video");
  video.muted = true;
  await video.play();
  await new Promise((resolve) => video.addEventListener("ended", resolve, { once: true }));
  return [video.duration, video.currentTime, video.videoWidth, video.error];
}
"""


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind((HOST, 0))
        return trial.getsockname()[1]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    astronaut().save(folder / "my face.png")
    two = Image.new("RGB", (800, 512), "grey")
    two.paste(astronaut(), (0, 0))
    two.paste(astronaut().resize((256, 256)), (530, 100))
    two.save(folder / "two.png")
    Image.new("RGB", (64, 64), "grey").save(folder / "grey.png")
    (folder / "broken.jpg").write_text("no picture\n")
    (folder / "broken.wav").write_text("no sound\n")
    tone(folder / "voice.wav", 0.8)
    tone(folder / "long.wav", 8)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_export(tmp_path_factory.mktemp("model") / "export")


@pytest.fixture(scope="module")
def address(model, tmp_path_factory) -> Iterator[str]:
    """Of a page whose videos are signed."""
    pems = write_credentials(tmp_path_factory.mktemp("pems"), Authority.make(), ec_key())
    animator = Animator.load(model, QUICK, credentials=Credentials.read(*pems))
    with serving(animator, QUICK, 0, HOST, free_port(), "a newsroom") as page:
        yield page.address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@contextmanager
def visit(browser: Browser, address: str, width: int = 1280) -> Iterator[Visit]:
    """The page, opened; its requests are those that go elsewhere."""
    context = browser.new_context(viewport={"width": width, "height": 900})
    visited = Visit(context.new_page())

    def note(url: str) -> None:
        if not url.startswith((address, "data:", "blob:")):
            visited.requests.append(url)

    visited.page.on("request", lambda request: note(request.url))
    visited.page.on("pageerror", lambda error: visited.errors.append(str(error)))
    visited.page.on(
        "console", lambda message: visited.errors.append(message.text) if message.type == "error" else None
    )
    visited.page.set_default_timeout(SOON_MS)
    try:
        visited.page.goto(address)
        visited.page.wait_for_selector("#make")
        yield visited
    finally:
        context.close()


def give(page: Page, image: Path, audio: Path) -> None:
    page.set_input_files("#picture input[type=file]", image)
    page.wait_for_selector("#picture img")
    page.set_input_files("#voice input[type=file]", audio)
    page.wait_for_selector("#estimate p")


@pytest.mark.parametrize("width", [1280, pytest.param(400, marks=pytest.mark.slow)])
def test_a_picture_and_a_voice_become_a_video_that_plays(width, browser, address, files, tmp_path) -> None:
    with visit(browser, address, width) as visited:
        page = visited.page
        assert not page.is_visible(PLAYER)
        give(page, files / "my face.png", files / "voice.wav")
        assert page.inner_text("#estimate").startswith("20 frames (0.8 s): ")
        page.click("#make")
        page.wait_for_selector(".said.made")
        expect(page.locator("#status .said")).to_have_text(re.compile(r"20 frames, 0.8 s, made in \d+ s\."))
        page.wait_for_function("document.querySelector('#player video').readyState >= 2")
        duration, reached, width_px, error = page.evaluate(PLAYS)
        assert (duration, reached) == pytest.approx((0.8, 0.8), abs=0.05)
        assert (width_px, error) == (64, None)
        assert "is signed by a newsroom" in page.inner_text("footer")
        with page.expect_download() as download:
            page.click("#download")
        download.value.save_as(tmp_path / "talk.mp4")
        assert visited.requests == []
        assert visited.errors == []
        assert visited.overflow_px() <= 0
        ratio, text = visited.lowest_contrast()
        assert ratio >= 4.5, text
    with av.open(str(tmp_path / "talk.mp4")) as file:
        told = json.loads(file.metadata["comment"])
        assert (told["generated"], told["steps"], file.streams.video[0].frames) == (True, 2, 20)


def test_what_is_wrong_is_said_in_the_page_and_what_is_right_is_made_then(browser, address, files) -> None:
    with visit(browser, address) as visited:
        page = visited.page

        said = expect(page.locator("#status .said"))
        page.click("#make")
        said.to_have_text("There is no picture yet; give one.")
        give(page, files / "grey.png", files / "voice.wav")
        page.fill("#seconds input", "0.2")
        expect(page.locator("#estimate .said")).to_contain_text("5 frames (0.2 s)")
        page.click("#make")
        said.to_contain_text("grey.png: no face is seen in the picture of 64 x 64 px")
        assert page.get_attribute("#status .said", "role") == "alert"
        page.click("#picture [aria-label='Clear'], #picture [aria-label='Remove Image']")
        page.set_input_files("#picture input[type=file]", files / "two.png")
        page.wait_for_selector("#picture img")
        page.click("text=Advanced")
        page.fill("#steps input", "0")
        page.wait_for_selector("#estimate .failed")
        page.click("#make")
        said.to_have_text("steps: expected a number from 1 to 1000, got 0")
        page.fill("#steps input", "1")
        page.wait_for_selector("#estimate .estimate")
        page.click("#make")
        said.to_have_text(re.compile(r"5 frames, 0.2 s, made in .*two.png: 2 faces; the largest one speaks"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("image", "audio", "words"),
    [
        (
            "broken.jpg",
            "voice.wav",
            "broken.jpg: no image that can be read; give a JPEG, PNG, WebP or the like",
        ),
        ("my face.png", "broken.wav", "broken.wav: not media"),
    ],
)
def test_a_file_that_is_none_is_named(image, audio, words, browser, address, files) -> None:
    with visit(browser, address) as visited:
        visited.page.set_input_files("#picture input[type=file]", files / image)
        visited.page.set_input_files("#voice input[type=file]", files / audio)
        visited.page.wait_for_selector("#estimate p")
        visited.page.click("#make")
        expect(visited.page.locator("#status .said")).to_contain_text(words)


def asked(address: str, image: str) -> str:
    """All that the server answers to a page's click with this image, its own address for a picture."""
    session, api = uuid.uuid4().hex, f"{address}gradio_api"
    config = httpx.get(f"{address}config").json()
    click = next(each for each in config["dependencies"] if len(each["inputs"]) == 7)
    upload = {"path": image, "meta": {"_type": "gradio.FileData"}, "orig_name": "a.png"}
    data = [upload, None, "", 0, 0, 2, 1]
    call = {"data": data, "fn_index": click["id"], "session_hash": session, "trigger_id": None}
    httpx.post(f"{api}/queue/join", json=call, timeout=30).raise_for_status()
    answer = ""
    with httpx.stream("GET", f"{api}/queue/data", params={"session_hash": session}, timeout=30) as stream:
        for line in stream.iter_lines():
            answer += line
            if "process_completed" in line:
                return answer
    return answer


def refused(answer: str) -> bool:
    assert "process_completed" in answer
    return '"success":false' in answer.replace(" ", "")


def test_no_file_of_this_machine_comes_through_the_page(address, files, model, tmp_path) -> None:
    with (files / "grey.png").open("rb") as picture:
        (uploaded,) = httpx.post(f"{address}gradio_api/upload", files={"files": picture}).json()
    assert httpx.get(f"{address}gradio_api/file={uploaded}").status_code == 200
    answer = asked(address, uploaded)
    assert not refused(answer)
    assert "There is no voice yet" in answer
    (tmp_path / "drawing.svg").write_text("<svg/>")
    for path in (files / "grey.png", model / "config.json", tmp_path / "drawing.svg", Path("/etc/passwd")):
        for name in (str(path), f"/..{path}", str(path).replace("/", "%2F")):
            assert httpx.get(f"{address}gradio_api/file={name}").status_code in (403, 404), name
        assert refused(asked(address, str(path)))
        assert httpx.get(f"{address}gradio_api/file={path}").status_code == 403


def test_the_server_fetches_nothing_for_a_page(address) -> None:
    with socket.create_server((HOST, 0)) as elsewhere:
        elsewhere.settimeout(0.5)
        url = f"http://{HOST}:{elsewhere.getsockname()[1]}/a.png"
        for way in ("file=", "file/", "FILE=", "proxy="):
            assert httpx.get(f"{address}gradio_api/{way}{url}").status_code in (403, 404), way
        assert httpx.get(f"{address}gradio_api/file=https://example.org/a.png").status_code == 403
        assert refused(asked(address, url))
        assert refused(asked(address, "https://example.org/a.png"))
        with pytest.raises(TimeoutError):
            elsewhere.accept()
    policy = httpx.get(address).headers["content-security-policy"]
    assert policy.startswith("default-src 'self' ")


def app(model: Path, port: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "cluster.cli", "app", "--checkpoint", str(model), "--port", str(port)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*command, "--guidance", "1", "--steps", "500"], **pipes)  # type: ignore[call-overload]


@pytest.mark.slow
def test_the_command_serves_until_ctrl_c_one_video_at_a_time(
    browser, model, files, monkeypatch, tmp_path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    port = free_port()
    with app(model, port) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[0]
        assert address == f"http://{HOST}:{port}/"
        with app(model, port) as second:
            assert second.wait(60) == 2
            assert second.stderr is not None
            assert f"--host {HOST} --port {port}: Address already in use" in second.stderr.read()
        with visit(browser, address) as first, visit(browser, address) as other:
            for visited in (first, other):
                give(visited.page, files / "my face.png", files / "long.wav")
                visited.page.click("#make")
                visited.page.wait_for_selector("#stop")
            expect(other.page.locator("#status .said")).to_contain_text("1 video comes first; ")
            first.page.click("#stop")
            other.page.wait_for_selector(".said.working")
            expect(first.page.locator("#status .said")).to_have_text("Stopped.")
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
            assert process.stderr is not None
            assert "Traceback" not in process.stderr.read()
    assert list(tmp_path.glob("hallo3-app-*")) == []


@pytest.mark.slow
def test_a_page_that_is_closed_leaves_the_line(browser, model, files) -> None:
    with app(model, free_port()) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[0]
        with visit(browser, address) as stays:
            with visit(browser, address) as goes:
                give(goes.page, files / "my face.png", files / "long.wav")
                goes.page.click("#make")
                goes.page.wait_for_selector(".said.working")
                give(stays.page, files / "my face.png", files / "voice.wav")
                stays.page.click("#make")
                stays.page.wait_for_selector(".said.waiting")
            stays.page.wait_for_selector(".said.working")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
