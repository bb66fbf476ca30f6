"""Profiles: where the time of a program goes, kernel by kernel and line by line."""

from facula.profiler.activity import (
    ProfilerAction,
    ProfilerActivity,
    kineto_available,
    supported_activities,
    tensorboard_trace_handler,
)
from facula.profiler.collect import Profile, profile
from facula.profiler.memory import Memory, memory, reset_peak_memory

__all__ = ["Profile", "ProfilerAction", "ProfilerActivity", "profile", "kineto_available",
           "supported_activities", "tensorboard_trace_handler", "Memory", "memory",
           "reset_peak_memory"]
