"""One photo of a library, from its record to its ledger row: read, animate, publish, sidecar, row.

Results are published first, then the sidecar `<name>.json`, which is the durable truth about them, then the
row. A photo whose sidecar already tells of the same content, settings and weights is not rendered again.
"""

import dataclasses
import io
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.animate import LivingPhoto, LoopStyle, Networks, animate_photo
from models.colour_wheel import motion_to_colour
from models.warp import resize_motion
from pipelines.animation_config import AnimationConfig
from pipelines.animation_ledger import LedgerWriter, Row
from pipelines.animation_plan import Task, expected_outputs
from pipelines.photo_hints import hints_for
from pipelines.photo_listing import PhotoRecord
from pipelines.sidecar import Identity, Sidecar, adopt_renamed, delete_outputs, read_sidecar, write_sidecar
from storage.digest import digest_bytes
from storage.errors import ItemError, MediaError, RejectedError, StillstreamError, StoreError, UsageError
from storage.frame_spool import FrameSpool
from storage.logs import redact
from storage.loops import LoopFile, LoopOptions, write_loop, write_poster
from storage.objects import atomic_writer, join_url, read_bytes, stat_object, write_bytes
from storage.photo import MAX_BYTES, Photo, decode_photo_apart
from storage.reasons import Reason, Status
from storage.web_address import public_url

__all__ = ["StoppedError", "Studio", "animate_record"]

MOTION_PICTURE_SIDE = 480


class StoppedError(StillstreamError):
    """The run was asked to end; the photo at hand is left for the next run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Studio:
    """What stays the same for all photos of a worker.

    model_version: of the weights, where they are a registry's; orphans: sha256 → (photo, name, source) of
    finished photos that are gone from the listing; stopped: asked between frames whether to end.
    """

    out: str
    config: AnimationConfig
    config_digest: str
    weights_digest: str
    model_version: str | None = None
    networks: Networks
    ledger: LedgerWriter
    threads: int = 1
    orphans: dict[str, list[str]] = field(default_factory=dict)
    stopped: Callable[[], bool] = bool


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._begin = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - begin)

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def row(self) -> Row:
        stages = {name: round(seconds, 4) for name, seconds in self.seconds.items()}
        return {"stage_seconds": stages, "seconds_spent": round(time.perf_counter() - self._begin, 4)}


def animate_record(task: Task, studio: Studio) -> Row:
    """Do what a task asks for; returns the photo's ledger row. An ItemError becomes its status and reason.

    Raises StoppedError when the run ends while the photo is being rendered; bugs come out as they are.
    """
    record, clock = task.record, _Clock()
    row: Row = {
        "photo": record.key,
        "source": public_url(record.url),
        "source_size": record.size,
        "source_etag": record.etag,
        "name": record.name,
        "config_digest": studio.config_digest,
        "weights_digest": studio.weights_digest,
        "model_version": studio.model_version,
        "outputs": [],
        "warnings": [],
    }
    try:
        row |= _process(task, studio, clock, row)
    except ItemError as exc:
        row |= {"status": exc.status, "reason": exc.reason, "message": _said(exc)}
    except StoreError as exc:
        row |= {"status": Status.FAILED, "reason": Reason.STORE_ERROR, "message": _said(exc)}
    return row | clock.row()


def _said(exc: StillstreamError) -> str:
    """What a row or sidecar may keep of an error's words: no secrets, not without end."""
    return redact(str(exc))[:500]


