"""Films in and out: folders of frames, video files, GIF, MP4 and WebM."""

import contextlib
import math
import os
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageSequence

from course import photo
from course.files import WriteError, atomic_path
from course.pictures import MAX_PIXELS

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".heic", ".avif"}
VIDEOS = {".mp4", ".webm", ".avi", ".mov", ".mkv", ".m4v", ".gif"}
MAX_FRAMES = 300
FPS = 20.0  # of films that do not say
MOST_FPS_OF_GIF = 50
SLOWEST, FASTEST = 0.01, 240.0  # frames a second that are written
# what may be in an .mp4 or .webm, best first; which of them there are depends on OpenCV's build
CODECS = {".mp4": ("avc1", "mp4v"), ".webm": ("VP90", "VP80")}
PALETTE_FRAMES = 12  # frames that the colours of a GIF are chosen from


def is_film(path):
    """Whether a path is a video file, by its name."""
    return Path(path).suffix.lower() in VIDEOS


def read(path, every=1):
    """[(name, picture (H, W, 3) uint8)] of a film's frames, and frames a second.

    ``path`` is a video file, a moving GIF, or a folder whose pictures are the frames in the order
    of their names (frame_2 before frame_10). ``every`` n takes each n-th frame. Raises ValueError
    for what is none of these, holds no frame, or more than MAX_FRAMES of them.
    """
    path = Path(path)
    if every < 1:
        raise ValueError(f"--every {every}: take every frame, 1, or every second, 2, and so on.")
    if path.is_dir():
        files = sorted((p for p in path.iterdir() if p.suffix.lower() in PICTURES), key=_counted)
        found, fps = ((p.stem, photo.read(p)) for p in files[::every]), FPS
    elif not path.is_file():
        raise ValueError(f"There is no film {path}: neither a folder of frames nor a video file.")
    elif path.suffix.lower() == ".gif":
        found, fps = _gif_frames(path, every)
    else:
        found, fps = _video_frames(path, every)
    frames = []
    for frame in found:
        frames.append(frame)
        if len(frames) > MAX_FRAMES:
            raise ValueError(f"{path} has more than {MAX_FRAMES} frames; --every {every + 1} or "
                             "more leaves some out.")  # fmt: skip
    if not frames:
        raise ValueError(f"There is no frame that can be read in {path}.")
    return frames, fps / every


def _counted(path):
    """A key that sorts frame_2 before frame_10."""
    parts, digits = [], ""
    for letter in path.stem + " ":
        if letter.isdecimal():
            digits += letter
            continue
        if digits:
            parts.append((1, int(digits), ""))
            digits = ""
        parts.append((0, 0, letter))
    return parts


def _gif_frames(path, every):
    """Frames as long as they are seen: a GIF says for how long, and merges those that are alike."""
    with _moving_gif(path) as picture:
        pauses = [f.info.get("duration", 0) for f in ImageSequence.Iterator(picture)]
    pauses = np.array([pause if pause >= 20 else 1000 / FPS for pause in pauses])  # as browsers do
    beat = pauses[pauses <= 1.5 * pauses.min()].mean()  # 36 a second are pauses of 20 and 30 ms
    shown = np.repeat(np.arange(len(pauses)), np.round(pauses / beat).clip(1).astype(int)).tolist()

    def frames():
        with _moving_gif(path) as picture:
            for k in range(0, len(shown), every):
                picture.seek(shown[k])
                yield f"{k:04d}", np.asarray(picture.convert("RGB"))

    return frames(), float(1000 * len(shown) / pauses.sum())


@contextlib.contextmanager
def _moving_gif(path):
    """The picture, opened; raises ValueError in a sentence where it cannot be read."""
    try:
        with Image.open(path, formats=["GIF"]) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise ValueError("too many pixels")
            yield picture
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a film that can be read ({error}).") from None


def _video_frames(path, every):
    with _silence():
        video = cv2.VideoCapture(str(path))
    fps = video.get(cv2.CAP_PROP_FPS)
    if not SLOWEST <= fps <= 1000:  # nothing, or nonsense
        fps = FPS

    def frames():
        number = 0
        while video.grab():
            if number % every == 0:
                yield f"{number:04d}", cv2.cvtColor(video.retrieve()[1], cv2.COLOR_BGR2RGB)
            number += 1
        video.release()

    return frames(), fps


