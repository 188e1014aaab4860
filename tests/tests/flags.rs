//! Flags of `run` and `cp` whose effect shows only in a container: each as docker has it.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use dhow_tests::{BUSYBOX, Instance, isolated, tool};

#[test]
fn tar_streams_go_in_and_out() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let script = "mkdir -p /d/sub; echo text >/d/sub/f; chown 12:34 /d/sub/f; chmod 4711 /d/sub/f; ln -s f /d/sub/l; \
                      ln -s /outside /evil; touch /ready; sleep 1000";
        dhow.dhow(["run", "-d", "--net", "none", "--name", "web", &image, "sh", "-c", script]).run().ok();
        dhow_tests::eventually("the files", || (dhow.run("exec web test -e /ready").code == 0).then_some(()));
        for running in [true, false] {
            if !running {
                dhow.ok("stop -t 0 web");
            }
            let out = dhow.dhow(["cp", "web:/d", "-"]).into_command().output().unwrap();
            assert!(out.status.success());
            let list = tool("tar", ["-tv", "--numeric-owner", "-f", "-"]).stdin(out.stdout.clone()).run().ok();
            let lines: Vec<String> =
                list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
            assert_eq!(lines.len(), 4, "{lines:?}");
            assert!(lines[0].starts_with("drwxr-xr-x 0/0 0 ") && lines[0].ends_with(" d/"), "{lines:?}");
            assert!(lines[2].starts_with("-rws--x--x 12/34 5 ") && lines[2].ends_with(" d/sub/f"), "{lines:?}");
            assert!(lines[3].ends_with(" d/sub/l -> f"), "{lines:?}");
            // Back in, elsewhere: the owner and the mode stay.
            let target = if running { "web:/tmp" } else { "web:/etc" };
            dhow.dhow(["cp", "-", target]).stdin(out.stdout).run().ok();
        }
        dhow.ok("start web");
        for place in ["/tmp", "/etc"] {
            assert_eq!(dhow.ok(&format!("exec web stat -c %a,%u,%g {place}/d/sub/f")), "4711,12,34");
        }
        let evil = tool("tar", ["-c", "-C", "/", "etc/hostname"]).into_command().output().unwrap().stdout;
        dhow.dhow(["cp", "-", "web:/evil"]).stdin(evil).run().one_line(1, &["/evil"]);
        dhow.dhow(["cp", "-", "web:/tmp"]).stdin(b"no tar".to_vec()).run().one_line(1, &["it is no tar"]);
        dhow.run("cp web:/nope -").one_line(1, &["/nope"]);
        let left = std::fs::read_dir(dhow.root().join("containers")).unwrap().flatten();
        let left = left.flat_map(|entry| std::fs::read_dir(entry.path()).unwrap().flatten());
        assert!(!left.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("cp-")));
        dhow.ok("rm -f web");
    });
}

#[test]
fn one_of_several_host_ports_is_taken() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        for (name, port) in [("one", 8000), ("two", 8001)] {
            dhow.ok(&format!("run -d --name {name} -p 8000-8001:80 {image} sleep 1000"));
            assert_eq!(dhow.ok(&format!("port {name}")), format!("80/tcp -> 0.0.0.0:{port}"));
        }
        dhow.run(&format!("run -d --name none -p 8000-8001:80 {image} sleep 1000"))
            .one_line(125, &["8001", "allocated"]);
        dhow.ok("rm -f one");
        dhow.ok("restart -t 0 two");
        assert_eq!(dhow.ok("port two"), "80/tcp -> 0.0.0.0:8000", "the first free one");
        dhow.ok("rm -f two");
    });
}

#[test]
fn shared_memory_is_shared_by_who_may() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let hold = "echo shared >/dev/shm/f && touch /ready && sleep 1000";
        for (name, mode) in [("donor", "shareable"), ("alone", "private")] {
            dhow.dhow(["run", "-d", "--net", "none", "--name", name, "--ipc", mode, &image, "sh", "-c", hold])
                .run()
                .ok();
            let ready = || (dhow.run(&format!("exec {name} test -e /ready")).code == 0).then_some(());
            dhow_tests::eventually("the file", ready);
        }
        let run = |mode: &str| dhow.run(&format!("run --rm --net none --ipc {mode} {image} cat /dev/shm/f"));
        assert_eq!(run("container:donor").ok().out(), "shared");
        run("container:alone").one_line(125, &["alone", "--ipc shareable"]);
        run("private").code(1);
        dhow.ok("rm -f donor alone");
    });
}

