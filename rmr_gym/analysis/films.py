"""Films and sheets of frames: what people would rather look at."""

import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import write_atomically

Frame = UInt8[np.ndarray, "_ _ 3"] | UInt8[np.ndarray, "_ _ 1"]
_EDGE = 90


def enlarged(frame: Frame, times: int) -> UInt8[np.ndarray, "_ _ 3"]:
    """Return a frame in colours, every pixel a square of ``times`` pixels."""
    colours = np.broadcast_to(frame, (*frame.shape[:2], 3))
    return colours.repeat(times, axis=0).repeat(times, axis=1)


def check_film(path: Path) -> None:
    """Raise an RMRError where `write_film` could not write a film of this name."""
    kind = path.suffix.lower()
    if kind not in (".gif", ".mp4"):
        raise RMRError(f"cannot write a film as {path.name}: choose an ending of .gif or .mp4")
    if kind == ".mp4" and not (find_spec("imageio") and find_spec("imageio_ffmpeg")):
        raise RMRError(
            f"expected imageio and its FFmpeg to write {path.name}: `pip install imageio[ffmpeg]`, "
            "or choose a name that ends in .gif"
        )


def write_film(path: Path, frames: Sequence[Frame], fps: float = 20.0) -> Path:
    """Write frames of one size as a film, in the format that the name ends in.

    - ``.gif``: plays in a loop; shows at most 50 frames a second, and times in hundredths.
    - ``.mp4``: H.264, through the FFmpeg that comes with imageio's wheel; an odd width or height
      gets one more row or column of black.

    Raises:
        RMRError: No frames, frames that differ in size, a rate that is not above 0, another ending,
            or MP4 without imageio[ffmpeg].
    """
    check_film(path)
    if not frames or len({frame.shape[:2] for frame in frames}) > 1 or fps <= 0:
        raise RMRError(
            f"a film needs frames of one size and a rate above 0, got {len(frames)} frames of "
            f"{len({frame.shape[:2] for frame in frames})} sizes at {fps} a second"
        )
    encode = _mp4 if path.suffix.lower() == ".mp4" else _gif
    return write_atomically(path, encode([enlarged(frame, 1) for frame in frames], fps))


def _gif(frames: Sequence[Frame], fps: float) -> bytes:
    images = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    buffer = io.BytesIO()
    images[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=images[1:],
        duration=max(20, round(1000 / fps)),
        loop=0,
    )
    return buffer.getvalue()


def _mp4(frames: Sequence[Frame], fps: float) -> bytes:
    import imageio.v3 as imageio  # noqa: PLC0415

    height, width, _ = frames[0].shape
    even = ((0, 0), (0, height % 2), (0, width % 2), (0, 0))
    film = np.pad(np.stack(frames), even)
    options = {"plugin": "FFMPEG", "fps": fps, "macro_block_size": 2, "ffmpeg_log_level": "error"}
    return imageio.imwrite("<bytes>", film, extension=".mp4", **options)


def write_sheet(path: Path, frames: Sequence[Frame], columns: int = 8, times: int = 3) -> Path:
    """Write frames side by side, row by row, as one PNG.

    Raises:
        RMRError: No frames.
    """
    if not frames:
        raise RMRError("a sheet needs at least one frame, got none")
    tiles = [
        np.pad(enlarged(frame, times), ((2,), (2,), (0,)), constant_values=_EDGE)
        for frame in frames
    ]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [
        np.concatenate(tiles[start : start + columns], axis=1)
        for start in range(0, len(tiles), columns)
    ]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(rows)).save(buffer, format="PNG")
    write_atomically(path, buffer.getvalue())
    return path
