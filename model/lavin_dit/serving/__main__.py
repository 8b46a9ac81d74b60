"""`python -m lavin_dit.serving BUNDLE`: serves a bundle until it is told to stop."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from lavin_dit.errors import InputError
from lavin_dit.export.runtime import Bundle
from lavin_dit.serving.app import make_app
from lavin_dit.serving.form import Limits

logger = logging.getLogger(__name__)

USER_MISTAKE = 2
GRACE_S = 30


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lavin_dit.serving", description="Answers predictions from a bundle over HTTP.")
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="an exported bundle's folder")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 in a pod (default: 127.0.0.1)")
    parser.add_argument("--port", type=_port, default=8080, help="port to listen on (default: 8080)")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="threads of a prediction (default: all cores)")
    parser.add_argument("--max-waiting", type=_count, default=8, metavar="N", help="predictions that may run or wait (default: 8)")
    return parser.parse_args(arguments)


def _port(text: str) -> int:
    return _whole(text, 1, 65535)


def _count(text: str) -> int:
    return _whole(text, 1, 1000)


def _whole(text: str, least: int, most: int) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text[:6]) <= most:
        raise argparse.ArgumentTypeError(f"is {text[:20]}: must be a whole number from {least} to {most}")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        bundle = Bundle.open(options.bundle, num_threads=options.threads)
    except InputError as error:
        sys.stderr.write(f"lavin: error: {error}\n")
        sys.exit(USER_MISTAKE)
    logger.info("serving %s on http://%s:%d", options.bundle, options.host, options.port)
    app = make_app(bundle, Limits(max_waiting=options.max_waiting))
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning", timeout_graceful_shutdown=GRACE_S)


if __name__ == "__main__":
    main()
