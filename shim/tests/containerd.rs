//! Under a real containerd: `ctr run` and its relatives, with a containerd of the test's own.
//!
//! Everything happens in a mount and network namespace of the test's own, where /run/containerd is empty; containerd's
//! state is in a temporary directory. Debian 12's containerd is 1.6: flags, a bare address for an answer, Task v2.

#![expect(clippy::unwrap_used, reason = "helpers of tests may, as tests may")]

use std::path::Path;
use std::process::{Command, Output};

/// Makes an image, starts containerd, and runs what stdin says with `$ctr` and `$run` set.
const SCRIPT: &str = r#"
set -eu
cd "$DIR"
mount --make-rprivate /
mkdir -p /run/containerd
mount -t tmpfs tmpfs /run/containerd
ip link set lo up

umoci init --layout image
umoci new --image image:busybox
umoci unpack --image image:busybox bundle
(cd bundle/rootfs && mkdir bin proc dev tmp etc sys && cp /bin/busybox bin/ && chroot . /bin/busybox --install -s /bin)
umoci repack --image image:busybox bundle
umoci config --image image:busybox --config.env PATH=/bin --config.cmd sh
skopeo copy -q oci:image:busybox oci-archive:busybox.tar:docker.io/library/busybox:latest

cat > config.toml <<END
version = 2
root = "$DIR/root"
state = "$DIR/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$DIR/c.sock"
END
containerd -c config.toml > containerd.log 2>&1 &
containerd=$!
trap 'kill $containerd; wait $containerd || true' EXIT
ctr="ctr -a $DIR/c.sock"
# There is no event to wait for: the socket is there before its services are.
for _ in $(seq 6000); do $ctr version > /dev/null 2>&1 && break; sleep 0.05; done
$ctr images import busybox.tar > /dev/null
options="--snapshotter native --runtime io.containerd.dhow.v2 --runc-root $DIR/runtime"
image=docker.io/library/busybox:latest
# A task that has been deleted takes its shim and its files along a moment later.
left() { find /run/containerd/s state/io.containerd.runtime.v2.task/default runtime/default -mindepth 1; }
settled() { for _ in $(seq 6000); do [ -z "$(left)" ] && return; sleep 0.05; done; left; }
"#;

fn containerd(script: &str) -> Output {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root");
    let dir = tempfile::tempdir().unwrap();
    let shim = Path::new(env!("CARGO_BIN_EXE_containerd-shim-dhow-v2")).parent().unwrap();
    let path = format!("{}:{}", shim.display(), std::env::var("PATH").unwrap());
    let output = Command::new("timeout")
        .args(["-s", "KILL", "1400", "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["bash", "-c", &format!("{SCRIPT}\n{script}")])
        .env("PATH", path)
        .env("DIR", dir.path())
        .output()
        .unwrap();
    let log = std::fs::read_to_string(dir.path().join("containerd.log")).unwrap_or_default();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}\n{log}", text(&output.stdout), text(&output.stderr));
    output
}

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stdout).replace('\r', "").lines().map(str::to_owned).collect()
}

#[test]
fn containers_run_and_leave_nothing() {
    let output = containerd(
        r#"
        code() { "$@" 2>> stderr && echo "0" || echo "$?"; }
        code $ctr run --rm $options $image one echo hello
        code $ctr run --rm $options $image two sh -c 'echo err >&2; exit 3'
        # ctr has to see the end of its input after it has made the task (its own bug, the same with runc).
        runs() { until $ctr task ls | grep -q "^$1 .*RUNNING"; do sleep 0.05; done; }
        (runs three; echo piped) | code $ctr run --rm $options $image three cat
        code $ctr run --rm $options $image four absent
        code script -qec "$ctr run --rm -t $options $image five sh -c 'test -t 0 && echo terminal; exit 4'" /dev/null < <(sleep 9)
        grep -c '^err$' stderr
        grep -o 'exec: "absent": executable file not found in $PATH' stderr
        $ctr containers ls -q; $ctr task ls -q
        settled
        "#,
    );
    let missing = "exec: \"absent\": executable file not found in $PATH";
    let expected = ["hello", "0", "3", "piped", "0", "1", "terminal", "4", "1", missing];
    assert_eq!(lines(&output), expected);
}

#[test]
fn a_task_is_exec_ed_in_paused_measured_and_killed() {
    let output = containerd(
        r#"
        $ctr run -d $options $image task sleep 1000
        $ctr task exec --exec-id a task sh -c 'echo in exec; exit 5' || echo "$?"
        $ctr task pause task; $ctr task ls | awk '/task/ {print $3}'
        $ctr task resume task; $ctr task ls | awk '/task/ {print $3}'
        $ctr task metrics task | grep -c 'pids.current'
        $ctr task kill -s KILL task
        for _ in $(seq 6000); do $ctr task ls | grep -q STOPPED && break; sleep 0.05; done
        $ctr task delete task 2> /dev/null || echo "$?"
        $ctr containers delete task
        settled
        "#,
    );
    assert_eq!(lines(&output), ["in exec", "5", "PAUSED", "RUNNING", "1"]);
}

#[test]
fn containerd_cleans_up_after_a_killed_shim_and_finds_a_living_one_again() {
    let output = containerd(
        r#"
        $ctr run -d $options $image kept sleep 1000
        $ctr run -d $options $image lost sleep 1000
        kill $containerd; wait $containerd || true
        containerd -c config.toml >> containerd.log 2>&1 &
        containerd=$!
        for _ in $(seq 6000); do $ctr version > /dev/null 2>&1 && break; sleep 0.05; done
        $ctr task ls | awk '/RUNNING/ {print $1}' | sort
        pkill -KILL -f -- '-id lost .*serve'
        for _ in $(seq 6000); do $ctr task ls | grep -q lost || break; sleep 0.05; done
        $ctr task ls | awk '/RUNNING/ {print $1}'
        pgrep -c sleep
        $ctr task kill -s KILL kept
        for _ in $(seq 6000); do $ctr task ls | grep -q STOPPED && break; sleep 0.05; done
        $ctr task delete kept 2> /dev/null || true
        $ctr containers delete kept lost
        settled
        "#,
    );
    assert_eq!(lines(&output), ["kept", "lost", "kept", "1"]);
}

#[test]
fn containerd_hears_that_memory_ran_out_before_it_hears_of_the_end() {
    if !has_memory_controller() {
        eprintln!("left out: no memory controller here");
        return;
    }
    let output = containerd(
        r#"
        $ctr events > events &
        # Nothing tells that it listens but an event.
        for n in $(seq 6000); do [ -s events ] && break; $ctr namespaces create "n$n"; sleep 0.05; done
        $ctr run --rm $options --memory-limit 8388608 $image full tail /dev/zero || echo "$?"
        for _ in $(seq 6000); do grep -q /tasks/exit events && break; sleep 0.05; done
        grep -o '/tasks/oom\|/tasks/exit' events
        settled
        "#,
    );
    assert_eq!(lines(&output), ["137", "/tasks/oom", "/tasks/exit"]);
}

fn has_memory_controller() -> bool {
    let v2 = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    Path::new("/sys/fs/cgroup/memory").is_dir() || v2.split_whitespace().any(|name| name == "memory")
}
