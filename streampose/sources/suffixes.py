"""What the suffix of a file says: a picture, a video, or something that may be either."""

from __future__ import annotations

PICTURE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm",
    ".pbm", ".pnm", ".jp2", ".j2k", ".avif", ".tga", ".ico",
})  # fmt: skip
MOVING = frozenset({".gif", ".apng"})  # in a folder they are pictures, alone videos where they move
RECORDED = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".3gp", ".ogv", ".gif"})
VIDEO_SUFFIXES = (RECORDED - PICTURE_SUFFIXES) | {".ts", ".mts", ".m2ts", ".flv", ".asf", ".mjpeg", ".mjpg"}
UNREAD_SUFFIXES = frozenset({  # of pictures: libav shows a tile or the thumbnail in them as a video of one frame
    ".heic", ".heif", ".hif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw",
})  # fmt: skip
