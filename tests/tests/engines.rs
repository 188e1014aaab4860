//! `dhow-runtime` in the place of runc under other engines: docker, buildah, and containerd with runc's own shim. What they
//! print is what they print with runc. (podman's test is with the images that it pulls, in `commit`.)
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use dhow_tests::{Sandbox, instance, isolated, tool};

/// A root file system of busybox, and what the scripts say with: `code` prints how its command ended, `terminal` gives it
/// one.
const ROOT: &str = r#"
set -u
cd "$DIR"
mkdir -p root/bin root/proc root/dev root/tmp root/etc root/sys
cp "$(command -v busybox)" root/bin/busybox
chroot root /bin/busybox --install -s /bin
echo 'root:x:0:0:root:/root:/bin/sh' >root/etc/passwd
tar -C root -cf root.tar .
code() { "$@" 2>>stderr && echo 0 || echo "$?"; }
mkfifo quiet
exec 8<>quiet
terminal() { script -qec "$*" /dev/null <quiet; }
# There is no event to wait for: sockets are there before their services are.
until_it() { for _ in $(seq 6000); do "$@" >/dev/null 2>&1 && return; sleep 0.05; done; echo "never: $*"; exit 1; }
"#;

fn prints(sandbox: &Sandbox, script: &str, expected: &[&str]) {
    let ran = tool("timeout", ["-k", "5", "1400", "bash", "-c", &format!("{ROOT}\n{script}")])
        .env("DIR", sandbox.path())
        .env("TMPDIR", sandbox.path())
        .env("RUNTIME", instance::binary("dhow-runtime"))
        .env("CGROUP", format!("dhow-engine-{}", std::process::id()))
        .deadline(1500)
        .run();
    let printed = ran.stdout.replace('\r', "");
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected, "{}", ran.stderr);
}

#[test]
fn docker() {
    let script = r#"
        # dockerd looks for a runtime by its base name.
        ln -s "$RUNTIME" dhow-runtime
        dockerd --data-root "$DIR/data" --exec-root "$DIR/exec" -H "unix://$DIR/d.sock" -p "$DIR/d.pid" --bridge none \
            --iptables=false --ip6tables=false --ip-masq=false --storage-driver vfs --cgroup-parent "/$CGROUP" \
            --add-runtime "dhow=$DIR/dhow-runtime" >dockerd.log 2>&1 &
        daemon=$!
        export DOCKER_HOST=unix://$DIR/d.sock DOCKER_CONFIG=$DIR/config
        docker=/usr/bin/docker
        until_it $docker version
        $docker import root.tar busybox >/dev/null
        run="$docker run --rm --runtime dhow --network none"
        code $run busybox echo hello
        code $run busybox sh -c 'exit 7'
        code $run busybox absent
        code $run busybox /etc/passwd
        code $run -t busybox sh -c 'test -t 0 && echo terminal; exit 4'
        $docker run -d --runtime dhow --name one --network none --memory 64m --pids-limit 20 busybox \
            sh -c 'trap "exit 9" TERM; while :; do sleep 0.1; done' >/dev/null
        $docker inspect -f '{{.HostConfig.Runtime}} {{.State.Status}}' one
        code $docker exec one sh -c 'echo in exec; exit 5'
        code $docker exec -t one sh -c 'test -t 0 && echo terminal'
        $docker pause one >/dev/null; $docker inspect -f '{{.State.Status}}' one
        $docker unpause one >/dev/null; $docker inspect -f '{{.State.Status}}' one
        $docker update --pids-limit 30 one
        $docker top one | grep -c 'trap'
        $docker stop one; $docker inspect -f '{{.State.Status}} {{.State.ExitCode}}' one
        $docker start one; $docker rm -f one
        $docker ps -aq
        grep -o 'exec: "absent": executable file not found in $PATH' stderr
        grep -o 'exec: "/etc/passwd": permission denied' stderr
        kill $daemon; wait $daemon
        find /sys/fs/cgroup -depth -type d -path "*/$CGROUP*" -exec rmdir {} +
    "#;
    isolated(|sandbox| {
        prints(
            sandbox,
            script,
            &[
                "hello",
                "0",
                "7",
                "127",
                "126",
                "terminal",
                "4",
                "dhow running",
                "in exec",
                "5",
                "terminal",
                "0",
                "paused",
                "running",
                "one",
                "1",
                "one",
                "exited 9",
                "one",
                "one",
                "exec: \"absent\": executable file not found in $PATH",
                "exec: \"/etc/passwd\": permission denied",
            ],
        );
    });
}

