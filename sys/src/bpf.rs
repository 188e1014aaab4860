//! bpf(2): programs for the device filter of cgroup v2.
