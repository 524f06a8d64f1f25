"""Tests of the threads, channels and stages."""
