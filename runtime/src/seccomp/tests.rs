//! The compiler against a direct reading of profiles, against what libseccomp made of them, and against the kernel.

mod interpreter;
mod libseccomp;
mod reading;

use std::os::fd::AsFd;

use dhow_api::defaults;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oci_spec::runtime::LinuxSeccomp;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::mutation::rounds;
use interpreter::{Call, run};
use reading::Reading;

fn parse(value: serde_json::Value) -> LinuxSeccomp {
    serde_json::from_value(value).unwrap()
}

/// Compares the compiled profile with its reading for every number of every architecture, with arguments around the values
/// that the profile compares with.
fn compare(profile: &LinuxSeccomp, native: Architecture) {
    let filter = compile_for(profile, native).unwrap();
    let reading = Reading::new(profile, native);
    for audit in [0xc000_003e, 0x4000_0003, 0xc000_00b7, 0x4000_0028, 0xc000_00f3, 0xdead] {
        for number in interpreter::interesting_numbers() {
            for arguments in reading.interesting_arguments(audit, number) {
                let call = Call { number, audit, arguments };
                assert_eq!(run(filter.program(), &call), reading.answer(&call), "{call:x?} of {profile:#?}");
            }
        }
    }
}

#[test]
fn dockers_profile_means_what_it_says() {
    for capabilities in [defaults::capabilities(), defaults::all_capabilities(), std::collections::HashSet::new()] {
        let profile = defaults::seccomp(&capabilities);
        compare(&profile, Architecture::NATIVE);
    }
}

#[test]
fn dockers_profile_is_small() {
    let filter = compile(&defaults::seccomp(&defaults::capabilities())).unwrap();
    assert!(filter.program().len() < 1000, "{}", filter.program().len());
    assert_eq!(filter.flags(), FilterFlags::SPEC_ALLOW);
}

#[test]
fn architectures_without_a_rule_are_refused() {
    let profile =
        parse(json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_S390X"]}));
    let filter = compile_for(&profile, Architecture::X86_64).unwrap();
    for (audit, number, expected) in [
        (0xc000_003e, 0, 0x7fff_0000),
        (0xc000_003e, 0x4000_0000, 0x8000_0000),
        (0xc000_003e, u32::MAX, 0x7fff_0000),
        (0x4000_0003, 0, 0x8000_0000),
    ] {
        assert_eq!(run(filter.program(), &Call { number, audit, arguments: [0; 6] }), expected, "{audit:x} {number:x}");
    }
}

#[test]
fn a_call_newer_than_the_profile_does_not_exist() {
    let rules = json!([{"names": ["read", "clone3"], "action": "SCMP_ACT_ALLOW"}]);
    let answer = |default: &str, number| {
        let profile = parse(json!({"defaultAction": default, "syscalls": rules}));
        run(
            compile_for(&profile, Architecture::X86_64).unwrap().program(),
            &Call { number, audit: 0xc000_003e, arguments: [0; 6] },
        )
    };
    assert_eq!(answer("SCMP_ACT_ERRNO", 434), 0x5_0001);
    assert_eq!(answer("SCMP_ACT_ERRNO", 436), 0x5_0026);
    assert_eq!(answer("SCMP_ACT_KILL_PROCESS", 436), 0x5_0026);
    assert_eq!(answer("SCMP_ACT_LOG", 436), 0x7ffc_0000);
    assert_eq!(answer("SCMP_ACT_TRACE", 436), 0x7ff0_0001);
}

#[test]
fn thirty_two_bit_programs_cannot_go_through_the_multiplexers() {
    let profile = parse(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [{"names": ["socket", "shmget"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}],
    }));
    let filter = compile_for(&profile, Architecture::X86_64).unwrap();
    for (number, first, expected) in [
        (359, 0, 0x5_000d),
        (102, 1, 0x5_000d),
        (102, 2, 0x7fff_0000),
        (117, 23, 0x5_000d),
        (117, 0x1_0017, 0x5_000d),
        (117, 24, 0x7fff_0000),
    ] {
        let call = Call { number, audit: 0x4000_0003, arguments: [first, 0, 0, 0, 0, 0] };
        assert_eq!(run(filter.program(), &call), expected, "{number} {first}");
    }
}

