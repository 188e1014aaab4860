//! `dhow-runtime` alone on a bundle made by hand; the same tests run against runc, so that they are tested too.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use dhow_tests::bundle::{Bundle, runtime};
use dhow_tests::{Call, Sandbox, isolated};
use serde_json::{Value, json};

fn of<'a>(program: &'static str, sandbox: &'a Sandbox) -> impl Fn(&[&str]) -> Call + 'a {
    move |args: &[&str]| runtime(program, sandbox, args.iter().copied())
}

fn runs(program: &'static str, sandbox: &Sandbox) {
    let call = of(program, sandbox);
    let bundle = Bundle::new(sandbox, program, &["/bin/sh", "-c", "echo $$; hostname; id -u; exit 9"]);
    let ran = call(&["run", "-b", bundle.path(), "one"]).run().code(9);
    assert_eq!(ran.stdout, "1\nbundle\n0\n");
    assert_eq!(call(&["list", "-q"]).run().ok().stdout.trim(), "", "nothing is left of it");
    let streams = Bundle::new(sandbox, program, &["/bin/sh", "-c", "cat; echo err >&2"]);
    let ran = call(&["run", "-b", streams.path(), "two"]).stdin("in\n").run().ok();
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("in\n", "err\n"));
}

fn lives(program: &'static str, sandbox: &Sandbox) {
    let call = of(program, sandbox);
    let bundle =
        Bundle::new(sandbox, program, &["/bin/sh", "-c", "echo started >/tmp/mark; exec sleep 1000"]).with(|config| {
            config["root"]["readonly"] = json!(false);
        });
    let dir = bundle.path();
    let state = || -> Value { serde_json::from_str(&call(&["state", "three"]).run().ok().stdout).unwrap() };
    let pidfile = sandbox.path().join("pid");
    // Its standard streams are its own: nobody waits for ours.
    let create = format!("exec \"$@\" </dev/null >{0}/log 2>&1", sandbox.path().display());
    let wanted = call(&["create", "-b", dir, "--pid-file", pidfile.to_str().unwrap(), "three"]).into_command();
    dhow_tests::tool("sh", ["-c", &create, "sh"]).arg(wanted.get_program()).args(wanted.get_args()).run().ok();
    assert_eq!((state()["status"].as_str(), state()["id"].as_str()), (Some("created"), Some("three")));
    assert_eq!(state()["bundle"], dir);
    assert_eq!(dhow_tests::command::text(&pidfile).trim(), state()["pid"].to_string());
    assert!(!bundle.dir().join("rootfs/tmp/mark").exists(), "it has not begun");
    call(&["create", "-b", dir, "three"]).run().code(1);
    call(&["start", "three"]).run().ok();
    dhow_tests::eventually("it runs", || bundle.dir().join("rootfs/tmp/mark").exists().then_some(()));
    assert_eq!(state()["status"], "running");
    call(&["start", "three"]).run().code(1);
    let exec = call(&["exec", "three", "sh", "-c", "echo $$; exit 3"]).run().code(3);
    assert!(exec.out().parse::<u32>().is_ok_and(|pid| pid > 1), "{}", exec.stdout);
    call(&["delete", "three"]).run().code(1);
    call(&["kill", "three", "KILL"]).run().ok();
    dhow_tests::eventually("it has stopped", || (state()["status"] == "stopped").then_some(()));
    assert_ne!(call(&["kill", "three", "KILL"]).run().code, 0);
    call(&["delete", "three"]).run().ok();
    assert_ne!(call(&["state", "three"]).run().code, 0);
    assert_eq!(call(&["delete", "--force", "three"]).run().code, 0);
}

