"""Windows of recorded episodes for PyTorch's data loaders, read from disk as they are asked for."""

import torch
from torch.utils.data import Dataset

from rmr_gym.data.reader import TransitionReader


class WindowDataset(Dataset[dict[str, torch.Tensor]]):
    """Every ``length`` successive observations of an episode, with what was done between them.

    An item is a dictionary by column: observations are [length, ...]; actions, rewards and flags
    are [length - 1, ...]. A window of two is a transition. None crosses the end of an episode.
    Workers of a `torch.utils.data.DataLoader` may be forked or spawned; each reads the chunks that
    its batch needs, once.

    Args:
        reader: Of the columns and episodes, from `rmr_gym.data.dataset.TransitionDataset.reader`.
        length: Observations in a window, 1 or more.
        stride: Rows from the start of a window to that of the next in the same episode.

    Raises:
        RMRError: ``length`` or ``stride`` is below 1; on reading, a file is damaged.

    Example:
        >>> windows = WindowDataset(dataset.reader(("pixels", "action")), 4)  # doctest: +SKIP
        >>> windows[0]["pixels"].shape, windows[0]["action"].shape  # doctest: +SKIP
        (torch.Size([4, 210, 160]), torch.Size([3]))
    """

    def __init__(self, reader: TransitionReader, length: int = 2, stride: int = 1):
        self.reader, self.windows = reader, reader.windows(length, stride)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, torch.Tensor]]:
        """Return several items; data loaders ask for a batch at once."""
        columns = self.reader.read(self.windows[indices])
        tensors = {name: torch.from_numpy(rows) for name, rows in columns.items()}
        return [{name: rows[i] for name, rows in tensors.items()} for i in range(len(indices))]
