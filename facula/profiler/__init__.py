"""Profiles: where the time of a program goes, kernel by kernel and line by line."""

from facula.profiler.collect import Profile, profile

__all__ = ["Profile", "profile"]