def _process(task: Task, studio: Studio, clock: _Clock, row: Row) -> Row:
    record = task.record
    if not record.name:
        raise MediaError("the name would lead out of the output folder", reason=Reason.UNSAFE_NAME)
    with clock.stage("read"):
        data = _read_photo_bytes(record)
        hints_bytes = read_bytes(record.hints_url) if record.hints_url else None
        identity = Identity(
            photo_sha256=digest_bytes(data),
            hints_sha256=digest_bytes(hints_bytes) if hints_bytes is not None else None,
            config_digest=studio.config_digest,
            weights_digest=studio.weights_digest,
        )
        row["photo_sha256"] = identity.photo_sha256
        before = read_sidecar(studio.out, record.name) if task.known else None
    same = before is not None and before.identity == identity and not studio.config.overwrite
    kept = same or (before is not None and _is_older(before, identity, studio.config))
    if before is not None and kept and (not task.missing or before.status != Status.OK):
        return before.row()
    if not studio.config.overwrite and (adopted := _adopt(record, identity, studio, clock)):
        return adopted.row()
    wanted = expected_outputs(record.name, studio.config)
    if same:
        wanted = {kind: path for kind, path in wanted.items() if kind in task.missing}
    try:
        sidecar = _make(record, (data, hints_bytes), identity, wanted, (studio, clock))
    except ItemError as exc:
        sidecar = Sidecar(
            photo=record.key, identity=identity, status=exc.status, reason=exc.reason,
            model_version=studio.model_version,
        )  # fmt: skip
        if before is not None and not same:
            delete_outputs(studio.out, before, keep=())
        if isinstance(exc, RejectedError):
            write_sidecar(studio.out, record.name, dataclasses.replace(sidecar, message=_said(exc)))
        raise
    if before is not None and same:
        sidecar = dataclasses.replace(sidecar, outputs={**before.outputs, **sidecar.outputs})
    sidecar = dataclasses.replace(sidecar, stage_seconds=clock.row()["stage_seconds"])
    with clock.stage("publish"):
        write_sidecar(studio.out, record.name, sidecar)
        if before is not None and not same:
            delete_outputs(studio.out, before, keep=sidecar.paths())
    return sidecar.row()


def _is_older(before: Sidecar, identity: Identity, config: AnimationConfig) -> bool:
    """Whether a result differs in its weights only, and such ones are to be left alone."""
    as_before = dataclasses.replace(identity, weights_digest=before.identity.weights_digest)
    return config.keep_older and not config.overwrite and before.identity == as_before


def _read_photo_bytes(record: PhotoRecord) -> bytes:
    if record.size > MAX_BYTES:
        raise RejectedError(
            f"expected at most {MAX_BYTES} bytes in a photo, got {record.size}", reason=Reason.TOO_LARGE
        )
    try:
        return read_bytes(record.url)
    except UsageError as exc:
        raise MediaError(f"the photo is gone or cannot be opened ({exc})", reason=Reason.NOT_FOUND) from exc


def _adopt(record: PhotoRecord, identity: Identity, studio: Studio, clock: _Clock) -> Sidecar | None:
    """Take the results of the same photo over that were made under another name."""
    if identity.photo_sha256 not in studio.orphans:
        return None
    old_key, old_name, old_source = studio.orphans[identity.photo_sha256]
    with clock.stage("publish"):
        expected = expected_outputs(record.name, studio.config)
        old = expected_outputs(old_name, studio.config)
        paths = {kind: (old[kind], path) for kind, path in expected.items()}
        adopted = adopt_renamed(studio.out, (old_name, record.name), record.key, identity, paths)
        if adopted is None:
            return None
        if old_key == record.key or not _is_there(old_source):
            if (previous := read_sidecar(studio.out, old_name)) is not None:
                delete_outputs(studio.out, previous, keep=adopted.paths(), sidecar_name=old_name)
            if old_key != record.key:
                studio.ledger.remove(old_key)
        return adopted


def _is_there(url: str) -> bool:
    try:
        stat_object(url)
    except UsageError:
        return False
    return True


def _make(
    record: PhotoRecord,
    content: tuple[bytes, bytes | None],
    identity: Identity,
    wanted: dict[str, str],
    work: tuple[Studio, _Clock],
) -> Sidecar:
    """Decode, animate and publish the wanted results; `content` is the photo and its hints file."""
    studio, clock = work
    config = studio.config
    with clock.stage("decode"):
        photo = decode_photo_apart(content[0], max_side=config.max_side, max_pixels=config.max_pixels)
    with clock.stage("motion"):
        hints = hints_for(config, content[1])
        style = LoopStyle(
            frames=config.frames,
            fps=config.fps,
            speed=config.speed,
            strength=config.strength,
            renderer=config.renderer,
        )
        living = animate_photo(photo.image_HW3, studio.networks, style, hints=hints, threads=studio.threads)
    facts = _facts(config, photo, living)
    exif = photo.exif if config.keep_metadata else None
    outputs = _publish_pictures(wanted, photo, living, studio, clock, exif)
    frames = _watched(living.frames, studio.stopped, clock)
    del living  # its motion field is large, and from here on only the frames are needed
    outputs |= _publish_loops(wanted, frames, studio, clock, exif)
    return Sidecar(
        photo=record.key,
        identity=identity,
        status=Status.OK,
        config=config.public(),
        outputs={
            kind: {"path": wanted[kind], "bytes": outputs[kind].size, "frames": outputs[kind].frames}
            for kind in wanted
        },
        facts=facts,
        warnings=list(photo.warnings),
        model_version=studio.model_version,
    )


