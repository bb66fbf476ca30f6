"""Profiles: where the time of a program goes, kernel by kernel and line by line."""

from facula.profiler.activity import ProfilerActivity, supported_activities
from facula.profiler.collect import Profile, profile
from facula.profiler.memory import Memory, memory, reset_peak_memory

__all__ = ["Profile", "ProfilerActivity", "profile", "supported_activities", "Memory", "memory",
           "reset_peak_memory"]
