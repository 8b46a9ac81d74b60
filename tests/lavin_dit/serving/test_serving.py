import asyncio
import io
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from PIL import Image

from lavin_dit.export.runtime import Bundle
from lavin_dit.serving.app import make_app
from lavin_dit.serving.form import Limits

PROGRAM = [sys.executable, "-m", "lavin_dit.serving"]


def png(color: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (48, 40)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, color).save(content, format="PNG")
    return content.getvalue()


def start(bundle: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*PROGRAM, str(bundle), "--port", str(port), "--threads", "1", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    address = f"http://127.0.0.1:{port}"
    for _ in range(200):
        try:
            httpx.get(f"{address}/readyz").raise_for_status()
        except httpx.TransportError:
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            time.sleep(0.05)
        else:
            return process, address
    pytest.fail("the server did not become ready")


def stop(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    return process.returncode


@pytest.fixture(scope="module")
def client(exported_bundle: Path) -> Iterator[httpx.Client]:
    process, address = start(exported_bundle)
    with httpx.Client(base_url=address, timeout=120) as client:
        yield client
    stop(process)


def ask(client: httpx.Client, data: dict[str, str], *files: tuple[str, bytes]) -> httpx.Response:
    return client.post("/v1/predict", data=data, files=[(name, ("picture.png", content, "image/png")) for name, content in files])


def test_a_tasks_answer_has_the_size_of_its_query(client: httpx.Client) -> None:
    answer = ask(client, {"task": "denoising"}, ("query", png()))
    assert answer.status_code == 200, answer.text
    picture = Image.open(io.BytesIO(answer.content))
    assert (picture.format, picture.size) == ("PNG", (48, 40))


def test_the_same_question_has_the_same_answer_and_another_seed_another(client: httpx.Client) -> None:
    first, same, other = (ask(client, {"task": "denoising", "seed": seed}, ("query", png())).content for seed in ("1", "1", "2"))
    assert first == same
    assert first != other


def test_a_task_may_be_shown_by_pairs(client: httpx.Client) -> None:
    pairs = [("context_input", png((0, 0, 0))), ("context_target", png((255, 255, 255)))]
    assert ask(client, {}, ("query", png()), *pairs).status_code == 200


def test_it_tells_what_it_can_do(client: httpx.Client) -> None:
    told = client.get("/v1/tasks").json()
    assert {task["name"] for task in told["tasks"]} == {"denoising", "semantic"}
    assert told["resolution"] == 32


def test_it_counts_for_prometheus(client: httpx.Client) -> None:
    before = metric(client, 'lavin_predictions_total{status="422"}')
    ask(client, {"task": "cooking"}, ("query", png()))
    assert metric(client, 'lavin_predictions_total{status="422"}') == before + 1
    assert metric(client, "lavin_predictions_in_flight") == 0


def metric(client: httpx.Client, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.mark.parametrize(
    ("data", "files", "sentence"),
    [
        ({"task": "cooking"}, [("query", png())], "task 'cooking': this bundle has example pairs for denoising, semantic"),
        ({}, [("query", png())], "task: is missing; give one of denoising, semantic, or pairs"),
        ({"task": "denoising"}, [("query", b"no picture")], "query picture.png: "),
        ({"task": "denoising"}, [("context_input", png())], "query: has 0 pictures; must have 1"),
        ({}, [("query", png()), ("context_input", png())], "context_target: has 0 pictures; must have 1 to 16"),
        (
            {},
            [("query", png()), ("context_input", png()), ("context_target", png(size=(8, 8)))],
            "picture 1 is 8x8, but its input is 48x40",
        ),
        ({"task": "denoising", "seed": "-1"}, [("query", png())], "seed is -1: must be a whole number from 0 to 4294967295"),
        ({"task": "denoising", "seed": "9" * 5000}, [("query", png())], "seed is 99999999999999999999: must be"),
        ({"task": "denoising", "sede": "1"}, [("query", png())], "field sede: is not known"),
    ],
)
def test_a_mistake_is_answered_in_one_sentence(
    client: httpx.Client, data: dict[str, str], files: list[tuple[str, bytes]], sentence: str
) -> None:
    answer = ask(client, data, *files)
    assert answer.status_code == 422
    assert sentence in answer.json()["error"]


def test_a_picture_that_would_fill_the_memory_is_refused(client: httpx.Client) -> None:
    answer = ask(client, {"task": "denoising"}, ("query", png(size=(9000, 9000))))
    assert answer.status_code == 422
    assert "query picture.png: " in answer.json()["error"]


def test_a_request_that_is_too_long_is_refused_while_it_comes(client: httpx.Client) -> None:
    answer = ask(client, {"task": "denoising"}, ("query", b"x" * (65 * 2**20)))
    assert answer.status_code == 413
    assert "more than 67108864 bytes" in answer.json()["error"]


@pytest.mark.parametrize(
    ("kind", "status", "sentence"),
    [
        ("application/json", 415, "content-type is application/json: must be multipart/form-data"),
        ("", 415, "content-type is not given"),
        ("multipart/form-data", 400, "Missing boundary"),
        ("Multipart/Form-Data; boundary=x", 400, "Invalid multipart data"),
    ],
)
def test_what_is_no_form_is_refused(client: httpx.Client, kind: str, status: int, sentence: str) -> None:
    with httpx.Client(base_url=client.base_url, timeout=120) as own:
        answer = own.post("/v1/predict", content=b"garbage", headers={"content-type": kind})
    assert answer.status_code == status
    assert sentence in answer.json()["error"]


def test_more_pictures_than_a_question_may_have_are_refused(client: httpx.Client) -> None:
    with httpx.Client(base_url=client.base_url, timeout=120) as own:
        answer = ask(own, {}, *[("query", png())] * 34)
    assert answer.status_code == 400
    assert "Too many files" in answer.json()["error"]


def test_an_address_that_is_not_there_is_told_as_json(client: httpx.Client) -> None:
    assert client.get("/v1/answers").json() == {"error": "Not Found"}
    assert client.get("/v1/predict").status_code == 405


def test_it_is_well_and_small_while_it_decodes_large_pictures(exported_bundle: Path) -> None:
    process, address = start(exported_bundle)
    large = png(size=(4000, 4000))
    files = [("query", large), *[("context_input", large), ("context_target", large)] * 4]
    with httpx.Client(base_url=address, timeout=120) as client, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, client, {}, *files)
        num_well = 0
        while not asked.done():
            num_well += httpx.get(f"{address}/healthz", timeout=60).status_code == 200
            time.sleep(0.02)
        assert asked.result().status_code == 200
    peak_mib = int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())[1]) / 1024  # type: ignore[index]
    stop(process)
    assert num_well > 10, "decoding must not keep the server from answering"
    assert peak_mib < 450, "nine pictures of 46 MiB must not lie in the memory together"