def save(path, frames, fps=FPS):
    """Write frames (H, W, 3) uint8, all of one size, as .gif, .mp4 or .webm; whole or not at all.

    MP4 is H.264 where imageio-ffmpeg or OpenCV can write it, else MPEG-4 (players open it,
    browsers do not); WebM is VP9 or VP8. ``fps`` is brought between SLOWEST and FASTEST; of more
    than 50, a GIF gets every second frame, or third. Raises ValueError without frames or an
    encoder, WriteError where the disk is full.
    """
    frames, suffix = list(frames), Path(path).suffix.lower()
    fps = min(max(fps, SLOWEST), FASTEST)
    if not frames:
        raise ValueError(f"There is no frame to write to {path}.")
    if len({np.shape(frame) for frame in frames}) > 1:
        raise ValueError(f"The frames for {path} are not all of one size.")
    with atomic_path(path) as temporary:
        if suffix == ".gif":
            _save_gif(temporary, frames, fps)
        elif suffix not in CODECS:
            raise ValueError(f"{suffix} is no kind of film; choose .gif, .mp4 or .webm.")
        elif not (
            _save_by_ffmpeg(temporary, frames, fps) or _save_by_opencv(temporary, frames, fps)
        ):
            raise ValueError(f"No encoder here can write {suffix}; install imageio-ffmpeg, or "
                             "take .gif.")  # fmt: skip
        if suffix in CODECS and _count(temporary) < len(frames):  # encoders fail in silence
            raise WriteError(f"{path} came out incomplete; make room on the disk and type the "
                             "same again.")  # fmt: skip


def _count(path):
    """How many frames of a film file can be read; what its head says may be more."""
    with _silence():
        video, count = cv2.VideoCapture(str(path)), 0
        while video.grab():
            count += 1
        video.release()
    return count


def save_all(path, frames, fps=FPS):
    """Write ``path`` as GIF, and beside it MP4 and WebM where there is an encoder: the paths."""
    frames, written = list(frames), []
    for suffix in (".gif", *CODECS):
        target = Path(path).with_suffix(suffix)
        with contextlib.suppress(*(() if suffix == ".gif" else (ValueError,))):
            save(target, frames, fps)
            written.append(target)
    return written


def _save_gif(path, frames, fps):
    """One palette for all frames, so that what stands still does not flicker."""
    frames = frames[:: max(1, math.ceil(fps / MOST_FPS_OF_GIF))]
    fps = fps / max(1, math.ceil(fps / MOST_FPS_OF_GIF))
    some = frames[:: max(1, len(frames) // PALETTE_FRAMES)]
    sheet = Image.fromarray(np.concatenate([f[::2, ::2] for f in some]))
    palette = sheet.quantize(256, Image.Quantize.MEDIANCUT)
    first, *rest = (
        Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE) for f in frames
    )
    first.save(path, save_all=True, append_images=rest, duration=_pauses(len(frames), fps), loop=0,
               disposal=1)  # fmt: skip


def _pauses(count, fps):
    """Milliseconds of each frame of a GIF, which knows hundredths of a second, two bytes of them;
    less than two, browsers take for ten."""
    ends = np.round(100 * np.arange(count + 1) / fps)
    return [int(10 * pause) for pause in np.diff(ends).clip(2, 65_535)]


def _even(frame):
    """Encoders halve the colours' resolution: both sides are made even."""
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), "edge")


def _save_by_ffmpeg(path, frames, fps):
    """Whether imageio-ffmpeg, where installed, wrote the film."""
    try:
        import imageio_ffmpeg
    except ImportError:
        return False
    height, width = _even(frames[0]).shape[:2]
    codec = {".mp4": "libx264", ".webm": "libvpx-vp9"}[path.suffix.lower()]
    writer = imageio_ffmpeg.write_frames(
        str(path), (width, height), fps=fps, codec=codec, quality=7
    )
    writer.send(None)
    with contextlib.suppress(OSError):  # its log, many lines; ``save`` sees that frames are missing
        for frame in frames:
            writer.send(np.ascontiguousarray(_even(frame)))
    writer.close()
    return True


def _save_by_opencv(path, frames, fps):
    """Whether some codec of OpenCV's wrote the film."""
    height, width = _even(frames[0]).shape[:2]
    for name in CODECS[path.suffix.lower()]:
        with _silence():
            code = cv2.VideoWriter_fourcc(*name)
            writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, fps, (width, height))
            if not writer.isOpened():
                continue
            for frame in frames:
                writer.write(cv2.cvtColor(_even(frame), cv2.COLOR_RGB2BGR))
            writer.release()
        return True
    return False


@contextlib.contextmanager
def _silence():
    """Keep what OpenCV's C code says about codecs that are not there off the screen."""
    sys.stderr.flush()
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)
