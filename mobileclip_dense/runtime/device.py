"""The device of a measurement: processor, usable cores, memory."""

import math
import os
import platform
import re
import resource
import sys
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # "max 100000", or microseconds of each period: "150000 100000"


def device_name() -> str:
    """The name of this machine for file names: processor, and number of cores that this process may use."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    found = re.search(r"model name\s*:\s*(.+)", text)
    processor = found.group(1) if found else platform.processor() or platform.machine()
    return re.sub(r"[^a-z0-9]+", "-", processor.lower()).strip("-") + f"-{count_usable_cores()}-cores"


def count_usable_cores() -> int:
    """The number of cores that this process may use, limited by its CPU affinity and by the container's quota."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    limit, period = _QUOTA.read_text().split() if _QUOTA.is_file() else ("max", "")
    return cores if limit == "max" else max(1, min(cores, math.ceil(int(limit) / int(period))))


def peak_resident_mb() -> float:
    """The peak resident memory of this process, megabytes."""
    if sys.platform == "linux":  # ru_maxrss would include the peak of the parent process
        status = Path("/proc/self/status").read_text()
        return int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
