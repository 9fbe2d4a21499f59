"""A tiny tracking dataset, and a predictor that needs no network."""

import os
import signal
from dataclasses import dataclass

import cv2
import numpy as np

from rossam_core import masks
from rossam_core.records import Frame, ObjectAnnotation
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.experiments.baselines import CropMask, box_pixels

SIZE_HW = (48, 64)


def make_frames(folder, videos=2, frames=3):
    """Two bright rectangles a frame, one moving; the second video's first object has a box, and no mask."""
    made = []
    for v in range(videos):
        for index in range(1, frames + 1):
            path = folder / f"clip {v}" / f"{index:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = np.full((*SIZE_HW, 3), 40, dtype=np.uint8)
            objects = []
            for number, (x, y, w, h) in enumerate([(4 + 3 * index, 6, 12, 8), (30, 26, 9, 14)], start=1):
                image[y : y + h, x : x + w] = 200 - 20 * number
                mask = np.zeros(SIZE_HW, dtype=bool)
                mask[y : y + h, x : x + w] = True
                known = None if v == 1 and number == 1 else masks.encode(mask)
                category = ("ship", "NA")[number - 1]
                objects.append(ObjectAnnotation(7 * number, category, (x, y, x + w, y + h), known))
            cv2.imwrite(str(path), image)
            made.append(Frame("tiny", f"clip {v}", index, path, SIZE_HW, tuple(objects)))
    return FrameSet("tiny", made)


@dataclass
class Notched:
    """Box prompts answered with the box less a notch and a hole: masks of several outlines, no two alike."""

    empty_id: float = -1.0

    def predict(self, image, boxes_xyxy):
        found = []
        for box in np.asarray(boxes_xyxy, dtype=float):
            x0, y0, x1, y1 = box_pixels(box, image.shape[:2])
            crop = np.ones((y1 - y0, x1 - x0), dtype=bool)
            crop[:3, : int(box[0]) % 5 + 1] = False
            crop[4:6, 4:6] = False
            if box[0] == self.empty_id:
                crop[:] = False
            found.append(CropMask(crop, (x0, y0), image.shape[:2], tuple(box), "ok" if crop.any() else "empty", 0.5))
        return found


@dataclass
class Fatal:
    """Ends its process: with an exit status, or by a signal if `fate` is negative."""

    fate: int

    def predict(self, image, boxes_xyxy):
        if self.fate < 0:
            os.kill(os.getpid(), -self.fate)
        os._exit(self.fate)


@dataclass
class KilledOnce(Notched):
    """`Notched` whose process is killed at the third frame of a video, unless the file `mark` says that it was."""

    mark: str = ""

    def predict(self, image, boxes_xyxy):
        if len(boxes_xyxy) and boxes_xyxy[0][0] == 13 and not os.path.exists(self.mark):
            with open(self.mark, "x"):
                os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(image, boxes_xyxy)


class Faulty:
    def predict(self, image, boxes_xyxy):
        return 1 / 0


def all_bytes(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
