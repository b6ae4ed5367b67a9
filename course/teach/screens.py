"""Pictures of numbers: signed maps, tiles with names, and a screen that follows a descent."""

import cv2
import ipywidgets
import numpy as np
import torch
from IPython.display import display

from course.export import to_uint8
from course.teach import setup, widgets

ABOVE, BELOW = (0.84, 0.37, 0.0), (0.0, 0.45, 0.70)  # two colours of figures.COLOURS


def signed(values, limit):
    """Numbers (H, W) as a picture (3, H, W): orange above zero, blue below, white at zero.

    ``limit`` is the size that gets the full colour.
    """
    x = (values.detach() / limit).clamp(-1, 1).float()[None]
    above, below = (1 - x.new_tensor(colour).view(3, 1, 1) for colour in (ABOVE, BELOW))
    return 1 - x.clamp_min(0) * above - (-x).clamp_min(0) * below


def tiles(pictures, names, columns=2, side=170):
    """Pictures (3, H, W) or (H, W) in 0…1 as one (rows·side, columns·side, 3) uint8, named."""
    made = []
    for picture, name in zip(pictures, names, strict=True):
        picture = torch.as_tensor(picture).detach()
        picture = picture.expand(3, -1, -1) if picture.ndim == 2 else picture
        tile = cv2.resize(to_uint8(picture), (side - 2, side - 2), interpolation=cv2.INTER_NEAREST)
        for colour, width in (((255, 255, 255), 3), ((70, 70, 70), 1)):  # dark, with a white rim
            cv2.putText(tile, name, (5, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, width, 16)
        made.append(cv2.copyMakeBorder(tile, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(200,) * 3))
    rows = [np.hstack(made[k : k + columns]) for k in range(0, len(made), columns)]
    return np.vstack(rows)


def live(target, width=660):
    """Show target, drawing and loss while a loop runs: ``update(drawing, losses)`` redraws.

    ``target`` and ``drawing`` are (3, H, W) in 0…1. In tests nothing is shown.
    """
    if setup.quiet():
        return lambda drawing, losses: None
    screen = ipywidgets.Image(format="jpeg", width=width)
    display(screen)

    def update(drawing, losses):
        side = target.shape[-2]
        board = np.full((side, side, 3), 255, np.uint8)
        heights = side - 4 - (side - 8) * np.array(losses) / max(max(losses), 1e-12)
        line = np.stack([np.linspace(4, side - 4, len(losses)), heights], 1).astype(np.int32)
        cv2.polylines(board, [line], False, (0, 114, 178), 2, cv2.LINE_AA)
        panes = [to_uint8(p.detach().clamp(0, 1)) for p in (target, drawing)]
        screen.value = widgets.encode(np.hstack([*panes, board]))

    return update
