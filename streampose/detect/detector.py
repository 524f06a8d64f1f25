"""The detector: pictures of any shapes in, person boxes out, in batches over cameras."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from streampose.detect import letterbox
from streampose.detect.base import BoxOutput
from streampose.errors import ConfigError, ModelError
from streampose.messages import Array, Image
from streampose.models.manifest import Manifest
from streampose.registry import DETECTORS, load
from streampose.runtime.base import Runtime

MIN_SIZE, MAX_SIZE = 64, 4096  # of the input's long side, in pixels
KEPT_SHAPES = 32  # at 640 pixels one takes some 40 MB in fp32; thousands of photographs have 26 there
RuntimeFor = Callable[[int, int], Runtime]
"""Compiles the network for an input of (width, height) pixels, or takes it from the cache."""


class Detector:
    """Finds people in pictures.

    `runtime_for` gives the compiled network for an input shape, `size` is the long side in pixels to which pictures are
    resized (the manifest's where it is None), `canvas` width and height of the only input that the network takes, if it
    takes no other, and `threshold` the least score of a box. Shapes are compiled on first use; `warm_up` does it before.
    Of many shapes, as of a folder of pictures, those used last stay open. Stateless otherwise.
    """

    def __init__(
        self,
        runtime_for: RuntimeFor,
        manifest: Manifest,
        *,
        threshold: float = 0.4,
        size: int | None = None,
        canvas: tuple[int, int] | None = None,
    ) -> None:
        if manifest.output.kind not in DETECTORS:
            raise ConfigError(f"detect.model: {manifest.name} gives {manifest.output.kind}, not boxes; name a detector")
        if size is not None and not MIN_SIZE <= size <= MAX_SIZE:
            raise ConfigError(f"detect.size: {size} pixels; the long side must be {MIN_SIZE} to {MAX_SIZE}")
        if size is not None and canvas is not None and size != max(canvas):
            raise ConfigError(f"detect.size: {size}; {manifest.name} takes {canvas[0]}x{canvas[1]} and nothing else")
        if not 0 < threshold < 1:
            raise ConfigError(f"detect.threshold: {threshold}; a score between 0 and 1 is needed")
        self.manifest = manifest
        self._output = output_of(manifest)
        self.threshold = threshold
        self.size = size or max(manifest.input.width, manifest.input.height)
        self.canvas = canvas
        self._runtime_for = runtime_for
        self._runtimes: OrderedDict[tuple[int, int], Runtime] = OrderedDict()  # that used last at the end

    def input_shape(self, width: int, height: int) -> tuple[int, int]:
        """Width and height in pixels at which a picture of `width` x `height` enters the network."""
        return letterbox.plan(width, height, self.size, self.canvas).size

    def is_warm(self, width: int, height: int) -> bool:
        """Whether the network is compiled for pictures of `width` x `height`, and open."""
        return self.input_shape(width, height) in self._runtimes

    def warm_up(self, width: int, height: int) -> Runtime:
        """Compile for pictures of `width` x `height` before the first one comes; gives the runtime, to say what it got."""
        return self._runtime(self.input_shape(width, height))

    def __call__(self, images: Sequence[Image]) -> list[tuple[Array, Array]]:
        """Boxes (N, 4) float32 xyxy in pixels of each (H, W, 3) BGR uint8 picture, and scores (N,) float32, best first.

        Boxes may reach outside the picture, where a person does. Pictures of one input shape share a batch. Raises
        ModelError where the network gives something else than its manifest says.
        """
        plans = [letterbox.plan(image.shape[1], image.shape[0], self.size, self.canvas) for image in images]
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, plan in enumerate(plans):
            groups[plan.size].append(index)
        found: dict[int, tuple[Array, Array]] = {}
        for (width, height), members in groups.items():
            batch = np.empty((len(members), height, width, 3), np.uint8)
            for row, index in enumerate(members):
                letterbox.apply(images[index], plans[index], batch[row])
            raw = self._runtime((width, height))(batch)[0]
            check_boxes(raw, self.manifest)
            for row, index in enumerate(members):
                boxes, scores = self._output.decode(raw[row], self.threshold, person=self.manifest.output.person)
                found[index] = plans[index].to_picture(boxes), scores
            self._runtimes.move_to_end((width, height))
            if len(self._runtimes) > KEPT_SHAPES:  # here alone: whoever warms up in another thread closes none
                self._runtimes.popitem(last=False)[1].close()
        return [found[index] for index in range(len(images))]

    def close(self) -> None:
        """Free the compiled networks."""
        for runtime in self._runtimes.values():
            runtime.close()
        self._runtimes.clear()

    def _runtime(self, shape: tuple[int, int]) -> Runtime:
        runtime = self._runtimes.get(shape)
        if runtime is None:
            runtime = self._runtimes[shape] = self._runtime_for(*shape)
        return runtime


def output_of(manifest: Manifest) -> BoxOutput:
    """What the output of a detector is like, by the kind that its manifest names."""
    output: BoxOutput = load(DETECTORS, manifest.output.kind)
    return output


def check_boxes(raw: Array, manifest: Manifest) -> None:
    """A detector says what its manifest promises; raises ModelError where not."""
    output = output_of(manifest)
    if not output.fits(raw.shape):
        raise ModelError(
            f"{manifest.name}: gives {raw.shape}, its manifest promises {manifest.output.kind} {output.shape}; export it so"
        )
    classes = output.class_count(raw.shape)
    if classes is not None and manifest.output.person >= classes:
        raise ModelError(
            f"{manifest.name}: output.person of its manifest is {manifest.output.person}, it has {classes} classes, "
            "counted from 0"
        )
