//! The container's cgroup: where it lies, its limits, its device filter, its processes, its end.
