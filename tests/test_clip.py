"""Which windows of a video become clips, and how their frames are read."""

import moving_pictures as pictures
import numpy as np
import pytest

from pipelines.clip import ClipConfig, Window, check_video, plan_windows, read_clip
from storage.errors import RejectedError, UsageError
from storage.reasons import Reason
from storage.video import VideoInfo, probe_video

CONFIG = ClipConfig()


def info(*, seconds, fps=30.0, width=640, height=360):
    return VideoInfo(
        width=width,
        height=height,
        fps=fps,
        frames=round(seconds * fps),
        seconds=seconds,
        rotation=0,
        codec="h264",
        pixel_format="yuv420p",
        transfer="bt709",
        interlaced=False,
        variable_rate=False,
    )


def test_windows_are_spread_and_do_not_overlap():
    windows = plan_windows(info(seconds=60.0), CONFIG)
    starts = [window.start_seconds for window in windows]
    assert len(windows) == 4
    gaps = np.diff([0.0, *starts, 60.0])
    assert gaps.min() > 9 and np.all(np.diff(starts) >= 2)
    assert [window.start_frame for window in windows] == [round(start * 30) for start in starts]


@pytest.mark.parametrize(
    ("seconds", "count"), [(1.5, 1), (2.0, 1), (3.9, 1), (4.0, 2), (8.0, 4), (3600.0, 4)]
)
def test_a_video_gives_as_many_windows_as_fit(seconds, count):
    windows = plan_windows(info(seconds=seconds), CONFIG)
    assert len(windows) == count
    assert all(window.start_seconds + min(window.seconds, seconds) <= seconds + 1e-6 for window in windows)


@pytest.mark.parametrize(
    ("video", "reason"),
    [
        (info(seconds=1.0), Reason.TOO_SHORT),
        (info(seconds=5.0, width=320, height=90), Reason.TOO_SMALL),
        (info(seconds=50.0, fps=2.0), Reason.UNSUPPORTED),
    ],
)
def test_unsuitable_videos_are_rejected(video, reason):
    with pytest.raises(RejectedError) as caught:
        check_video(video, CONFIG)
    assert caught.value.reason is reason


def test_portrait_and_landscape_pass():
    check_video(info(seconds=3.0, width=360, height=640), CONFIG)
    check_video(info(seconds=3.0), CONFIG)


@pytest.mark.parametrize(("fps", "kept"), [(24, 24), (25, 25), (30, 30), (50, 25), (60, 30)])
def test_clips_have_at_most_thirty_frames_a_second(tmp_path, fps, kept):
    path = pictures.write_clip(tmp_path / "a.mp4", pictures.flowing(round(2.2 * fps), seed=fps), fps=fps)
    (window,) = plan_windows(probe_video(path), CONFIG)
    clip = read_clip(path, window, CONFIG)
    assert clip.fps == pytest.approx(kept, rel=0.02)
    assert abs(len(clip.frames) - 2 * kept) <= 1
    assert len(clip.frames) == len(clip.seconds)
    assert clip.size == pictures.SIZE


def test_large_frames_are_scaled_down(tmp_path):
    path = pictures.write_clip(tmp_path / "a.mp4", pictures.flowing(45))
    window = Window(start_seconds=0.0, start_frame=0, seconds=1.5)
    clip = read_clip(path, window, ClipConfig(max_side=128, smallest_side=64))
    assert max(clip.size) == 128


def test_a_window_past_the_end_is_too_short(tmp_path):
    path = pictures.write_clip(tmp_path / "a.mp4", pictures.flowing(60))
    with pytest.raises(RejectedError) as caught:
        read_clip(path, Window(start_seconds=1.5, start_frame=45, seconds=2.0), CONFIG)
    assert caught.value.reason is Reason.TOO_SHORT


def test_wrong_configurations_are_refused():
    with pytest.raises(UsageError, match="shortest"):
        ClipConfig(seconds=1.0, shortest=3.0)
    with pytest.raises(UsageError, match="per_source"):
        ClipConfig(per_source=0)
