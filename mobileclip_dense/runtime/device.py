"""The machine that something is measured on."""

import math
import os
import platform
import re
import resource
import sys
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # "max 100000", or microseconds of each period: "150000 100000"


def device_name() -> str:
    """This machine as a file-name part: processor, and the number of cores that this process may use."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    found = re.search(r"model name\s*:\s*(.+)", text)
    processor = found.group(1) if found else platform.processor() or platform.machine()
    return re.sub(r"[^a-z0-9]+", "-", processor.lower()).strip("-") + f"-{count_usable_cores()}-cores"


def count_usable_cores() -> int:
    """Cores that this process may run on (taskset), no more than a container's quota pays for."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    limit, period = _QUOTA.read_text().split() if _QUOTA.is_file() else ("max", "")
    return cores if limit == "max" else max(1, min(cores, math.ceil(int(limit) / int(period))))


def peak_resident_mb() -> float:
    """The most memory that this process has held resident, megabytes."""
    if sys.platform == "linux":  # ru_maxrss would start from the parent's peak
        status = Path("/proc/self/status").read_text()
        return int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
