//! docker's default seccomp profile, as data.
//!
//! An allow list: what is not named fails with EPERM. The conditions of docker's profile (capabilities, architecture) are
//! settled here, so that what comes out is a plain `linux.seccomp` that any runtime takes. The names follow docker 29.

use std::collections::HashSet;

use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

/// docker's default profile for a container with these capabilities, on the architecture that we were built for.
pub fn seccomp(capabilities: &HashSet<Capability>) -> LinuxSeccomp {
    let mut rules = vec![allow(words(ALWAYS))];
    rules.extend(socket_families().map(|condition| allow_if(&["socket"], condition)));
    rules.extend(PERSONALITIES.map(|value| allow_if(&["personality"], equal(0, value))));
    rules.push(allow(NATIVE_ONLY.iter().copied()));
    for (capability, names) in WITH_CAPABILITY {
        if capabilities.contains(capability) {
            rules.push(allow(words(names)));
        }
    }
    if !capabilities.contains(&Capability::SysAdmin) {
        rules.push(allow_if(&["clone"], no_namespaces()));
        // Its flags lie in memory that a filter can't read. "No such call" makes the C library use clone.
        rules.push(clone3_unknown());
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(EPERM)
        .architectures(ARCHITECTURES.to_vec())
        .syscalls(rules)
        .build()
        .expect("every field of a profile has a default")
}

/// What every container may call, with any arguments.
const ALWAYS: &str = "
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 clock_adjtime
    clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64
    close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old
    epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat
    faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat
    fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs
    fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat
    get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32
    getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid
    getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid
    getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy
    io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc kill
    landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen
    listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise
    map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap
    mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend
    mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap
    name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2
    pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease
    process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink
    readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename
    renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam
    sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile
    sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid
    setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid
    setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr
    setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall
    socketpair splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo
    tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime
    timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill
    truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork
    vmsplice wait4 waitid waitpid write writev
";

/// What a capability adds. (docker allows ptrace and process_vm_* to all from Linux 4.8 on, and we need 5.15.)
const WITH_CAPABILITY: &[(Capability, &str)] = &[
    (Capability::DacReadSearch, "open_by_handle_at"),
    (
        Capability::SysAdmin,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules
         lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname
         sethostname setns syslog umount umount2 unshare",
    ),
    (Capability::SysBoot, "reboot"),
    (Capability::SysChroot, "chroot"),
    (Capability::SysModule, "delete_module finit_module init_module"),
    (Capability::SysPacct, "acct"),
    (Capability::SysPtrace, "kcmp pidfd_getfd process_madvise"),
    (Capability::SysRawio, "ioperm iopl"),
    (Capability::SysTime, "clock_settime clock_settime64 settimeofday stime"),
    (Capability::SysTtyConfig, "vhangup"),
    (Capability::SysNice, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (Capability::Syslog, "syslog"),
    (Capability::Bpf, "bpf"),
    (Capability::Perfmon, "perf_event_open"),
];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: &[Arch] = &[Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32];
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: &[Arch] = &[Arch::ScmpArchAarch64, Arch::ScmpArchArm];
#[cfg(target_arch = "riscv64")]
const ARCHITECTURES: &[Arch] = &[Arch::ScmpArchRiscv64];

/// What only this architecture has.
#[cfg(target_arch = "x86_64")]
const NATIVE_ONLY: &[&str] = &["arch_prctl", "modify_ldt"];
#[cfg(target_arch = "aarch64")]
const NATIVE_ONLY: &[&str] =
    &["arm_fadvise64_64", "arm_sync_file_range", "breakpoint", "cacheflush", "set_tls", "sync_file_range2"];
#[cfg(target_arch = "riscv64")]
const NATIVE_ONLY: &[&str] = &["riscv_flush_icache"];

/// The personalities that are harmless: Linux, Linux with a 32 bit uname, either with the old address layout, and "which one
/// is it".
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Address families below this one are all allowed.
const AF_DECNET: u64 = 12;

/// And of those above it these. Missing are the families that nobody needs and that were found to be a way into the kernel:
/// among them AF_ALG (38, CVE-2026-31431) and AF_VSOCK (40), which leads to the hypervisor.
const FAMILIES: [u64; 25] =
    [13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43, 44, 45];

const EPERM: u32 = libc::EPERM.unsigned_abs();

fn socket_families() -> impl Iterator<Item = LinuxSeccompArg> {
    let below = argument(0, AF_DECNET, LinuxSeccompOperator::ScmpCmpLt);
    std::iter::once(below).chain(FAMILIES.iter().map(|family| equal(0, *family)))
}

/// None of the flags that make a namespace.
fn no_namespaces() -> LinuxSeccompArg {
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET;
    argument(0, namespaces.unsigned_abs().into(), LinuxSeccompOperator::ScmpCmpMaskedEq)
}

fn clone3_unknown() -> LinuxSyscall {
    let mut rule = allow(["clone3"]);
    rule.set_action(LinuxSeccompAction::ScmpActErrno);
    rule.set_errno_ret(Some(libc::ENOSYS.unsigned_abs()));
    rule
}

fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split_ascii_whitespace()
}

fn allow<'a>(names: impl IntoIterator<Item = &'a str>) -> LinuxSyscall {
    LinuxSyscallBuilder::default()
        .names(names.into_iter().map(str::to_owned).collect::<Vec<_>>())
        .action(LinuxSeccompAction::ScmpActAllow)
        .build()
        .expect("every field of a rule has a default")
}

