//! `dhow run` without a terminal: streams, exit codes, signals, and what a container finds inside.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use dhow_tests::{BUSYBOX, Cgroups, DEBIAN, Instance, Registry, isolated, isolated_with};
use nix::sys::signal::Signal;

#[test]
fn exit_codes_are_docker_s() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let run = |args: &[&str]| dhow.dhow(["run", "--rm", "--net", "none"]).args(args).run();
        run(&[&image, "true"]).code(0);
        run(&[&image, "false"]).code(1);
        for code in [2, 42, 125, 255] {
            run(&[&image, "sh", "-c", &format!("exit {code}")]).code(code);
        }
        // A container's first process is deaf to its own signals: a second one tells what became of it.
        run(&[&image, "sh", "-c", "sh -c 'kill -TERM $$'; exit $?"]).code(143);
        run(&[&image, "sh", "-c", "sh -c 'kill -KILL $$'; exit $?"]).code(137);
        run(&[&image, "no-such-program"]).one_line(127, &["no-such-program"]);
        run(&[&image, "/no/such/program"]).one_line(127, &["/no/such/program"]);
        run(&[&image, "/etc/passwd"]).one_line(126, &["/etc/passwd"]);
        run(&[&image, "/etc"]).one_line(126, &["/etc"]);
        run(&["--no-such-flag", &image]).code(125);
        run(&["no/such/Image", "true"]).code(125);
        assert_eq!(dhow.ok("ps -aq"), "", "nothing is left of any of them");
    });
}

#[test]
fn streams_come_through_whole_and_apart() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let run = |args: &[&str]| dhow.dhow(["run", "--rm", "--net", "none"]).args(args);
        assert_eq!(run(&["-i", &image, "cat"]).stdin("hi\n").run().ok().stdout, "hi\n");
        assert_eq!(run(&[&image, "cat"]).stdin("not forwarded").run().ok().stdout, "");
        let both = run(&[&image, "sh", "-c", "echo out; echo err >&2"]).run().ok();
        assert_eq!((both.stdout.as_str(), both.stderr.as_str()), ("out\n", "err\n"));
        let long: String = (0..400_000).map(|line| format!("line {line}\n")).collect();
        let echoed = run(&["-i", &image, "cat"]).stdin(long.clone()).run().ok();
        assert!(echoed.stdout == long, "{} of {} bytes", echoed.stdout.len(), long.len());
        let tail = run(&[&image, "sh", "-c", "seq 1 200000"]).run().ok();
        assert!(tail.stdout.ends_with("\n200000\n"), "the last line arrives too");
    });
}

#[test]
fn flags_that_change_what_is_inside() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let said = |args: &[&str]| dhow.dhow(["run", "--rm", "--net", "none"]).args(args).run().ok().out().to_owned();
        assert_eq!(said(&["-e", "A=b c", &image, "sh", "-c", "echo $A"]), "b c");
        assert_eq!(said(&["-w", "/var/www", &image, "pwd"]), "/var/www");
        assert_eq!(said(&["-u", "user", &image, "id"]), "uid=1000(user) gid=1000(user) groups=2000(extra)");
        assert_eq!(said(&["-u", "1234:77", &image, "sh", "-c", "id -u; id -g"]), "1234\n77");
        assert_eq!(said(&["--hostname", "thing", &image, "hostname"]), "thing");
        assert_eq!(said(&["--entrypoint", "echo", &image, "as", "arguments"]), "as arguments");
        let shared = sandbox.dir("shared");
        std::fs::write(shared.join("file"), "from outside").unwrap();
        let shared = shared.display();
        assert_eq!(said(&["-v", &format!("{shared}:/mnt"), &image, "cat", "/mnt/file"]), "from outside");
        said(&["-v", &format!("{shared}:/mnt"), &image, "touch", "/mnt/made"]);
        assert!(sandbox.path().join("shared/made").exists());
        let refused =
            ["run", "--rm", "-v", &format!("{shared}:/mnt:ro"), &image, "touch", "/mnt/more"].map(str::to_owned);
        dhow.dhow(refused).run().code(1);
        dhow.dhow(["run", "--rm", "--read-only", &image, "touch", "/file"]).run().code(1);
        assert_eq!(
            said(&["--read-only", "--tmpfs", "/scratch", &image, "sh", "-c", "echo x >/scratch/f; cat /scratch/f"]),
            "x"
        );
        assert_eq!(said(&["-v", "data:/data", &image, "sh", "-c", "echo kept >/data/f"]), "");
        assert_eq!(said(&["-v", "data:/data", &image, "cat", "/data/f"]), "kept");
        assert_eq!(
            said(&["--cap-drop", "ALL", &image, "grep", "CapEff", "/proc/self/status"]),
            "CapEff:\t0000000000000000"
        );
        assert_eq!(said(&["--ulimit", "nofile=77:88", &image, "sh", "-c", "ulimit -n; ulimit -Hn"]), "77\n88");
        let sysctl =
            ["run", "--rm", "--sysctl", "net.ipv4.ip_forward=1", &image, "cat", "/proc/sys/net/ipv4/ip_forward"];
        assert_eq!(dhow.dhow(sysctl).run().ok().out(), "1");
        let cid = sandbox.path().join("cid");
        let cid = cid.to_str().unwrap();
        said(&["--cidfile", cid, &image, "true"]);
        assert_eq!(std::fs::read_to_string(cid).unwrap().trim().len(), 64);
    });
}