#[test]
fn an_init_reaps_and_passes_signals_on() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let init = |words: &[&str]| dhow.dhow(["run", "--rm", "--net", "none", "--init", &image]).args(words).run();
        assert_eq!(
            init(&["sh", "-c", "cat /proc/1/cmdline | tr '\\0' ' '"]).ok().out(),
            "/sbin/docker-init -- sh -c cat /proc/1/cmdline | tr '\\0' ' '"
        );
        for code in [0, 7, 255] {
            init(&["sh", "-c", &format!("exit {code}")]).code(code);
        }
        init(&["sh", "-c", "kill -9 $$"]).code(137);
        init(&["nope"]).code(127);
        init(&["/etc/passwd"]).code(126);
        // A program without a handler is ended by its signal, which it would not be as process 1.
        let script =
            "sh -c 'sleep 0.1 & exec sleep 0.2' & trap 'exit 9' USR1; touch /ready; while :; do sleep 0.05; done";
        dhow.dhow(["run", "-d", "--net", "none", "--init", "--name", "web", &image, "sh", "-c", script]).run().ok();
        dhow.dhow(["run", "-d", "--net", "none", "--init", "--name", "plain", &image, "sleep", "1000"]).run().ok();
        dhow_tests::eventually("it is ready", || (dhow.run("exec web test -e /ready").code == 0).then_some(()));
        dhow_tests::eventually("the orphan is reaped", || {
            let processes = dhow.ok("exec web ps -o comm,stat");
            let alone = processes.lines().filter(|line| line.starts_with("sleep")).count() <= 1;
            (alone && !processes.lines().any(|line| line.ends_with(" Z"))).then_some(())
        });
        dhow.ok("kill -s USR1 web");
        assert_eq!(dhow.ok("wait web"), "9");
        dhow.ok("stop -t 60 plain");
        assert_eq!(dhow.field("plain", "/State/ExitCode"), 143);
        assert_eq!(dhow.field("plain", "/HostConfig/Init"), true);
        dhow.ok("rm web plain");
    });
}

#[test]
fn labels_come_from_files_and_unknown_wishes_are_named() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let file = sandbox.path().join("labels");
        std::fs::write(&file, "# a comment\none=1\n\ntwo=a=b\nthree\n").unwrap();
        dhow.ok(&format!("create --name made --label-file {} --label one=2 {image}", file.display()));
        for (label, want) in [("one", "2"), ("two", "a=b"), ("three", "")] {
            assert_eq!(dhow.field("made", &format!("/Config/Labels/{label}")), want);
        }
        dhow.ok("rm made");
        for (flag, word) in
            [("--health-cmd true", "--health-cmd"), ("--gpus all", "--device"), ("--link x", "--network")]
        {
            let said = dhow.run(&format!("run --rm {flag} {image} true"));
            let words: &[&str] = if word == "--network" { &["--link"] } else { &[word] };
            said.one_line(125, words);
        }
        dhow.ok(&format!("run --rm --net none --no-healthcheck {image} true"));
    });
}

#[test]
fn limits_change_while_a_container_runs() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        dhow.ok(&format!("run -d --net none --name web -m 64m --pids-limit 100 {image} sleep 1000"));
        let limit = || dhow.ok("stats --no-stream --format {{.MemUsage}} web").rsplit(" / ").next().unwrap().to_owned();
        assert_eq!(limit(), "64MiB");
        assert_eq!(dhow.ok("update -m 32m --memory-swap 32m --pids-limit 5 web"), "web");
        assert_eq!(limit(), "32MiB");
        assert_eq!(dhow.field("web", "/HostConfig/Memory"), 32 << 20);
        let forks =
            dhow.dhow(["exec", "web", "sh", "-c", "for n in 1 2 3 4 5 6; do sleep 20 >/dev/null 2>&1 & done"]).run();
        assert!(forks.code != 0 && forks.stderr.contains("fork"), "{}", forks.stderr);
        dhow.run("update -m 64m web").one_line(1, &["--memory-swap"]);
        dhow.run("update --restart always web").one_line(1, &["web", "stopped"]);
        dhow.run("update --cpus -1 web").code(1);
        assert_eq!(limit(), "32MiB", "a refused change changes nothing");
        // It keeps them when it is started again.
        dhow.ok("stop -t 0 web");
        dhow.ok("update --restart no --pids-limit 50 web");
        dhow.ok("start web");
        assert_eq!((limit().as_str(), dhow.field("web", "/HostConfig/PidsLimit")), ("32MiB", 50.into()));
        dhow.ok("rm -f web");
    });
}
