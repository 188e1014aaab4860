//! What the runtime computes before it asks anything of the kernel: reading config.json, compiling docker's seccomp profile,
//! translating resources. `cargo bench -p dhow-benches --bench runtime_pure`

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use dhow_api::defaults;
use dhow_runtime::cgroup::{CgroupPlan, CgroupRequest};
use dhow_runtime::seccomp;
use dhow_runtime::{Buses, CgroupDriver};
use oci_spec::runtime::{LinuxResources, LinuxSeccomp};

fn seccomp_profile(c: &mut Criterion) {
    let profile = defaults::seccomp(&defaults::capabilities());
    let json = serde_json::to_vec(&profile).expect("a profile is JSON");
    let mut group = c.benchmark_group("seccomp");
    group.bench_function("make docker's profile", |b| b.iter(|| defaults::seccomp(&defaults::capabilities())));
    group.bench_function("parse", |b| {
        b.iter(|| serde_json::from_slice::<LinuxSeccomp>(black_box(&json)).expect("it was made from one"));
    });
    group.bench_function("compile", |b| b.iter(|| seccomp::compile(black_box(&profile)).expect("it compiles")));
    group.finish();
}

fn resources(c: &mut Criterion) {
    let mut resources: LinuxResources = serde_json::from_value(serde_json::json!({
        "memory": {"limit": 512 << 20, "swap": 1 << 30},
        "cpu": {"shares": 512, "quota": 50000, "period": 100_000, "cpus": "0-1"},
        "pids": {"limit": 100},
    }))
    .expect("resources");
    resources.set_devices(Some(defaults::device_rules()));
    let request = CgroupRequest {
        cgroups_path: "/bench/box",
        id: "box",
        driver: CgroupDriver::Cgroupfs,
        rootless: false,
        annotations: &BTreeMap::new(),
        buses: &Buses::default(),
    };
    let plan = CgroupPlan::new(&request).expect("a cgroup file system");
    let mut group = c.benchmark_group("cgroup");
    group.bench_function("find the hierarchies", |b| b.iter(|| CgroupPlan::new(black_box(&request)).map(drop)));
    group.bench_function("translate resources and device rules", |b| b.iter(|| plan.check(black_box(&resources))));
    group.finish();
}

criterion_group!(benches, seccomp_profile, resources);
criterion_main!(benches);
