"""A twin's train step and its stages, as `experiments.speed` times them: fused AdamW, eager or compiled, in two memory layouts.

On CUDA, convolutions are in TF32 where the config says float32, and crops, blur and InfoNCE in full float32: PyTorch's defaults, and what
JAX does on the same chip. Only the heads' few products, TF32 in JAX, are float32 here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import Tensor, nn

from experiments import torch_twin
from medssl_jax.augment import Recipe

EAGER = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
COMPILED = {f"compiled {name}": layout for name, layout in EAGER.items()}
LAYOUTS = {**EAGER, **COMPILED}


class TorchSide:
    """The twin with the JAX parameters `params` on a `device`; `image` [B, T, T, C] and the `views` are NHWC, as JAX has them.

    `name` is one of LAYOUTS; those of COMPILED have views and loss by torch.compile. Raises UserError for a config without a twin.
    """

    def __init__(
        self, config: ConfigDict, recipe: Recipe, image: np.ndarray, views: list[np.ndarray], params: Any, name: str, device: str = "cpu"
    ) -> None:
        torch.backends.cudnn.benchmark = True  # shapes stay as they are; XLA tries the algorithms of a convolution too
        self.device, self.layout = torch.device(device), LAYOUTS[name]
        self._before = torch.cuda.memory_allocated() if device == "cuda" else 0  # of the other sides
        self.twin = torch_twin.build(config, recipe, image.shape[-1])
        torch_twin.load(self.twin, params)
        self.twin.to(self.device, memory_format=self.layout)  # type: ignore[call-overload]
        self.image, *self.given = (self._tensor(x) for x in (image, *views))
        self.optimizer, self.schedule = make_optimizer(self.twin, config.pretrain.optimizer, config.pretrain.steps)
        self.clip, self.step = config.pretrain.optimizer.clip, 0
        compiled: Callable[[Any], Any] = (lambda f: torch.compile(f, dynamic=False)) if name in COMPILED else (lambda f: f)
        self._views, self._loss = compiled(self.twin.views), compiled(self.twin)

    def runs(self) -> dict[str, Callable[[], Any]]:
        """The stages, each until it is done."""
        calls = {"augmentation": self._augment, "forward": self.loss, "forward+backward": self._backward}
        calls |= {"optimizer": self._optimize, "full step": self._full}
        return {stage: self._waited(call) for stage, call in calls.items()}

    def first_calls(self) -> dict[str, float]:
        """Seconds of the first call of each stage, in which torch.compile compiles (and cuDNN chooses)."""
        found = {}
        for stage, run in self.runs().items():
            began = time.perf_counter()
            run()
            found[stage] = round(time.perf_counter() - began, 2)
        return found

    def parameters(self) -> int:
        """How many numbers are learned."""
        return sum(p.numel() for p in self.twin.learned().values())

    def loss(self) -> float:
        """The loss of the given views, without a gradient."""
        with torch.no_grad():
            return float(self._loss(*self.given))

    def bytes(self) -> int | None:
        """The most that a full step holds, this side's own tensors included; None on a CPU, where PyTorch does not count."""
        if self.device.type != "cuda":
            return None
        torch.cuda.reset_peak_memory_stats()
        self._full()
        return int(torch.cuda.max_memory_allocated() - self._before)

    def _waited(self, call: Callable[[], Any]) -> Callable[[], Any]:
        if self.device.type != "cuda":
            return call

        def run() -> None:
            """The call, and what it left to do."""
            call()
            torch.cuda.synchronize()

        return run

    def _tensor(self, x: np.ndarray) -> Tensor:
        return torch.tensor(np.moveaxis(x, 3, 1)).contiguous(memory_format=self.layout).to(self.device)

    def _augment(self) -> list[Tensor]:
        with torch.no_grad():
            return [view.contiguous(memory_format=self.layout) for view in self._views(self.image)]

    def _backward(self) -> None:
        self.optimizer.zero_grad()
        self._loss(*self.given).backward()

    def _full(self) -> float:
        views = self._augment()
        self.optimizer.zero_grad()
        loss = self._loss(*views)
        loss.backward()
        self._update()
        return float(loss.detach())

    def _optimize(self) -> None:
        if any(value.grad is None for value in self.twin.learned().values()):
            self._backward()  # once: without gradients AdamW does nothing
        self._update()

    def _update(self) -> None:
        if self.clip:
            nn.utils.clip_grad_norm_(self.twin.parameters(), self.clip)
        self.optimizer.step()
        self.schedule.step()
        self.twin.after_update(self.step)
        self.step += 1


def make_optimizer(twin: torch_twin.Twin, config: ConfigDict, steps: int) -> tuple[torch.optim.Optimizer, Any]:
    """AdamW without decay on biases and norms, and its warm-up and cosine."""
    learned = list(twin.learned().values())
    groups: list[dict[str, Any]] = [{"params": [p for p in learned if p.ndim > 1]}]
    groups.append({"params": [p for p in learned if p.ndim < 2], "weight_decay": 0.0})
    adam = torch.optim.AdamW(groups, config.learning_rate, betas=(0.9, config.b2), weight_decay=config.weight_decay, fused=True)
    warmup = int(config.warmup * steps)

    def rate(step: int) -> float:
        """The share of the peak."""
        return step / warmup if step < warmup else (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1))) / 2

    return adam, torch.optim.lr_scheduler.LambdaLR(adam, rate)
