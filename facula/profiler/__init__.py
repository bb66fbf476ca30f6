"""Profiles: where the time of a program goes, kernel by kernel and line by line."""

from facula.profiler.collect import Profile, profile
from facula.profiler.memory import Memory, memory, reset_peak_memory

__all__ = ["Profile", "profile", "Memory", "memory", "reset_peak_memory"]