fn allow_if(names: &[&str], condition: LinuxSeccompArg) -> LinuxSyscall {
    let mut rule = allow(names.iter().copied());
    rule.set_args(Some(vec![condition]));
    rule
}

fn equal(index: usize, value: u64) -> LinuxSeccompArg {
    argument(index, value, LinuxSeccompOperator::ScmpCmpEq)
}

fn argument(index: usize, value: u64, operator: LinuxSeccompOperator) -> LinuxSeccompArg {
    LinuxSeccompArgBuilder::default()
        .index(index)
        .value(value)
        .op(operator)
        .build()
        .expect("every field of a condition has a default")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::defaults::{all_capabilities, capabilities};

    fn rules_for<'a>(profile: &'a LinuxSeccomp, name: &str) -> Vec<&'a LinuxSyscall> {
        let rules = profile.syscalls().as_deref().unwrap_or_default();
        rules.iter().filter(|rule| rule.names().iter().any(|known| known == name)).collect()
    }

    #[test]
    fn a_plain_container_can_make_no_namespace_and_no_mount() {
        let profile = seccomp(&capabilities());
        assert_eq!(profile.default_action(), LinuxSeccompAction::ScmpActErrno);
        assert_eq!(profile.default_errno_ret(), Some(1));
        for name in ["mount", "unshare", "setns", "bpf", "keyctl", "add_key", "kexec_load", "io_uring_setup", "reboot"]
        {
            assert!(rules_for(&profile, name).is_empty(), "{name}");
        }
        let clone = rules_for(&profile, "clone");
        assert_eq!(clone.len(), 1);
        assert_eq!(clone[0].args().as_ref().unwrap()[0].value(), 0x7e02_0000);
        assert_eq!(rules_for(&profile, "clone3")[0].errno_ret(), Some(38));
        assert_eq!(rules_for(&profile, "chroot").len(), 1);
    }

    #[test]
    fn capabilities_add_their_calls() {
        let profile = seccomp(&all_capabilities());
        for name in ["mount", "clone", "clone3", "bpf", "reboot", "syslog", "kcmp", "open_by_handle_at", "settimeofday"]
        {
            let rules = rules_for(&profile, name);
            assert!(!rules.is_empty() && rules.iter().all(|rule| rule.args().is_none()), "{name}");
        }
        for name in ["keyctl", "kexec_load", "userfaultfd", "io_uring_setup"] {
            assert!(rules_for(&profile, name).is_empty(), "{name}");
        }
    }

    #[test]
    fn sockets_are_limited_to_known_families() {
        let profile = seccomp(&capabilities());
        let rules = rules_for(&profile, "socket");
        let allowed = |family: u64| {
            rules.iter().any(|rule| {
                let condition = rule.args().as_ref().unwrap()[0];
                match condition.op() {
                    LinuxSeccompOperator::ScmpCmpLt => family < condition.value(),
                    _ => family == condition.value(),
                }
            })
        };
        let refused: Vec<u64> = (0..50).filter(|family| !allowed(*family)).collect();
        assert_eq!(refused, [12, 19, 20, 23, 25, 34, 37, 38, 40, 46, 47, 48, 49]);
    }

    #[test]
    fn the_list_has_no_name_twice() {
        let mut names: Vec<_> = words(ALWAYS).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