def test_a_client_that_goes_away_is_no_failure(client: httpx.Client) -> None:
    before = metric(client, 'lavin_predictions_total{status="499"}')
    head = "POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000\r\n\r\n--x\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.sendall(head.encode())
        time.sleep(0.1)
    deadline = time.monotonic() + 20
    while metric(client, 'lavin_predictions_total{status="499"}') == before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert metric(client, 'lavin_predictions_total{status="499"}') == before + 1
    assert metric(client, "lavin_predictions_in_flight") == 0


def test_a_request_that_never_ends_gives_its_place_up(exported_bundle: Path) -> None:
    app = make_app(Bundle.open(exported_bundle), Limits(receive_s=0.05))

    async def never() -> dict[str, object]:
        await asyncio.sleep(60)
        raise AssertionError

    sent: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    headers = [(b"content-type", b"multipart/form-data; boundary=x")]
    scope = {"type": "http", "method": "POST", "path": "/v1/predict", "headers": headers, "query_string": b"", "root_path": ""}
    asyncio.run(app(scope, never, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 408


def test_more_than_may_wait_are_told_to_come_again(exported_bundle: Path) -> None:
    process, address = start(exported_bundle, "--max-waiting", "1")
    with httpx.Client(base_url=address, timeout=120) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(client, {"task": "denoising"}, ("query", png())), range(8)))
    assert {answer.status_code for answer in answers} == {200, 503}
    assert all(answer.headers["retry-after"] == "5" for answer in answers if answer.status_code == 503)
    stop(process)


def test_sigterm_lets_a_prediction_end(exported_bundle: Path) -> None:
    process, address = start(exported_bundle)
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=address, timeout=120) as client:
        asked = pool.submit(ask, client, {"task": "denoising"}, ("query", png()))
        time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert asked.result().status_code == 200
    process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGTERM)


def test_a_damaged_bundle_is_not_served(tmp_path: Path) -> None:
    done = subprocess.run([*PROGRAM, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"lavin: error: .*is not a bundle.*\n", done.stderr)


def test_it_needs_neither_torch_nor_kfp_nor_pydantic() -> None:
    heavy = ["torch", "kfp", "pydantic", "scipy", "skimage", "onnx"]
    program = f"import sys, lavin_dit.serving.app; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("option", "value"), [("--port", "99999"), ("--port", "0"), ("--max-waiting", "none"), ("--threads", "-1")])
def test_an_impossible_option_is_told_in_one_line(exported_bundle: Path, option: str, value: str) -> None:
    done = subprocess.run([*PROGRAM, str(exported_bundle), option, value], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"is {value}: must be" in done.stderr
    assert "Traceback" not in done.stderr