#[test]
fn bad_profiles_name_the_field() {
    let rule = |rule: serde_json::Value| json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
    let cases = [
        (json!({"defaultAction": "SCMP_ACT_NOTIFY"}), "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY"),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}),
            "linux.seccomp.defaultErrnoRet: SCMP_ACT_ALLOW takes",
        ),
        (json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}), "linux.seccomp.defaultErrnoRet: 4096"),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}), "linux.seccomp.listenerMetadata: "),
        (rule(json!({"names": [], "action": "SCMP_ACT_ERRNO"})), "linux.seccomp.syscalls[0].names: empty"),
        (rule(json!({"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"})), "linux.seccomp.listenerPath: missing"),
        (rule(json!({"names": ["write"], "action": "SCMP_ACT_NOTIFY"})), "linux.seccomp.syscalls[0]: SCMP_ACT_NOTIFY"),
        (
            rule(json!({"names": ["mkdir", "sendmsg"], "action": "SCMP_ACT_NOTIFY"})),
            "linux.seccomp.syscalls[0]: SCMP_ACT_NOTIFY",
        ),
        (
            rule(json!({"names": ["mkdir"], "action": "SCMP_ACT_KILL", "errnoRet": 1})),
            "linux.seccomp.syscalls[0].errnoRet: ",
        ),
        (
            rule(json!({"names": ["mkdir"], "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]})),
            "linux.seccomp.syscalls[0].args[0].index: 6",
        ),
    ];
    for (profile, expected) in cases {
        let error = compile(&parse(profile)).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn a_profile_too_large_for_the_kernel_is_refused() {
    let condition = |value: u64| json!([{"index": 0, "value": value, "op": "SCMP_CMP_GT"}]);
    let rules: Vec<_> =
        (0..600).map(|n| json!({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": condition(n)})).collect();
    let profile = parse(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}));
    assert!(matches!(compile(&profile), Err(SeccompError::TooLong { max: 4096, .. })));
}

#[test]
fn flags_follow_the_profile() {
    let notify = json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]);
    let with = |flags: serde_json::Value, syscalls: &serde_json::Value| {
        let path = if syscalls.is_null() { json!(null) } else { json!("/run/agent.sock") };
        let profile =
            json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": flags, "syscalls": syscalls, "listenerPath": path});
        compile(&parse(profile)).unwrap().flags()
    };
    let all = json!(["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]);
    assert_eq!(with(json!(null), &json!(null)), FilterFlags::SPEC_ALLOW);
    assert_eq!(with(json!([]), &json!(null)), FilterFlags::default());
    assert_eq!(with(all.clone(), &json!(null)), FilterFlags::LOG);
    let listening = FilterFlags::NEW_LISTENER.union(FilterFlags::WAIT_KILLABLE_RECV).union(FilterFlags::LOG);
    assert_eq!(with(all, &notify), listening);
}

/// Runs `body` in a thread of its own that is under the profile; a filter concerns the thread that installs it.
fn confined<T: Send + 'static>(profile: &LinuxSeccomp, body: impl FnOnce() -> T + Send + 'static) -> T {
    let filter = compile(profile).unwrap();
    let thread = std::thread::spawn(move || {
        nix::sys::prctl::set_no_new_privs().unwrap();
        assert!(filter.install().unwrap().is_none());
        body()
    });
    thread.join().unwrap()
}

#[test]
fn the_kernel_enforces_dockers_profile() {
    let profile = defaults::seccomp(&defaults::capabilities());
    confined(&profile, || {
        assert_eq!(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS), Err(Errno::EPERM));
        assert_eq!(nix::unistd::sethostname("x"), Err(Errno::EPERM));
        let socket = |family| {
            use nix::sys::socket::{SockFlag, SockType, socket};
            socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).map(drop)
        };
        assert_eq!(socket(nix::sys::socket::AddressFamily::Unix), Ok(()));
        assert_eq!(socket(nix::sys::socket::AddressFamily::Vsock), Err(Errno::EPERM));
        // What a program needs works, also over fork and exec; clone3 falls back to clone.
        let output = std::process::Command::new("/bin/sh").args(["-c", "echo $(echo hello)"]).output().unwrap();
        assert_eq!((output.status.success(), &output.stdout[..]), (true, &b"hello\n"[..]), "{output:?}");
        let output = std::process::Command::new("unshare").args(["-m", "true"]).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stderr).contains("Operation not permitted"), "{output:?}");
    });
}

#[test]
fn the_kernel_kills_for_what_the_profile_kills() {
    use std::os::unix::process::ExitStatusExt;
    let profile = parse(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}],
    }));
    let status = confined(&profile, || std::process::Command::new("mkdir").arg("/proc/none").status().unwrap());
    assert_eq!(status.signal(), Some(libc::SIGSYS));
}

#[test]
fn a_rule_that_notifies_gives_a_listener() {
    let profile = parse(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": "/run/agent.sock",
        "listenerMetadata": "who",
        "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_NOTIFY"}],
    }));
    let filter = compile(&profile).unwrap();
    assert_eq!(filter.listener().unwrap(), &Listener { path: "/run/agent.sock".into(), metadata: "who".into() });
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        nix::sys::prctl::set_no_new_privs().unwrap();
        sender.send(filter.install().unwrap()).unwrap();
        nix::unistd::sethostname("never")
    });
    let listener = receiver.recv().unwrap().unwrap();
    let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::from(10_000_u16)), Ok(1));
    // Without an agent the call does not exist.
    drop(listener);
    assert_eq!(thread.join().unwrap(), Err(Errno::ENOSYS));
}

proptest! {
    #![proptest_config(rounds(24))]

    #[test]
    fn any_profile_means_what_it_says(profile in reading::profiles()) {
        // Large ones don't fit the kernel's limit, on some architectures sooner than on others.
        let fits = |native: &Architecture| {
            !matches!(compile_for(&profile, *native), Err(SeccompError::TooLong { .. }))
        };
        for native in [Architecture::X86_64, Architecture::Aarch64, Architecture::Riscv64].into_iter().filter(fits) {
            compare(&profile, native);
        }
    }
}
