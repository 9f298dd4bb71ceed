"""SimCLR and BYOL as a user of lightly writes them: torchvision's backbone, lightly's heads, losses and transforms, and a DataLoader.

After the examples of its documentation; images are read, cropped and changed by the processes of the DataLoader. JAX is not needed here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightly.data import LightlyDataset
from lightly.loss import NegativeCosineSimilarity, NTXentLoss
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead, SimCLRProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.transforms import SimCLRTransform
from lightly.transforms.byol_transform import BYOLTransform, BYOLView1Transform, BYOLView2Transform
from lightly.utils.scheduler import cosine_schedule
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler
from torchvision import models

from experiments.pace import WARM_UP, Pace, in_a_row
from medssl_jax.errors import UserError

RATE = 0.06  # of SGD, as in lightly's examples
ENDLESS = 10**9  # images of an epoch: a set so large that none ends while it is timed
HIDDEN = {2048: 4096}  # width of BYOL's heads by the backbone's: lightly's default for a ResNet-50; 1024, as in its examples, for others
PREFETCHED = 2  # batches of each process, the DataLoader's default


class SimCLR(nn.Module):
    """NT-Xent of two views."""

    def __init__(self, network: str) -> None:
        super().__init__()
        self.backbone = getattr(models, network)(weights=None)
        self.width, self.backbone.fc = self.backbone.fc.in_features, nn.Identity()
        self._add_heads()

    def _add_heads(self) -> None:
        self.projector, self.criterion = SimCLRProjectionHead(self.width, self.width, 128), NTXentLoss()

    def before(self, step: int, steps: int) -> None:
        """Nothing moves beside the parameters."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The loss of two views [B, C, S, S]."""
        return self.criterion(self.projector(self.backbone(first)), self.projector(self.backbone(second)))

    @staticmethod
    def transform(size: int) -> Any:
        """An image -> two views."""
        return SimCLRTransform(input_size=size)


class BYOL(SimCLR):
    """What a slowly moving average says of the other view."""

    def _add_heads(self) -> None:
        hidden = HIDDEN.get(self.width, 1024)
        self.projector, self.predictor = BYOLProjectionHead(self.width, hidden, 256), BYOLPredictionHead(256, hidden, 256)
        self.teacher = copy.deepcopy(nn.Sequential(self.backbone, self.projector))
        deactivate_requires_grad(self.teacher)
        self.criterion = NegativeCosineSimilarity()

    def before(self, step: int, steps: int) -> None:
        """The teacher moves."""
        moment = cosine_schedule(step, steps, 0.996, 1)
        for student, teacher in zip((self.backbone, self.projector), self.teacher, strict=True):
            update_momentum(student, teacher, m=moment)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The loss of two views [B, C, S, S]."""
        p0, p1 = (self.predictor(self.projector(self.backbone(view))) for view in (first, second))
        with torch.no_grad():
            z0, z1 = self.teacher(first), self.teacher(second)
        return 0.5 * (self.criterion(p0, z1) + self.criterion(p1, z0))

    @staticmethod
    def transform(size: int) -> Any:
        """An image -> two views."""
        return BYOLTransform(BYOLView1Transform(input_size=size), BYOLView2Transform(input_size=size))


METHODS: dict[str, type[SimCLR]] = {"simclr": SimCLR, "byol": BYOL}


def measured(case: dict[str, Any], folder: Path, steps: int, workers: int, device: str) -> Pace:
    """Images a second of steps in a row out of the files of `folder`, and the share of the time without a batch.

    `case` are the values of a throughput.Case. Raises UserError where `device` is cuda, and PyTorch has none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("PyTorch finds no GPU where JAX has one; install a PyTorch for CUDA.")
    torch.backends.cudnn.benchmark = True
    method = METHODS[case["method"]]
    batches = read(folder, method.transform(case["size"]), case["batch"], workers, device)
    warm_up = PREFETCHED * workers + WARM_UP  # what was read before the first step is used up
    step = train_step(method(case["network"]), case["dtype"], warm_up + steps, device)
    return in_a_row(lambda views: _started(step, views, device), batches, warm_up, steps, case["batch"])


def _started(step: Callable[[list[Tensor]], None], views: list[Tensor], device: str) -> Callable[[], None]:
    """Start the step; what waits for its end, which on a CPU has come."""
    step(views)
    return torch.cuda.current_stream().record_event().synchronize if device == "cuda" else lambda: None


def read(folder: Path, transform: Any, batch: int, workers: int, device: str) -> Iterator[list[Tensor]]:
    """Pairs of views [B, C, S, S] of the files, in a random order without an end."""
    files = LightlyDataset(str(folder), transform=transform)
    order = RandomSampler(files, replacement=True, num_samples=ENDLESS)
    loader = DataLoader(files, batch, sampler=order, num_workers=workers, drop_last=True, pin_memory=device == "cuda")
    return (views for views, _, _ in loader)


def train_step(model: SimCLR, dtype: str, steps: int, device: str) -> Callable[[list[Tensor]], None]:
    """A step on two views: SGD, channels last, under autocast where the type is bfloat16."""
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=RATE)
    done = 0

    def step(views: list[Tensor]) -> None:
        """One update."""
        nonlocal done
        model.before(min(done, steps), steps)
        done += 1
        first, second = (view.to(device, non_blocking=True, memory_format=torch.channels_last) for view in views)
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = model(first, second)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step
