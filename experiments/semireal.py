"""The semi-real set: layouts of published figures filled with single images that no detector is trained on.

Layouts are those of ImageCLEF 2016's training figures (the shipped ones are replayed in training), their lines of 3 px replaced by gaps of
a known width. Figures are of every bucket: gap x classes x number of panels. All panels are images, so that a bucket means what it says.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from experiments import commit
from experiments.cut_tables import EVERY, NOTHING, by_group, differences
from experiments.cutters import DETECTOR, PARTITION, TIGHT, Cutter, Sample, cut, summary
from medssl_jax.config import SHIPPED, base
from medssl_jax.data.dataset import Dataset, Example, Info, Source, describe
from medssl_jax.data.sources import open_dataset
from medssl_jax.data.stream import sub_seed
from medssl_jax.errors import UserError
from medssl_jax.figures.detect import Detector
from medssl_jax.figures.pools import Joined, listed
from medssl_jax.figures.simulate import Figures, Style
from medssl_jax.train.logging import read_json, say, write_json

RECORD = "figures_semireal.json"
SINGLES = ("pbc_blood_cells", "chase_db1")
LAYOUTS = "panel_layouts/imageclef2016_training_boxes.csv"
NEEDED = (*SINGLES, LAYOUTS)  # below the folder of the data sets
SEED = 0
PER_BUCKET = 14  # figures of each of the 18 buckets
SIDE = 360  # pixels that the shorter side of an image of a class folder is scaled to, about what blood cells have
GAPS = {"gap 0": (0.0, 0.0), "gap to 1 %": (0.0, 0.01), "gap above 1 %": (0.011, 0.07)}  # of the width, by the quantiles of published ones
CLASSES = {"intra-class": 1.0, "inter-class": 0.0}  # probability of the simulator's intra-class mode
PANELS = {"2 to 4 panels": (2, 4), "5 to 9 panels": (5, 9), "10 panels or more": (10, 1000)}


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Figures alike in gap, classes and number of panels, by their names in the tables."""

    gap: str
    classes: str
    panels: str

    def style(self, layouts: Path) -> Style:
        """What its figures look like; letters, frames, grounds and degradation are the simulator's."""
        return Style(
            replayed=1.0,
            layouts=str(layouts),
            panels=PANELS[self.panels],
            respaced=GAPS[self.gap],
            intra_class=CLASSES[self.classes],
            distractors=0.0,
        )

    def figures(self, source: Source, layouts: Path) -> Figures:
        """Figure i depends on the bucket and on i alone."""
        return Figures(source, self.style(layouts), sub_seed(SEED, f"semi-real/{self.gap}/{self.classes}/{self.panels}"))


BUCKETS = tuple(Bucket(*names) for names in itertools.product(GAPS, CLASSES, PANELS))


def measure(data: Path, ways: Mapping[str, Cutter], record: Path, per_bucket: int = PER_BUCKET) -> int:
    """Scores of every way to cut, of all figures and by bucket, into `record`; 0. Raises UserError for what cannot be read."""
    if per_bucket < 1:
        raise UserError(f"--per-bucket={per_bucket} leaves no figure to score; ask for one or more.")
    say(f"semi-real: {per_bucket} figures of each of {len(BUCKETS)} buckets, cut by {', '.join(ways)}.")
    cuts = cut(samples(data, per_bucket), ways)
    about = {
        "singles": SINGLES,
        "layouts": LAYOUTS,
        "seed": SEED,
        "per_bucket": per_bucket,
        "code": commit.current(),
        "detector": ways[DETECTOR].mark,
    }
    write_json(record, {**about, **summary(cuts, groups(per_bucket))})
    print(table(record))
    return 0


def singles(data: Path) -> Source:
    """The single images, each set as likely as the other in a figure. Raises UserError for what cannot be read."""
    return Joined([every_image(data / name) for name in SINGLES])


def samples(data: Path, per_bucket: int) -> Iterator[Sample]:
    """The figures of all buckets. Raises UserError for what cannot be read."""
    source, layouts = singles(data), data / LAYOUTS
    for bucket in BUCKETS:
        figures = bucket.figures(source, layouts)
        for i, name in zip(meant(bucket, figures), _names(bucket, per_bucket)):
            figure = figures[i]
            yield Sample(name, figure["image"], figure["boxes"])


def meant(bucket: Bucket, figures: Figures) -> Iterator[int]:
    """The figures that are of the bucket: those of several classes show two at least, which chance alone does not see to."""
    labels = figures.singles.labels
    assert labels is not None
    several = CLASSES[bucket.classes] == 0
    seen = ((i, {labels[image.number] for image in figures.plan(i).shown if image}) for i in itertools.count())
    return (i for i, classes in seen if not several or len(classes) > 1)


def groups(per_bucket: int) -> dict[str, list[str]]:
    """The figures' names: all, by gap and classes, and by number of panels."""
    names = {bucket: _names(bucket, per_bucket) for bucket in BUCKETS}
    found: dict[str, list[str]] = {EVERY: [], **{f"{gap}, {classes}": [] for gap in GAPS for classes in CLASSES}, **{p: [] for p in PANELS}}
    for bucket, own in names.items():
        for group in (EVERY, f"{bucket.gap}, {bucket.classes}", bucket.panels):
            found[group] += own
    return found


def check_run(run: Path, of: Sequence[str] = NEEDED, made: str = "the semi-real figures") -> None:
    """Raises UserError for a detector that has learned, itself or as the one it was continued from, from the images or the layouts that
    figures are made `of`, by the names of their folders and files; and for a run that does not tell."""
    config = run / "config.json"
    if not config.exists():
        Detector.load(run)  # tells where there is none at all
        raise UserError(f"{run} does not tell what it was trained on (no config.json), which {made} must not be; name a whole run.")
    told = read_json(config, dict, "train again in another --workdir")
    paths = [*listed(str(told.get("data", {}).get("path", ""))), str(told.get("figures", {}).get("style", {}).get("layouts", ""))]
    seen = {part for path in paths for part in Path(path).resolve().parts}
    both = [name for name in (Path(one).name for one in of) if name in seen]
    if both:
        raise UserError(f"{run} was trained on {both[0]}, of which {made} are made; train it on others.")
    if (before := told.get("pretrain", {}).get("from_run", "")) not in ("", SHIPPED):
        check_run(Path(before).expanduser(), of, made)


def table(record: Path) -> str:
    """Markdown: the scores by bucket and method in both conventions, and the detector's paired differences."""
    if not record.exists():
        return NOTHING
    told = read_json(record, dict, "measure again")
    return "\n\n".join(part for part in (by_group(told, TIGHT), by_group(told, PARTITION), differences(told)) if part)


def _names(bucket: Bucket, count: int) -> list[str]:
    return [f"{bucket.gap}, {bucket.classes}, {bucket.panels}, {i}" for i in range(count)]


def every_image(path: Path) -> Source:
    """All parts of a data set that none is trained on."""
    options = base().data
    options.update({"path": str(path), "tile": SIDE})
    return _Whole(open_dataset(options))


class _Whole:
    """Training, validation and test images one after another."""

    def __init__(self, dataset: Dataset) -> None:
        self._places = [(part, i) for part in (dataset.pool, dataset.val, dataset.test) for i in range(len(part))]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Example:
        part, own = self._places[index]
        return part[own]

    def info(self, index: int) -> Info:
        """What is known without decoding."""
        part, own = self._places[index]
        return describe(part, own)
