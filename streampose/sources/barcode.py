"""A frame's number and time as a bar code in its own picture, so that a recording can be checked to the frame.

Four rows of sixteen cells, black or white, in a grey-free frame at the top left corner: 24 bits frame number, 32 bits
time in milliseconds, 8 bits CRC (polynomial 0x07). Cells of 8 pixels are the block size of H.264's transform, which
keeps them readable at CRF 28 and beyond; what was damaged fails the CRC rather than read as another number.
"""

from __future__ import annotations

import numpy as np

from streampose.messages import Image

ROWS, COLUMNS = 4, 16
NUMBER_BITS, TIME_BITS = 24, 32
BLACK, WHITE = 16, 235  # survive the limited range of video


def code_size(cell_px: int = 8) -> tuple[int, int]:
    """Width and height in pixels of the code with its margin of one cell."""
    return (COLUMNS + 2) * cell_px, (ROWS + 2) * cell_px


def draw_code(image: Image, number: int, time_s: float, cell_px: int = 8) -> None:
    """Write `number` (0 to 2**24 - 1) and `time_s` (to the millisecond, below 49 days) into `image` (H, W, 3), in place."""
    width, height = code_size(cell_px)
    if image.shape[0] < height or image.shape[1] < width:
        raise ValueError(f"the code needs {width}x{height} pixels, the picture has {image.shape[1]}x{image.shape[0]}")
    time_ms = round(time_s * 1000)
    if not 0 <= number < 1 << NUMBER_BITS or not 0 <= time_ms < 1 << TIME_BITS:
        raise ValueError(f"number {number} or time {time_s} s does not fit the code")
    payload = number.to_bytes(3, "big") + time_ms.to_bytes(4, "big")
    bits = np.unpackbits(np.frombuffer(payload + bytes([_crc8(payload)]), np.uint8)).reshape(ROWS, COLUMNS)
    cells = np.where(np.pad(bits, 1) > 0, WHITE, BLACK).astype(np.uint8)
    image[:height, :width] = cells.repeat(cell_px, axis=0).repeat(cell_px, axis=1)[:, :, None]


def read_code(image: Image, cell_px: int = 8) -> tuple[int, float] | None:
    """(number, time_s) written in `image` (H, W, 3), None where no code can be read."""
    width, height = code_size(cell_px)
    if image.shape[0] < height or image.shape[1] < width:
        return None
    grey = image[cell_px : height - cell_px, cell_px : width - cell_px].mean(axis=2)
    cells = grey.reshape(ROWS, cell_px, COLUMNS, cell_px)
    edge = cell_px // 4  # the inner half of each cell: the coder rings at the edges
    bits = (cells[:, edge : cell_px - edge, :, edge : cell_px - edge].mean(axis=(1, 3)) > (BLACK + WHITE) / 2).astype(
        np.uint8
    )
    data = np.packbits(bits.reshape(-1)).tobytes()
    if _crc8(data[:7]) != data[7]:
        return None
    return int.from_bytes(data[:3], "big"), int.from_bytes(data[3:7], "big") / 1000.0


def _crc8(data: bytes) -> int:
    """CRC-8 with polynomial x^8 + x^2 + x + 1 and start value 0xFF, so that all black is no code."""
    crc = 0xFF
    for byte in data:
        crc = _CRC_TABLE[crc ^ byte]
    return crc


def _crc_step(byte: int) -> int:
    for _ in range(8):
        byte = ((byte << 1) ^ 0x07 if byte & 0x80 else byte << 1) & 0xFF
    return byte


_CRC_TABLE = tuple(_crc_step(byte) for byte in range(256))
