"""A window that shows the frames of an environment to people."""

import time
import warnings
from typing import Any

import numpy as np
from jaxtyping import UInt8

_INCHES = 5.0


class Window:
    """A Matplotlib window; on a machine without a screen it draws where nobody sees it and says so.

    Args:
        title: Title of the window.
    """

    def __init__(self, title: str):
        import matplotlib as mpl  # noqa: PLC0415
        from matplotlib import pyplot as plt  # noqa: PLC0415

        self._plt: Any = plt
        self._figure: Any = plt.figure(title, figsize=(_INCHES, _INCHES), clear=True)
        self._axes: Any = self._figure.add_axes((0, 0, 1, 1))
        self._axes.set_axis_off()
        self._image: Any = None
        self._due = time.monotonic()
        if mpl.get_backend().lower() == "agg":
            warnings.warn(
                "no window can be shown: Matplotlib found no screen or no window toolkit; use "
                'render_mode="rgb_array"',
                stacklevel=2,
            )
        else:
            self._figure.show()

    def show(self, picture: UInt8[np.ndarray, "height width 3"], seconds: float) -> None:
        """Show a picture and wait until it has been seen for ``seconds``."""
        if self._image is None:
            self._image = self._axes.imshow(picture)
        else:
            self._image.set_data(picture)
        self._figure.canvas.draw()
        self._figure.canvas.flush_events()
        self._due = max(self._due + seconds, time.monotonic())
        time.sleep(max(0.0, self._due - time.monotonic()))

    def close(self) -> None:
        """Close the window."""
        self._plt.close(self._figure)
