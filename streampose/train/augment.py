"""Augmentation of person crops as tensor operations, a whole batch at once on the training device.

Two views come out of a stored crop: the clean one, moved, turned, mirrored and scaled, which a teacher sees; and the
same seen by a bad camera, which the student sees: small, blurred, moved, compressed, noisy, grey, partly hidden. JPEG is
its own steps (colour transform, 4:2:0, DCT, quantisation by the tables of ITU-T T.81 Annex K), rounding included.
Letters: B crops, K joints, H x W the network's input, S x T the stored crop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from streampose.train.ranges import AmountPair, PositivePair, QualityPair, Strict


class AugmentSpec(Strict):
    """How much of everything; probabilities in 0..1."""

    flip: float = Field(0.5, ge=0, le=1)
    rotate: float = Field(0.6, ge=0, le=1)
    rotate_deg: float = Field(20.0, ge=0, le=180, description="standard deviation; cut at twice that")
    scale: PositivePair = (0.8, 1.15)
    shift: float = Field(0.03, ge=0, description="standard deviation, of the crop's sides")
    half_body: float = Field(0.08, ge=0, le=1)
    colour: float = Field(0.5, ge=0, le=1)
    grey: float = Field(0.1, ge=0, le=1)
    occlude: float = Field(0.15, ge=0, le=1)
    camera: float = Field(0.7, ge=0, le=1, description="share of crops that a far camera sees; the others stay clean")
    person_px: PositivePair = (28.0, 140.0)
    blur: float = Field(0.2, ge=0, le=1)
    motion: float = Field(0.1, ge=0, le=1)
    noise: AmountPair = (0.0, 9.0)
    jpeg: QualityPair = (30.0, 90.0)


@dataclass(frozen=True, slots=True)
class PersonBatch:
    """Stored crops (B, S, T, 3) uint8 RGB, `points` (B, K, 2) in stored pixels, `weights` (B, K), `box_px` (B,) height
    of the person's box in stored pixels. The stored crop has as many pixels as the teacher's input wants."""

    crops: Tensor
    points: Tensor
    weights: Tensor
    box_px: Tensor


@dataclass(frozen=True, slots=True)
class Views:
    """`clean` and `seen` (B, 3, H, W) in 0..255, `points` (B, K, 2) in input pixels, joints swapped where mirrored,
    `weights` (B, K), zero where a joint left the crop; `order` (B, K) says which stored joint stands where. `detail`
    (B, 3, zoom H, zoom W) is the clean crop as the teacher sees it, its pixel zoom x where the input's is x; `affine`
    (B, 2, 3) is the map from stored to input pixels."""

    detail: Tensor
    clean: Tensor
    seen: Tensor
    points: Tensor
    weights: Tensor
    order: Tensor
    affine: Tensor


class Augmenter:
    """Makes `Views` of a `PersonBatch`; every draw comes from the generator it is given."""

    def __init__(
        self,
        spec: AugmentSpec,
        *,
        size: tuple[int, int],
        flip_order: Tensor,
        upper_body: tuple[int, ...],
        zoom: int = 1,
    ) -> None:
        self.spec = spec
        self.width, self.height = size
        self.zoom = zoom
        self.flip_order = flip_order
        self.upper = torch.zeros(len(flip_order), dtype=torch.bool)
        self.upper[list(upper_body)] = True

    def __call__(self, batch: PersonBatch, generator: torch.Generator) -> Views:
        affine, flipped = self._draw_affines(batch, generator)
        detail = warp(batch.crops, affine * self.zoom, self.width * self.zoom, self.height * self.zoom)
        clean = shrink(detail, self.zoom)
        points = batch.points @ affine[:, :, :2].transpose(1, 2) + affine[:, None, :, 2]
        order = torch.where(
            flipped[:, None], self.flip_order.to(flipped.device), torch.arange(points.shape[1], device=flipped.device)
        )
        points = points.gather(1, order[..., None].expand(-1, -1, 2))
        weights = batch.weights.gather(1, order)
        inside = ((points >= 0) & (points < points.new_tensor([self.width, self.height]))).all(-1)
        zoom = torch.linalg.det(affine[:, :, :2]).abs().sqrt()
        seen = self._as_camera(clean, batch.box_px * zoom, generator)
        return Views(detail, clean, seen, points, weights * inside, order, affine)

    def _draw_affines(self, batch: PersonBatch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Maps (B, 2, 3) from stored to input pixels, and which are mirrored (B,)."""
        spec, device, count = self.spec, batch.points.device, len(batch.points)

        def uniform(low: float = 0.0, high: float = 1.0) -> Tensor:
            return torch.rand(count, generator=generator, device=device) * (high - low) + low

        def normal() -> Tensor:
            return torch.randn(count, generator=generator, device=device)

        stored = batch.points.new_tensor([batch.crops.shape[2], batch.crops.shape[1]])
        target = batch.points.new_tensor([self.width, self.height])
        centre = (stored / 2).expand(count, 2)
        scale = uniform(*spec.scale)
        half, half_centre, half_scale = self._half_bodies(batch, uniform() < 0.5)
        half = half & (uniform() < spec.half_body)
        centre = torch.where(half[:, None], half_centre, centre)
        scale = torch.where(half, half_scale * scale, scale)
        centre = centre + torch.stack((normal(), normal()), 1) * spec.shift * target * self.zoom
        turned = uniform() < spec.rotate
        angle = (normal().clamp(-2, 2) * math.radians(spec.rotate_deg)) * turned
        flipped = uniform() < spec.flip
        mirror = torch.where(flipped, -1.0, 1.0)
        cos, sin = torch.cos(angle) * scale / self.zoom, torch.sin(angle) * scale / self.zoom
        linear = torch.stack((cos * mirror, -sin, sin * mirror, cos), 1).view(-1, 2, 2)
        # A mirrored pixel x goes to width - 1 - x, all others keep the stored crop's centre at the input's centre.
        goal = target / 2 - torch.stack((flipped.float(), torch.zeros_like(scale)), 1)
        return torch.cat((linear, (goal - (linear @ centre[..., None])[..., 0])[..., None]), 2), flipped

    def _half_bodies(self, batch: PersonBatch, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where at least three labelled joints of one half are known: their centre and the scale that fills the crop."""
        chosen = torch.where(upper[:, None], self.upper.to(upper.device), ~self.upper.to(upper.device)) & (
            batch.weights > 0
        )
        far = torch.finfo(batch.points.dtype).max
        low = torch.where(chosen[..., None], batch.points, far).amin(1)
        high = torch.where(chosen[..., None], batch.points, -far).amax(1)
        enough = chosen.sum(1) >= 3
        side = (high - low).clamp(min=8.0 * self.zoom) * 1.5
        size = batch.points.new_tensor([self.width * self.zoom, self.height * self.zoom])
        return enough, torch.where(enough[:, None], (low + high) / 2, 0.0), (size / side).amin(1).clamp(0.8, 2.0)

    def _as_camera(self, clean: Tensor, person_px: Tensor, generator: torch.Generator) -> Tensor:
        spec, device, count = self.spec, clean.device, len(clean)

        def uniform(low: float = 0.0, high: float = 1.0) -> Tensor:
            return torch.rand(count, generator=generator, device=device) * (high - low) + low

        seen = occlude(clean, uniform() < spec.occlude, generator)
        seen = recolour(seen, uniform() < spec.colour, uniform() < spec.grey, generator)
        far = uniform() < spec.camera
        log_low, log_high = (math.log(value) for value in spec.person_px)
        wanted = torch.exp(uniform(log_low, log_high))
        ratio = torch.where(far, (wanted / person_px.clamp(min=1.0)).clamp(0.06, 1.0), 1.0)
        rows = torch.round(ratio * self.height).clamp(min=8)
        columns = torch.round(ratio * self.width).clamp(min=6)
        down_y, up_y = resample_matrices(rows, self.height)
        down_x, up_x = resample_matrices(columns, self.width)
        small = down_y[:, None] @ seen @ down_x[:, None].transpose(2, 3)
        small = smear(small, far & (uniform() < spec.blur), far & (uniform() < spec.motion), generator)
        sigma = uniform(*spec.noise) * far
        grain = torch.randn(small.shape, generator=generator, device=device)
        small = (small + grain * sigma[:, None, None, None]).round().clamp(0, 255)
        small = torch.where(far[:, None, None, None], jpeg(small, uniform(*spec.jpeg)), small)
        again = up_y[:, None] @ small @ up_x[:, None].transpose(2, 3)
        return torch.where(far[:, None, None, None], again, seen)


def warp(crops: Tensor, affine: Tensor, width: int, height: int) -> Tensor:
    """(B, S, T, 3) uint8 through maps (B, 2, 3) to (B, 3, height, width) float, bilinear, black outside."""
    count, rows, columns, _ = crops.shape
    linear = torch.linalg.inv(affine[:, :, :2])
    back = torch.cat((linear, -linear @ affine[:, :, 2:]), 2)
    y, x = torch.meshgrid(
        torch.arange(height, device=crops.device, dtype=back.dtype),
        torch.arange(width, device=crops.device, dtype=back.dtype),
        indexing="ij",
    )
    grid = torch.stack((x, y), -1).view(1, -1, 2) @ back[:, :, :2].transpose(1, 2) + back[:, None, :, 2]
    grid = 2.0 * grid / grid.new_tensor([columns - 1, rows - 1]) - 1.0
    pictures = crops.permute(0, 3, 1, 2).float()
    return functional.grid_sample(
        pictures, grid.view(count, height, width, 2), mode="bilinear", padding_mode="zeros", align_corners=True
    )


def shrink(pictures: Tensor, zoom: int) -> Tensor:
    """(B, 3, zoom H, zoom W) to (B, 3, H, W): pixel x of the result is the surroundings of pixel zoom x, weighted by a
    triangle, so that nothing is lost between the pixels and nothing moves."""
    if zoom == 1:
        return pictures
    channels = pictures.shape[1]
    row = zoom - torch.arange(1 - zoom, zoom, device=pictures.device, dtype=pictures.dtype).abs()
    kernel = (row[:, None] * row / zoom**4).expand(channels, 1, -1, -1)
    padded = functional.pad(pictures, [zoom - 1] * 4, mode="replicate")
    return functional.conv2d(padded, kernel, stride=zoom, groups=channels)


def resample_matrices(sizes: Tensor, full: int) -> tuple[Tensor, Tensor]:
    """Area resampling from `full` pixels down to `sizes` (B,), and bilinear back: (B, M, full) and (B, full, M).

    M is the largest size, rounded up to 16 for the blocks of JPEG; rows beyond a crop's own size repeat its last one.
    """
    largest = min(math.ceil(float(sizes.max()) / 16) * 16, math.ceil(full / 16) * 16)
    step = full / sizes[:, None, None]
    row = torch.minimum(torch.arange(largest, device=sizes.device)[None, :, None], sizes[:, None, None] - 1)
    column = torch.arange(full, device=sizes.device)[None, None, :]
    overlap = torch.minimum((row + 1) * step, column + 1.0) - torch.maximum(row * step, column.float())
    down = overlap.clamp(min=0.0) / step
    at = ((torch.arange(full, device=sizes.device)[None] + 0.5) / step[:, :, 0] - 0.5).clamp(min=0.0)
    at = torch.minimum(at, sizes[:, None] - 1)
    up = (1.0 - (at[..., None] - torch.arange(largest, device=sizes.device)).abs()).clamp(min=0.0)
    return down, up


def recolour(pictures: Tensor, change: Tensor, grey: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, contrast, saturation and gamma where `change` (B,), greyscale where `grey` (B,)."""
    draws = torch.rand((5, len(pictures), 1, 1, 1), generator=generator, device=pictures.device) * 2 - 1
    parts = pictures.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    luma = (pictures * parts).sum(1, keepdim=True)
    changed = luma + (pictures - luma) * (1 + 0.4 * draws[0])
    mean = luma.mean((2, 3), keepdim=True)
    changed = mean + (changed - mean) * (1 + 0.3 * draws[1]) + 25.0 * draws[2]
    changed = (changed.clamp(0, 255) / 255) ** torch.exp(0.3 * draws[3]) * 255
    cast = 1 + 0.08 * (torch.rand((len(pictures), 3, 1, 1), generator=generator, device=pictures.device) * 2 - 1)
    pictures = torch.where(change.view(-1, 1, 1, 1), (changed * cast).clamp(0, 255), pictures)
    return torch.where(grey.view(-1, 1, 1, 1), (pictures * parts).sum(1, keepdim=True).expand_as(pictures), pictures)


def occlude(pictures: Tensor, where: Tensor, generator: torch.Generator) -> Tensor:
    """Cover a rectangle (0.15 to 0.4 of each side) of the crops `where` (B,) with a piece of a neighbour in the batch."""
    count, _, height, width = pictures.shape
    draws = torch.rand((4, count, 1, 1), generator=generator, device=pictures.device)
    side_y, side_x = (0.15 + 0.25 * draws[0]) * height, (0.15 + 0.25 * draws[1]) * width
    top, left = draws[2] * (height - side_y), draws[3] * (width - side_x)
    y = torch.arange(height, device=pictures.device).view(1, -1, 1)
    x = torch.arange(width, device=pictures.device).view(1, 1, -1)
    inside = (y >= top) & (y < top + side_y) & (x >= left) & (x < left + side_x) & where.view(-1, 1, 1)
    return torch.where(inside[:, None], pictures.roll(1, 0), pictures)


def smear(pictures: Tensor, blur: Tensor, motion: Tensor, generator: torch.Generator) -> Tensor:
    """Defocus (Gaussian, sigma 0.4 to 1.2) where `blur` (B,), motion along a line (2 to 4 pixels) where `motion` (B,)."""
    count, channels, height, width = pictures.shape
    draws = torch.rand((3, count, 1, 1), generator=generator, device=pictures.device)
    offset = torch.arange(-3, 4, device=pictures.device, dtype=pictures.dtype)
    y, x = offset.view(1, -1, 1), offset.view(1, 1, -1)
    soft = torch.exp(-0.5 * (x * x + y * y) / (0.4 + 0.8 * draws[0]) ** 2)
    angle, length = draws[1] * math.pi, 1.0 + draws[2]
    along, across = x * torch.cos(angle) + y * torch.sin(angle), y * torch.cos(angle) - x * torch.sin(angle)
    line = (1.0 - across.abs()).clamp(min=0) * (length + 0.5 - along.abs()).clamp(0, 1)
    still = ((x == 0) & (y == 0)).float().expand(count, -1, -1)
    kernel = torch.where(motion.view(-1, 1, 1), line, torch.where(blur.view(-1, 1, 1), soft, still))
    kernel = kernel / kernel.sum((1, 2), keepdim=True)
    kernel = kernel[:, None].expand(-1, channels, -1, -1).reshape(count * channels, 1, 7, 7)
    padded = functional.pad(pictures, (3, 3, 3, 3), mode="replicate").view(1, count * channels, height + 6, width + 6)
    return functional.conv2d(padded, kernel, groups=count * channels).view(count, channels, height, width)


_LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
_CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99,
    *([99] * 36),
)  # fmt: skip


