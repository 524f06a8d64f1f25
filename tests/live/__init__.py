"""Tests against a real RTSP server, with a proxy that does to it what networks and cameras do."""
