"""Encoded video, packed again without touching its pictures: several periods in a row, tags from EXIF."""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from PIL import ExifTags, Image

__all__ = ["exif_tags", "repeat_video"]


def repeat_video(
    source: Path, target: Path, *, periods: int, frames: int, fps: float, tags: Mapping[str, str]
) -> None:
    """Write `periods` times the packets of a one-period video, so that no period differs from another."""
    for_every_player = {"movflags": "+faststart"} if target.suffix == ".mp4" else {}
    with av.open(str(target), "w", options=for_every_player) as output:
        output.metadata.update(tags)
        stream: Any = None
        for period in range(periods):
            with av.open(str(source)) as container:
                video: Any = container.streams.video[0]
                if stream is None:
                    stream = output.add_stream_from_template(video)
                    output.start_encoding()
                shift = round(period * frames / Fraction(fps).limit_denominator(1001) / video.time_base)
                packet: Any
                for packet in container.demux(video):
                    if packet.dts is None:
                        continue
                    packet.pts += shift
                    packet.dts += shift
                    packet.stream = stream
                    output.mux(packet)


def exif_tags(exif: bytes | None) -> dict[str, str]:
    """The EXIF facts a video container has names for: when, and where (ISO 6709)."""
    if not exif:
        return {}
    block = Image.Exif()
    block.load(exif)
    details = block.get_ifd(ExifTags.IFD.Exif)
    taken = str(details.get(ExifTags.Base.DateTimeOriginal) or block.get(ExifTags.Base.DateTime) or "")
    tags = {}
    if len(taken) == 19 and taken[4] == ":":
        tags["creation_time"] = f"{taken[:10].replace(':', '-')}T{taken[11:]}"
    place = _place(block.get_ifd(ExifTags.IFD.GPSInfo))
    return tags | ({"location": place} if place else {})


def _place(gps: Mapping[int, Any]) -> str:
    """Latitude and longitude as ±DD.DDDD±DDD.DDDD/, or nothing when either is missing or broken."""
    try:
        latitude = _degrees(gps[ExifTags.GPS.GPSLatitude], gps[ExifTags.GPS.GPSLatitudeRef] == "S")
        longitude = _degrees(gps[ExifTags.GPS.GPSLongitude], gps[ExifTags.GPS.GPSLongitudeRef] == "W")
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return ""
    return f"{latitude:+08.4f}{longitude:+09.4f}/"


def _degrees(parts: Any, negative: bool) -> float:
    degrees, minutes, seconds = (float(part) for part in parts)
    value = degrees + minutes / 60 + seconds / 3600
    return -value if negative else value
