"""The trained detector: figures in, the boxes of their panels out.

Boxes are float32 [N, 4], pixel corners (x0, y0, x1, y1) with x0 < x1, y0 < y1 and exclusive far edges.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from medssl_jax.augment import to_unit
from medssl_jax.errors import UserError
from medssl_jax.figures.boxes import apart
from medssl_jax.figures.letterbox import Letterboxed, letterbox, to_figure
from medssl_jax.figures.suppress import best_boxes
from medssl_jax.models import detector
from medssl_jax.train import checkpoint
from medssl_jax.train.logging import read_json, write_json

OWN = Path(__file__).with_name("weights") / "detector.npz"
WEIGHTS, ABOUT = "pretrained", "detector.json"  # in a run directory
BATCH = 8  # figures at a time
SMALLEST = 1.0  # px of the figure, that a side of a box has at least
Found = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Detector:
    """`detector(images)` finds panels; `weights` are the parameters of `models.detector(width, blocks)`, `size` the side in pixels of the
    squares it sees, and `threshold` the least score of a box that is returned (`dataclasses.replace` sets another)."""

    weights: Any
    width: int
    blocks: int
    size: int
    threshold: float

    @classmethod
    def load(cls, run: Path | None = None) -> Detector:
        """The detector of a finished run directory, or the one that comes with the package. Raises UserError where there is none."""
        if run is None:
            return _read(OWN)
        about = run / ABOUT
        if not about.exists():
            raise UserError(f"{run} holds no trained detector (no {ABOUT}); give the --workdir of a finished run of configs/simcfs.py.")
        told = _told(about)
        checkpoint.check_inventory(run / WEIGHTS, told.pop("files"))
        place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        return cls(jax.device_get(checkpoint.load_tree(run / WEIGHTS, place)), **told)

    @cached_property
    def mark(self) -> str:
        """Eight hexadecimal digits that tell its weights and threshold from others'."""
        told = [self.threshold, self.size, *jax.tree.leaves(self.weights)]
        return hashlib.sha256(b"".join(np.asarray(one).tobytes() for one in told)).hexdigest()[:8]

    @cached_property
    def _predict(self) -> Any:
        network, size = detector(self.width, blocks=self.blocks), self.size
        return jax.jit(lambda weights, squares: best_boxes(network.apply(weights, {}, to_unit(squares), train=False)[0], size))

    @cached_property
    def _placed(self) -> Any:
        return jax.device_put(self.weights)

    def __call__(self, images: Sequence[np.ndarray]) -> list[Found]:
        """Figures uint8 [H, W, 3] of any sizes -> (boxes float32 [N, 4] in the figure's own pixels, scores float32 [N]), the surest first.

        They are the panels to be cut out: of a score of `threshold` at least, and apart (`boxes.apart`). There may be none in a figure.
        """
        return [(boxes[stay], scores[stay]) for boxes, scores in self.every(images, self.threshold) for stay in [apart(boxes)]]

    def every(self, images: Sequence[np.ndarray], least: float) -> list[Found]:
        """The same of all boxes of a score of `least` at least, as average precision asks for them.

        While a batch is computed the next one is scaled.
        """
        found: list[Found] = []
        ahead: Any = None
        for start in range(0, len(images), BATCH):
            part = images[start : start + BATCH]
            boxed = [letterbox(image, self.size) for image in part]
            squares = np.zeros((BATCH, self.size, self.size, 3), np.uint8)
            squares[: len(part)] = [one.image for one in boxed]
            ready, ahead = ahead, (part, boxed, self._predict(self._placed, squares))
            found += self._own_pixels(least, *ready) if ready else []
        return found + (list(self._own_pixels(least, *ahead)) if ahead else [])

    def _own_pixels(self, least: float, images: Sequence[np.ndarray], boxed: list[Letterboxed], predicted: Any) -> Iterator[Found]:
        """Each figure's boxes from the squares', without those of too little score or extent."""
        for image, one, boxes, scores in zip(images, boxed, *jax.device_get(predicted)):
            own = to_figure(boxes, image.shape[:2], one.extent)
            good = (scores >= least) & (scores > 0) & (own[:, 2:] - own[:, :2] >= SMALLEST).all(1)
            yield own[good], scores[good]

    def save(self, path: Path) -> None:
        """Weights as float16 and all else in one .npz."""
        about = {key: value for key, value in dataclasses.asdict(self).items() if key != "weights"}
        arrays: dict[str, Any] = {name: np.asarray(x, np.float16) for name, x in flatten_dict(self.weights, sep="/").items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.savez_compressed(file, about=np.array(json.dumps(about)), **arrays)


def keep(run: Path, found: Detector) -> None:
    """Leave a trained detector in a run directory, where `Detector.load` finds it."""
    checkpoint.save_tree(run / WEIGHTS, found.weights)
    about = {key: value for key, value in dataclasses.asdict(found).items() if key != "weights"}
    write_json(run / ABOUT, about | {"files": checkpoint.inventory(run / WEIGHTS)})


def export(run: Path, path: Path) -> None:
    """Write the detector of a run directory as one .npz of float16, as it is shipped. Raises UserError where there is none."""
    Detector.load(run).save(path)


def _told(path: Path) -> dict[str, Any]:
    """What a run directory says of its detector, with its files. Raises UserError where that is not all of it."""
    remedy = "train again in another --workdir"
    found = read_json(path, dict, remedy)
    kinds: dict[str, Any] = {"width": int, "blocks": int, "size": int, "threshold": (int, float), "files": dict}
    if found.keys() != kinds.keys() or not all(isinstance(found[name], kind) for name, kind in kinds.items()):
        raise UserError(f"{path} does not describe a detector as this version writes it (damaged, or of another version); {remedy}.")
    return found


def _read(path: Path) -> Detector:
    if not path.exists():
        raise UserError(
            f"there is no trained detector at {path}; train one with python -m medssl_jax.main --config=configs/simcfs.py and name its run."
        )
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(str(arrays.pop("about")))
        weights = unflatten_dict({name: x.astype(np.float32) for name, x in arrays.items()}, sep="/")
        return Detector(weights, **about)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is no detector, or is damaged ({type(error).__name__}); install the package again.") from error
