"""A real S3 server on loopback (rclone) over a folder: wrong keys are refused, and its log says who asked for what."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

RCLONE = Path(sys.executable).parent / "rclone"
KEY, SECRET = "loopback", "loopback-secret"
BUCKET = "lavin"
START_S = 15.0


@dataclass(frozen=True)
class S3Server:
    """A server that runs."""

    port: int
    folder: Path
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def bucket(self) -> Path:
        """Where the objects lie as plain files."""
        return self.folder / BUCKET

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs to know."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
            # rclone does not know the checksums that newer clients add.
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }

    def downloads(self) -> list[str]:
        """The objects that were read so far, each time that one was."""
        return re.findall(rf"GET OBJECT Bucket: {BUCKET} Object: (\S+)", self.log.read_text(encoding="utf-8"))


@contextmanager
def serve(folder: Path) -> Iterator[S3Server]:
    """Serves a new folder with one empty bucket."""
    (folder / "served" / BUCKET).mkdir(parents=True)
    server = S3Server(_free_port(), folder / "served", folder / "rclone.log")
    command = [str(RCLONE), "serve", "s3", "--addr", f"127.0.0.1:{server.port}", "--auth-key", f"{KEY},{SECRET}"]
    command += ["--config", "/dev/null", "--log-level", "DEBUG", "--vfs-cache-mode", "off", "--dir-cache-time", "10ms", str(server.folder)]
    with server.log.open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "RCLONE_CONFIG": ""})
        try:
            _wait(process, server)
            yield server
        finally:
            process.terminate()
            process.wait(timeout=START_S)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait(process: "subprocess.Popen[bytes]", server: S3Server) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        assert process.poll() is None, server.log.read_text(encoding="utf-8")
        try:
            socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError("the S3 server did not start")