def _facts(config: AnimationConfig, photo: Photo, living: LivingPhoto) -> dict[str, object]:
    height, width = photo.image_HW3.shape[:2]
    return {
        "seconds": round(config.frames / config.fps, 4),
        "fps": config.fps,
        "frames": config.frames,
        "width": width,
        "height": height,
        "renderer": living.renderer,
        "moving_share": round(living.moving_share, 5),
        "confidence": round(living.confidence, 4),
        "mean_speed": round(living.mean_speed, 4),
        "category": living.category,
    }


def _publish_loops(
    wanted: dict[str, str],
    frames: Iterable[NDArray[np.uint8]],
    studio: Studio,
    clock: _Clock,
    exif: bytes | None,
) -> dict[str, LoopFile]:
    """Write the loop in every wanted format; with several of them its frames wait on disk."""
    config = studio.config
    options = LoopOptions(quality=config.quality, lossless=config.lossless, exif=exif)
    written: dict[str, LoopFile] = {}
    formats = [format for format in config.format if format in wanted]
    with ExitStack() as stack:
        if len(formats) > 1:
            frames = stack.enter_context(FrameSpool(frames))
        for format in formats:
            url, rendered = join_url(studio.out, wanted[format]), clock.seconds.get("render", 0.0)
            with clock.stage("encode"):
                written[format] = write_loop(
                    frames, url, format=format, fps=config.fps, repeat=config.repeat, options=options
                )
            # Frames are rendered while the encoder asks for them.
            clock.add("encode", rendered - clock.seconds.get("render", 0.0))
    return written


def _publish_pictures(  # noqa: PLR0913 (one photo with everything known about it)
    wanted: dict[str, str],
    photo: Photo,
    living: LivingPhoto,
    studio: Studio,
    clock: _Clock,
    exif: bytes | None,
) -> dict[str, LoopFile]:
    """Write what stands beside the loops: poster, motion as a picture, motion field."""
    written: dict[str, LoopFile] = {}
    places = {kind: join_url(studio.out, path) for kind, path in wanted.items()}
    with clock.stage("publish"):
        if "poster" in wanted:
            written["poster"] = write_poster(photo.image_HW3, places["poster"], exif=exif)
        if "motion" in wanted:
            written["motion"] = _write_motion_picture(living.motion_2HW, places["motion"])
        if "motion_field" in wanted:
            written["motion_field"] = _write_motion(living.motion_2HW, places["motion_field"])
    return written


def _watched(
    frames: Iterator[NDArray[np.uint8]], stopped: Callable[[], bool], clock: _Clock
) -> Iterator[NDArray[np.uint8]]:
    """The frames, with the time they took, until the run is asked to end."""
    while True:
        if stopped():
            raise StoppedError("the run was asked to end")
        with clock.stage("render"):
            frame = next(frames, None)
        if frame is None:
            return
        yield frame


def _write_motion_picture(motion_2HW: NDArray[np.float32], url: str) -> LoopFile:
    height, width = motion_2HW.shape[1:]
    scale = min(1.0, MOTION_PICTURE_SIDE / max(height, width))
    small = resize_motion(motion_2HW, (max(1, round(height * scale)), max(1, round(width * scale))))
    buffer = io.BytesIO()
    Image.fromarray(motion_to_colour(small)).save(buffer, "PNG", optimize=True)
    return LoopFile(url=url, frames=1, size=write_bytes(url, buffer.getvalue()).size)


def _write_motion(motion_2HW: NDArray[np.float32], url: str) -> LoopFile:
    with atomic_writer(url) as stream:
        np.save(stream, np.ascontiguousarray(motion_2HW, np.float32), allow_pickle=False)
    return LoopFile(url=url, frames=1, size=stat_object(url).size)