#[test]
fn a_container_is_confined_as_docker_does_it() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let said = |script: &str| dhow.dhow(["run", "--rm", &image, "sh", "-c", script]).run().ok().out().to_owned();
        let status = said("grep -E '^(Cap(Eff|Prm|Bnd|Amb|Inh)|Seccomp|NoNewPrivs):' /proc/self/status");
        let expected = "CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n\
                        CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2";
        assert_eq!(status, expected);
    });
}

#[test]
fn what_must_not_work_inside_does_not() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let said = |script: &str| dhow.dhow(["run", "--rm", &image, "sh", "-c", script]).run().ok().out().to_owned();
        assert_eq!(said("cat /proc/1/comm; true"), "sh", "it is the first of its own processes");
        assert_eq!(said("ls -l /proc/keys | cut -c1-10; wc -c </proc/keys"), "crw-rw-rw-\n0");
        assert_eq!(said("ls -A /sys/firmware /proc/acpi | grep -v :; true"), "", "masked directories are empty");
        for forbidden in [
            "echo 1 >/proc/sys/kernel/panic",
            "echo b >/proc/sysrq-trigger",
            "mount -t tmpfs none /mnt",
            "mknod /dev/sda b 8 0 && cat /dev/sda",
            "unshare -r true",
            "dmesg",
            "reboot -f",
            "echo x >/sys/kernel/uevent_seqnum",
        ] {
            let ran = dhow.dhow(["run", "--rm", &image, "sh", "-c", forbidden]).run();
            assert!(ran.code != 0, "`{forbidden}` works: {}", ran.stdout);
        }
        assert_eq!(
            said("ls /dev | sort | tr '\\n' ' '").trim(),
            "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
        );
        assert_eq!(said("ls -1 /proc/self/fd | wc -l"), "4", "only the three streams (and ls's own) are open");
    });
}

#[test]
fn environment_and_files_are_those_docker_gives() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let run = ["run", "--rm", "--name", "env", "--hostname", "thing", &image, "env"];
        let mut env: Vec<String> = dhow.dhow(run).run().ok().lines().map(str::to_owned).collect();
        env.sort();
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        assert_eq!(env, ["HOME=/root", "HOSTNAME=thing", path]);
        let said = |script: &str| {
            dhow.dhow(["run", "--rm", "--hostname", "thing", &image, "sh", "-c", script]).run().ok().out().to_owned()
        };
        assert_eq!(said("cat /etc/hostname"), "thing");
        let hosts = said("cat /etc/hosts");
        assert!(hosts.lines().any(|line| line.starts_with("127.0.0.1") && line.contains("localhost")), "{hosts}");
        assert!(hosts.lines().last().is_some_and(|line| line.contains("thing")), "{hosts}");
    });
}

#[test]
fn limits_hold() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        limits(&dhow, &image);
        let memory = ["run", "--rm", "-m", "32m", &image, "sh", "-c", "tail -c 200m /dev/zero >/dev/null"];
        dhow.dhow(memory).run().code(137);
        let forks =
            ["run", "--rm", "--pids-limit", "10", &image, "sh", "-c", "for i in $(seq 50); do sleep 5 & done; echo $i"];
        let ran = dhow.dhow(forks).run();
        assert!(ran.stderr.contains("fork"), "a fork fails: {} {}", ran.stdout, ran.stderr);
    });
}

