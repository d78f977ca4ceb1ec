"""Models that can be named on the command line, with inputs of the size they expect."""

from __future__ import annotations

import importlib
from typing import Any

import attrs
import torch

from precisionbench.errors import WorkloadError, did_you_mean, text_of

# torchvision gives no weight metadata for a few models; ImageNet's size fits those.
_DEFAULT_IMAGE_SIZE = 224
_VIDEO_FRAMES = 16
_FLOW_SIZE = (128, 128)  # RAFT refuses anything smaller


@attrs.frozen
class TorchvisionModel:
    """A torchvision model with random weights and random inputs; nothing is downloaded.

    Attributes:
        name: as `torchvision.models.list_models()` gives it.
        batch_size: images, clips or pairs in one call.
    """

    name: str
    batch_size: int

    def __call__(self) -> tuple[torch.nn.Module, Any]:
        """Build the model and its inputs from torch's current random state."""
        models = _torchvision_models(self.name)
        keywords = (
            {"weights_backbone": None}
            if self._family(models) in ("detection", "segmentation")
            else {}
        )
        model = models.get_model(self.name, weights=None, **keywords)
        return model, self._inputs(models)

    def preload(self) -> None:
        """Import what building it requires: a worker does so while others import, too."""
        _torchvision_models(self.name)

    def _family(self, models: Any) -> str:
        builder = models.get_model_builder(self.name)
        parts = builder.__module__.removeprefix("torchvision.models.").split(".")
        return parts[0] if len(parts) > 1 else "classification"

    def _inputs(self, models: Any) -> Any:
        family, size = self._family(models), self._image_size(models)
        if family == "detection":
            return ([torch.rand(3, size, size) for _ in range(self.batch_size)],)
        if family == "optical_flow":
            pair = (self.batch_size, 3, *_FLOW_SIZE)
            return torch.rand(pair), torch.rand(pair)
        if family == "video":
            return torch.rand(self.batch_size, 3, _VIDEO_FRAMES, size, size)
        return torch.rand(self.batch_size, 3, size, size)

    def _image_size(self, models: Any) -> int:
        """The crop size that the published weights were evaluated at."""
        weights = models.get_model_weights(self.name)
        default = getattr(weights, "DEFAULT", None)
        crop = getattr(getattr(default, "transforms", None), "keywords", {}).get("crop_size")
        sizes = crop if isinstance(crop, (tuple, list)) else [crop]
        return sizes[-1] or _DEFAULT_IMAGE_SIZE


def _torchvision_models(name: str) -> Any:
    try:
        models = importlib.import_module("torchvision.models")
    except ImportError as exc:
        raise WorkloadError(
            f"the model 'torchvision:{name}' requires torchvision, which cannot be imported "
            f"({text_of(exc)})",
            # the version of torch keeps pip from replacing it
            f"pip install torchvision torch=={torch.__version__.partition('+')[0]} (on a Jetson: "
            "the torchvision built for its torch)",
        ) from exc
    known = models.list_models()
    if name not in known:
        raise WorkloadError(
            f"torchvision has no model {name!r}", _few(did_you_mean(name, known), len(known))
        )
    return models


def _few(remedy: str, count: int) -> str:
    """The remedy without the list of all of torchvision's models."""
    guess = remedy.partition("known:")[0]
    return f"{guess}torchvision.models.list_models() lists all {count}"
