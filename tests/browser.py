"""A real headless Chromium for the pages' tests, and a file server for it; skips loudly without one."""

import contextlib
import functools
import http.server
import shutil
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--force-color-profile=srgb",
)


@contextlib.contextmanager
def chromium(profile: Path, *extra: str) -> Iterator[Any]:
    """A browser with an empty profile; its console is collected (see `console_errors`)."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("NOT TESTED IN A BROWSER: install chromium and chromium-driver (Debian) to run this test")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={profile}", *extra):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    session = webdriver.Chrome(options=options, service=Service(driver))
    try:
        session.set_window_size(1280, 900)
        yield session
    finally:
        session.quit()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)


def console_errors(session: Any) -> list[str]:
    """What the page has complained about since the last call, content security policy included."""
    return [
        entry["message"] for entry in session.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")
    ]


@contextlib.contextmanager
def file_server(folder: Path) -> Iterator[str]:
    """Serve a folder on 127.0.0.1; the value is its address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            return None

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))
    )
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
