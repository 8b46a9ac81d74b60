"""Runs inside the serving image, beside its server: waits for it, asks for a prediction, and writes the answer out."""

import sys
import time
import urllib.request
from pathlib import Path

ADDRESS = "http://127.0.0.1:8080"
BOUNDARY = "boundary"


def wait_until_ready() -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(f"{ADDRESS}/readyz", timeout=5)  # noqa: S310 - our own address
        except OSError:
            time.sleep(0.1)
        else:
            return
    sys.exit("the server did not become ready")


def ask() -> bytes:
    parts = [f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="task"\r\n\r\ndenoising\r\n'.encode()]
    parts += [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="query"; filename="query.png"\r\nContent-Type: image/png\r\n\r\n'.encode(),
        Path("/query.png").read_bytes(),
        f"\r\n--{BOUNDARY}--\r\n".encode(),
    ]
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    request = urllib.request.Request(f"{ADDRESS}/v1/predict", data=b"".join(parts), headers=headers)  # noqa: S310 - our own address
    with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310 - our own address
        content: bytes = answer.read()
    return content


wait_until_ready()
sys.stdout.buffer.write(ask())