fn limits(dhow: &Instance, image: &str) {
    let name = dhow.ok(&format!("run -d --net none {image} sleep 100"));
    assert_eq!(name.len(), 64);
    assert!(!dhow.cgroups().is_empty(), "it has a cgroup of its own");
    dhow.ok(&format!("rm -f {name}"));
    dhow_tests::eventually("its cgroup is gone", || dhow.cgroups().is_empty().then_some(()));
}

#[test]
fn it_runs_on_cgroup_v2() {
    isolated_with(Cgroups::V2, |sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        limits(&dhow, &image);
        assert_eq!(dhow.ok(&format!("run --rm {image} echo v2")), "v2");
        dhow.dhow(["run", "--rm", &image, "sh", "-c", "mknod /tmp/sda b 254 0 && cat /tmp/sda"]).run().code(1);
    });
}

#[test]
fn signals_reach_the_container() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let script = "trap 'echo got it; exit 7' TERM; echo ready; while :; do sleep 0.1; done";
        let mut run = dhow.dhow(["run", "--rm", &image, "sh", "-c", script]).spawn();
        run.wait_for_output("ready");
        run.signal(Signal::SIGTERM);
        let ran = run.end().code(7);
        assert_eq!(ran.stdout, "ready\ngot it\n");

        let mut run =
            dhow.dhow(["run", "--name", "survivor", &image, "sh", "-c", "echo ready; exec sleep 1000"]).spawn();
        run.wait_for_output("ready");
        run.signal(Signal::SIGKILL);
        run.end().code(137);
        assert_eq!(dhow.status("survivor"), "running", "it does not depend on the command line");
        dhow.ok("rm -f survivor");
    });
}

#[test]
fn rm_leaves_nothing_and_without_it_the_container_stays() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let before = dhow.files();
        dhow.ok(&format!("run --rm {image} sh -c true"));
        assert_eq!(dhow.ok("ps -aq"), "");
        // The shim answers before it goes itself.
        dhow_tests::eventually("nothing of the container is left", || {
            let mut left = Vec::new();
            collect(&dhow.root().join("containers"), &mut left);
            for folder in ["shim", "runtime", "netns"] {
                collect(&dhow.runroot().join(folder), &mut left);
            }
            left.is_empty().then_some(())
        });
        let new: Vec<String> = dhow
            .files()
            .into_iter()
            .filter(|file| !before.contains(file) && !file.starts_with("networks") && file != "names/.lock 0")
            .collect();
        assert_eq!(new, Vec::<String>::new());
        dhow.ok(&format!("run --name stays {image} true"));
        assert_eq!(dhow.status("stays"), "exited");
        dhow.run(&format!("run --name stays {image} true")).one_line(125, &["stays"]);
    });
}

fn collect(folder: &std::path::Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        found.push(entry.path().display().to_string());
    }
}

#[test]
fn a_debian_runs_its_own_programs() {
    isolated(|sandbox| {
        let registry = Registry::with_images(sandbox);
        let dhow = Instance::new(sandbox);
        let image = registry.image(DEBIAN);
        let pulled_by_run = dhow.dhow(["run", "--rm", &image, "bash", "-c", "echo ${BASH_VERSION%%.*}"]).run().ok();
        assert_eq!(pulled_by_run.out(), "5");
        let script = "set -e; cat /etc/debian_version; dpkg --get-selections | wc -l; perl -e 'print 6*7, qq(\\n)'; \
                      useradd -m somebody; su somebody -c 'touch ~/f; stat -c %U ~/f'";
        let ran = dhow.dhow(["run", "--rm", &image, "bash", "-c", script]).run().ok();
        let lines: Vec<&str> = ran.lines().collect();
        assert!(lines[0].starts_with("12."), "{lines:?}");
        assert_eq!(lines[2..], ["42", "somebody"]);
    });
}

#[test]
fn many_run_at_once() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let runs: Vec<_> =
            (0..12).map(|n| dhow.dhow(["run", "--rm", &image, "echo", &n.to_string()]).spawn()).collect();
        for (n, run) in runs.into_iter().enumerate() {
            assert_eq!(run.end().ok().out(), n.to_string());
        }
        for service in ["dhow-snapshotter", "dhow-netplug"] {
            let one = || (dhow.processes(service).len() == 1).then_some(());
            dhow_tests::eventually("of all that were started one has stayed", one);
        }
    });
}