fn obeys(program: &'static str, sandbox: &Sandbox) {
    let call = of(program, sandbox);
    let run = |script: &str, change: &dyn Fn(&mut Value)| {
        let bundle = Bundle::new(sandbox, program, &["/bin/sh", "-c", script]).with(change);
        call(&["run", "-b", bundle.path(), "four"]).run()
    };
    let plain = |_: &mut Value| {};
    assert_ne!(run("touch /file", &plain).code, 0, "the root is read-only");
    run("touch /file && rm /file", &|c| c["root"]["readonly"] = json!(false)).ok();
    assert_eq!(run("ulimit -n", &plain).ok().out(), "1024");
    assert_eq!(run("grep NoNewPrivs /proc/self/status", &plain).ok().out(), "NoNewPrivs:\t1");
    assert_eq!(run("grep CapEff /proc/self/status", &plain).ok().out(), "CapEff:\t0000000020000420");
    let user = |c: &mut Value| {
        c["process"]["user"] = json!({"uid": 1000, "gid": 100, "additionalGids": [5, 6], "umask": 0o27});
    };
    assert_eq!(run("id -u; id -g; id -G; umask", &user).ok().stdout, "1000\n100\n100 5 6\n0027\n");
    let cwd = |c: &mut Value| c["process"]["cwd"] = json!("/bin");
    assert_eq!(run("pwd", &cwd).ok().out(), "/bin");
    let sysctl =
        |c: &mut Value| c["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1"});
    assert_eq!(run("cat /proc/sys/net/ipv4/ip_forward", &sysctl).ok().out(), "1");
    let tmpfs = |c: &mut Value| {
        let mount =
            json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "nosuid"]});
        c["mounts"].as_array_mut().unwrap().push(mount);
    };
    assert_ne!(run("head -c 2m /dev/zero >/tmp/f", &tmpfs).code, 0);
    assert_ne!(run("echo 1 >/proc/sys/vm/swappiness", &plain).code, 0, "read-only path");
    assert_eq!(run("cat /proc/kcore | wc -c", &plain).ok().out(), "0", "masked path");
    let missing = Bundle::new(sandbox, program, &["/no/such/program"]);
    let ran = call(&["run", "-b", missing.path(), "five"]).run();
    assert!(ran.code != 0 && ran.stderr.contains("/no/such/program"), "{}: {}", ran.code, ran.stderr);
    assert_eq!(call(&["list", "-q"]).run().ok().out(), "");
}

fn hooks(program: &'static str, sandbox: &Sandbox) {
    let call = of(program, sandbox);
    let log = sandbox.path().join("hooks");
    let hook = |name: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("cat >/dev/null; echo {name} >>{}", log.display())]}]);
    let bundle = Bundle::new(sandbox, program, &["/bin/true"]).with(|config| {
        config["hooks"] = json!({
            "prestart": hook("prestart"), "createRuntime": hook("createRuntime"), "poststart": hook("poststart"), "poststop": hook("poststop"),
        });
    });
    call(&["run", "-b", bundle.path(), "six"]).run().ok();
    assert_eq!(dhow_tests::command::text(&log), "prestart\ncreateRuntime\npoststart\npoststop\n");
    std::fs::remove_file(log).unwrap();
    let failing = Bundle::new(sandbox, program, &["/bin/true"]).with(|config| {
        config["hooks"] = json!({"prestart": [{"path": "/bin/false", "args": ["false"]}]});
    });
    assert_ne!(call(&["run", "-b", failing.path(), "seven"]).run().code, 0);
    assert_eq!(call(&["list", "-q"]).run().ok().out(), "");
}

macro_rules! against_both {
    ($($name:ident: $test:ident,)*) => {
        mod dhow_runtime {
            $(
                #[test]
                fn $name() {
                    super::isolated(|sandbox| super::$test("dhow-runtime", sandbox));
                }
            )*
        }
        mod runc {
            $(
                #[test]
                fn $name() {
                    super::isolated(|sandbox| super::$test("runc", sandbox));
                }
            )*
        }
    };
}

against_both! {
    it_runs_a_bundle: runs,
    it_leads_a_container_through_its_life: lives,
    it_obeys_the_configuration: obeys,
    it_calls_hooks_in_order: hooks,
}

#[test]
fn the_version_names_the_specification() {
    isolated(|sandbox| {
        let said = runtime("dhow-runtime", sandbox, ["--version"]).run().ok();
        assert!(said.stdout.contains("dhow-runtime version") && said.stdout.contains("spec: 1."), "{}", said.stdout);
    });
}

#[test]
fn bad_bundles_are_refused_in_one_line() {
    isolated(|sandbox| {
        let call = of("dhow-runtime", sandbox);
        let bundle = Bundle::new(sandbox, "bad", &["/bin/true"]);
        let dir = bundle.path().to_owned();
        for bad in [
            "",
            "{",
            "[]",
            "{\"ociVersion\": 1}",
            "{\"ociVersion\": \"1.0.2\"}",
            "{\"ociVersion\": \"99.0.0\", \"root\": {\"path\": \"rootfs\"}}",
        ] {
            std::fs::write(bundle.dir().join("config.json"), bad).unwrap();
            let ran = call(&["run", "-b", &dir, "eight"]).run();
            assert!(ran.code != 0 && ran.stderr.lines().count() == 1, "{bad}: {} {}", ran.code, ran.stderr);
        }
        for name in ["../escape", "", "a/b", "."] {
            let ran = call(&["state", name]).run();
            assert_ne!(ran.code, 0, "{name:?} is no id");
        }
        assert_eq!(call(&["list", "-q"]).run().ok().out(), "");
    });
}
