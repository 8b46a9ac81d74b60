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
        ({"task": "denoising", "seed": "-1"}, [("query", png())], "seed is -1: must be a whole number from 0 to 4294967295"),
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


def test_what_is_no_form_is_refused(client: httpx.Client) -> None:
    answer = client.post("/v1/predict", content=b"{}", headers={"content-type": "application/json"})
    assert "must be multipart/form-data" in answer.json()["error"]


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