#[test]
fn buildah() {
    let script = r#"
        buildah="buildah --root $DIR/storage --runroot $DIR/run --storage-driver vfs"
        oci="--isolation oci --runtime $RUNTIME"
        printf '%s\n' 'FROM scratch' 'ADD root.tar /' 'ENV PATH=/bin' 'RUN echo built >/made; id -u' 'RUN test "$(cat /made)" = built' >Dockerfile
        code $buildah bud -q $oci -t made . | grep -v '^[0-9a-f]\{64\}$'
        container=$($buildah from made)
        run="$buildah run $oci"
        code $run $container cat /made
        code $run $container sh -c 'exit 3'
        code $run $container absent
        grep -o 'exec: .*absent.*: executable file not found in $PATH' stderr | tail -n 1 | tr -d '\\'
        terminal "$run -t $container sh -c 'test -t 0 && echo terminal'"
        $buildah rm $container >/dev/null
        find /sys/fs/cgroup -type d -name '*buildah*'
    "#;
    isolated(|sandbox| {
        prints(
            sandbox,
            script,
            &["0", "built", "0", "3", "1", "exec: \"absent\": executable file not found in $PATH", "terminal"],
        );
    });
}

#[test]
fn containerd_with_the_shim_of_runc() {
    let script = r#"
        umoci init --layout image
        umoci new --image image:busybox
        umoci unpack --image image:busybox bundle >/dev/null 2>&1
        cp -a root/. bundle/rootfs/
        umoci repack --image image:busybox bundle >/dev/null 2>&1
        umoci config --image image:busybox --config.env PATH=/bin
        skopeo copy -q oci:image:busybox oci-archive:busybox.tar:docker.io/library/busybox:latest
        printf '%s\n' 'version = 2' "root = '$DIR/root-c'" "state = '$DIR/state-c'" \
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]' '[grpc]' "address = '$DIR/c.sock'" >config.toml
        containerd -c config.toml >containerd.log 2>&1 &
        daemon=$!
        ctr="ctr -a $DIR/c.sock"
        until_it $ctr version
        $ctr images import busybox.tar >/dev/null
        image=docker.io/library/busybox:latest
        options="--snapshotter native --runtime io.containerd.runc.v2 --runc-binary $RUNTIME --runc-root $DIR/runtime
            --cgroup /$CGROUP/c"
        code $ctr run --rm $options $image one echo hello
        code $ctr run --rm $options $image two sh -c 'exit 3'
        code $ctr run --rm $options $image three absent
        grep -o 'exec: "absent": executable file not found in $PATH' stderr
        code $ctr run --rm $options $image four /etc/passwd
        terminal "$ctr run --rm -t $(echo $options) $image five sh -c 'test -t 0 && echo terminal; exit 4'" >out; echo $?
        grep -o terminal out
        $ctr run -d $options $image task sleep 1000
        code $ctr task exec --exec-id a task sh -c 'echo in exec; exit 5'
        code $ctr task exec --exec-id b task absent
        $ctr task pause task; $ctr task ls | awk '/task/ {print $3}'
        $ctr task resume task; $ctr task ls | awk '/task/ {print $3}'
        $ctr task metrics task | grep -c pids.current
        $ctr task kill -s KILL task
        until_it sh -c "$ctr task ls | grep STOPPED"
        code $ctr task delete task
        $ctr containers delete task
        kill $daemon; wait $daemon
        find /sys/fs/cgroup -depth -type d -path "*/$CGROUP*" -exec rmdir {} +
    "#;
    isolated(|sandbox| {
        prints(
            sandbox,
            script,
            &[
                "hello",
                "0",
                "3",
                "1",
                "exec: \"absent\": executable file not found in $PATH",
                "1",
                "4",
                "terminal",
                "in exec",
                "5",
                "1",
                "PAUSED",
                "RUNNING",
                "1",
                "0",
            ],
        );
    });
}
