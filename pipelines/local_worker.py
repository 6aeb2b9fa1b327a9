"""A worker process of the local runner: Beam's own, without its comings and goings on our terminal."""

from __future__ import annotations

import logging
import sys

from storage.logs import log_own_as_json, wants_json

__all__ = ["main"]


def main() -> None:
    """Serve the runner that started this process, until it is done."""
    logging.disable(logging.WARNING)  # importing Beam warns of cloud clients that nobody asked for
    from apache_beam.runners.worker import sdk_worker_main

    logging.disable(logging.INFO)
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    if wants_json():
        logging.disable(logging.NOTSET)  # own news go straight to standard error
        log_own_as_json()
    sdk_worker_main.main(sys.argv)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
