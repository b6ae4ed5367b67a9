"""A folder of the learner's own photographs, as an album without truth."""

from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from course import photo
from course.albums import CROP, CROP_SCALE, Batch, shaken
from course.files import quiet

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
MARGIN = 1.5  # what is kept of a picture, over what is cropped
KEPT = 224  # pixels a side


class Folder:
    """Photographs whose faces were found: ``len(folder)``, ``folder.batch(numbers, flame, rngs)``.

    Pictures directly in the folder each show another person; those in a folder inside it one and
    the same. Pictures without a face are left out, and said. Raises ValueError when none is left.
    """

    def __init__(self, path, detector="built-in"):
        path = Path(path)
        if not path.is_dir():
            raise ValueError(f"There is no folder {path}.")
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        self.images, self.landmarks, self.person, people = [], [], [], {}
        self.left_out = []
        for file in tqdm(files, "your photographs", disable=quiet()):
            try:
                image = photo.read(file)
                points = photo.detect(image, detector=detector).points
            except photo.PhotoError as error:
                self.left_out.append((file.name, str(error)))
                continue
            who = file.parent if file.parent != path else file
            crop = photo.crop_around(points, KEPT, CROP_SCALE * MARGIN)
            pixels = crop.apply(image).permute(1, 2, 0).mul(255).round().byte().numpy()
            self.images.append(pixels)
            self.landmarks.append(crop.to_crop(points).astype(np.float32))
            self.person.append(people.setdefault(who, len(people)))
        for name, reason in self.left_out:
            print(f"{name} is left out: {reason}")
        if not self.images:
            raise ValueError(f"There is no photograph with a face in {path}.")

    def __len__(self):
        return len(self.images)

    def batch(self, numbers, flame=None, rngs=None):
        """Batch of photographs, cropped upright; ``rngs``, one a photograph, shake the crops."""
        images, marks = [], []
        for i, k in enumerate(numbers):
            crop = photo.crop_around(self.landmarks[k], CROP, CROP_SCALE, upright=True)
            if rngs is not None:
                shaken(crop, rngs[i])
            images.append(crop.apply(self.images[k]))
            marks.append(crop.to_crop(self.landmarks[k]).astype(np.float32))
        person = torch.tensor([self.person[k] for k in numbers])
        return Batch(torch.stack(images), None, torch.from_numpy(np.stack(marks)), None, person)
