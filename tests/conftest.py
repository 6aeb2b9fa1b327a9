"""Fixtures shared by the tests: a real S3 server and the folder of real clips and photos."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from seaweed import SeaweedServer


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    """A running S3 server; its endpoint and keys are in the environment for the rest of the session."""
    server = SeaweedServer(tmp_path_factory.mktemp("seaweed"))
    server.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in server.environment.items():
                patch.setenv(name, value)
            yield server
    finally:
        server.stop()


@pytest.fixture
def s3_url(s3_server: SeaweedServer) -> str:
    """A folder of its own in the bucket."""
    return f"{s3_server.url}/{uuid.uuid4().hex}"


@pytest.fixture(params=["path", "file", "memory", "s3"])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh folder on each kind of store in turn."""
    if request.param == "s3":
        return str(request.getfixturevalue("s3_url"))
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    return str(tmp_path / "o") if request.param == "path" else f"file://{tmp_path / 'o'}"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real clips and photos, when there is one: STILLSTREAM_DATA or ../shared/data."""
    root = Path(__file__).parents[1]
    folder = Path(os.environ.get("STILLSTREAM_DATA", root.parent / "shared" / "data"))
    if not (folder / "clips").is_dir():
        pytest.skip("no real clips here; set STILLSTREAM_DATA to a folder with clips/ and photos/")
    return folder