@lru_cache(maxsize=4)
def _dct(device: torch.device) -> Tensor:
    """The orthonormal DCT-II of 8 samples, (8, 8)."""
    k = torch.arange(8, dtype=torch.float64)
    basis = torch.cos(math.pi * (2 * k[None] + 1) * k[:, None] / 16) * math.sqrt(2 / 8)
    basis[0] /= math.sqrt(2)
    return basis.float().to(device)


def _quantise(plane: Tensor, table: tuple[int, ...], factor: Tensor) -> Tensor:
    """One plane (B, H, W), sides multiples of 8, through DCT, division by the scaled table, rounding, and back."""
    count, height, width = plane.shape
    basis = _dct(plane.device)
    steps = plane.new_tensor(table).view(1, 1, 1, 8, 8)
    steps = ((steps * factor.view(-1, 1, 1, 1, 1) + 50) / 100).floor().clamp(1, 255)
    blocks = plane.view(count, height // 8, 8, width // 8, 8).transpose(2, 3) - 128.0
    coded = torch.round(basis @ blocks @ basis.T / steps) * steps
    return (basis.T @ coded @ basis + 128.0).transpose(2, 3).reshape(count, height, width)


def jpeg(pictures: Tensor, quality: Tensor) -> Tensor:
    """What JPEG at `quality` (B,), 1..100, leaves of RGB `pictures` (B, 3, H, W) in 0..255, sides multiples of 16."""
    red, green, blue = pictures.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = torch.stack(((blue - luma) / 1.772, (red - luma) / 1.402), 1) + 128.0
    factor = torch.where(quality < 50, 5000.0 / quality.clamp(min=1.0), 200.0 - 2.0 * quality)
    luma = _quantise(luma, _LUMA, factor)
    half = functional.avg_pool2d(chroma, 2)
    half = torch.stack([_quantise(plane, _CHROMA, factor) for plane in half.unbind(1)], 1)
    cb, cr = (functional.interpolate(half, scale_factor=2.0, mode="bilinear", align_corners=False) - 128.0).unbind(1)
    restored = torch.stack((luma + 1.402 * cr, luma - 0.344136 * cb - 0.714136 * cr, luma + 1.772 * cb), 1)
    return restored.round().clamp(0, 255)
