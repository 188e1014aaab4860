//! kill -9 at each step.

use serde_json::Value;

use super::footprint::Footprint;
use super::supervisor::{GATE, Outcome, Victim, kill_before};
use crate::support::{Bench, V2_ALONE, only_ours, until};

/// Lets somebody be killed at each step of a command, and looks each time.
struct Ordeal<'a> {
    t: &'a Bench,
    victim: Victim,
    /// What is done first, each time.
    before: &'a [&'a [&'a str]],
    command: &'a [&'a str],
}

impl Ordeal<'_> {
    /// `look` sees how it went; after it the container is deleted and everything has to be as it was. Every `stride`-th step.
    fn go(&self, stride: usize, look: impl Fn(&Outcome)) {
        let t = self.t;
        let clean = Footprint::of(t);
        for nth in (0..).step_by(stride) {
            for args in self.before {
                t.ok(args);
            }
            let outcome = kill_before(t, self.command, self.victim, nth);
            let why = format!("{:?} step {nth}, {outcome:?}", self.command);
            println!("{why}");
            assert!(t.ok_loudly(&["list", "--quiet"]).lines().any(|id| id == "other"), "{why}");
            look(&outcome);
            t.ok(&["delete", "--force", "x"]);
            std::fs::remove_file(t.path("pid")).ok();
            clean.is_back(t, &why);
            if outcome.cut.is_none() {
                assert!(nth > 5, "{why}: it was hardly traced");
                return;
            }
        }
    }
}

/// What is said of the container is true.
fn truthful(t: &Bench) {
    // A child that hears of its runtime's death goes, which takes it a moment.
    until("nobody makes it", || !String::from_utf8_lossy(&t.call(&["state", "x"]).stdout).contains("\"creating\""));
    let output = t.call(&["state", "x"]);
    let text = String::from_utf8_lossy(&output.stderr);
    let Ok(state) = serde_json::from_slice::<Value>(&output.stdout) else {
        assert!(text.contains("does not exist") || text.contains("state of container x"), "{text}");
        return;
    };
    let pid = state["pid"].as_i64().unwrap();
    match state["status"].as_str().unwrap() {
        "created" => {
            let started = t.call(&["start", "x"]);
            let text = String::from_utf8_lossy(&started.stderr);
            let status = t.state("x")["status"].clone();
            // The one who was killed may have started or ended it a moment ago.
            let late = text.contains("already running") || text.contains("has stopped");
            assert!(started.status.success() || late, "{text}");
            assert_eq!(status, if text.contains("has stopped") { "stopped" } else { "running" }, "{text}");
        }
        "running" => {
            let place = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
            assert!(place.contains(&t.cgroup()), "{place}");
        }
        "stopped" => {
            assert_eq!(pid, 0);
            assert!(t.fails(&["start", "x"]).1.contains("stopped"));
        }
        other => panic!("it is {other}"),
    }
}

fn gated(t: &mut Bench) {
    t.inside(&["sh", "-c", GATE, "sh"]);
    t.sleeping("other");
}

#[test]
fn the_runtime_is_killed_at_each_step_of_create() {
    only_ours(|t| {
        gated(t);
        let command = ["create", "--pid-file", "pid", "x"];
        Ordeal { t, victim: Victim::Runtime, before: &[], command: &command }.go(1, |_| truthful(t));
    });
}

#[test]
fn the_runtime_is_killed_at_each_step_of_start_and_delete() {
    only_ours(|t| {
        gated(t);
        let create: &[&str] = &["create", "x"];
        Ordeal { t, victim: Victim::Runtime, before: &[create], command: &["start", "x"] }.go(1, |_| truthful(t));
        Ordeal { t, victim: Victim::Runtime, before: &[create], command: &["delete", "--force", "x"] }
            .go(1, |_| truthful(t));
        let ended: &[&[&str]] = &[create, &["kill", "x", "KILL"]];
        Ordeal { t, victim: Victim::Runtime, before: ended, command: &["delete", "x"] }.go(2, |_| truthful(t));
    });
}

#[test]
fn the_runtime_is_killed_at_each_step_of_exec() {
    only_ours(|t| {
        gated(t);
        let command = ["exec", "--detach", "--pid-file", "pid", "x", "sleep", "1000"];
        Ordeal { t, victim: Victim::Runtime, before: &[&["run", "--detach", "x"]], command: &command }.go(1, |_| {
            assert_eq!(t.state("x")["status"], "running");
            t.ok(&["exec", "x", "true"]);
        });
    });
}

#[test]
fn a_containers_first_process_is_killed_at_each_of_its_steps() {
    only_ours(|t| {
        gated(t);
        t.args(&["true"]);
        Ordeal { t, victim: Victim::Child, before: &[], command: &["run", "x"] }.go(1, |outcome| {
            let Outcome { cut, code, stderr } = outcome;
            match cut {
                None => assert_eq!((*code, stderr.as_str()), (Some(0), "")),
                // After the start it is a program that was killed.
                Some(_) if *code == Some(137) => assert_eq!(stderr, ""),
                Some(_) => {
                    assert!(*code == Some(1) && stderr.lines().count() == 1, "{outcome:?}");
                    let known = ["it ended during ", "cannot start a container that has stopped"];
                    assert!(known.iter().any(|text| stderr.contains(text)), "{outcome:?}");
                }
            }
            // Nobody has to clean up after it.
            assert!(t.fails(&["state", "x"]).1.contains("does not exist"));
        });
    });
}

#[test]
fn an_execed_process_is_killed_at_each_of_its_steps() {
    only_ours(|t| {
        gated(t);
        t.sleeping("x");
        let running = Footprint::of(t);
        for nth in 0.. {
            let outcome = kill_before(t, &["exec", "x", "true"], Victim::Child, nth);
            println!("{nth}: {outcome:?}");
            running.is_back(t, &format!("{outcome:?}"));
            if outcome.cut.is_none() {
                assert_eq!(outcome.code, Some(0));
                break;
            }
            assert!(matches!(outcome.code, Some(137 | 255)), "{outcome:?}");
        }
    });
}

#[test]
fn the_runtime_is_killed_on_cgroup_v2_alone() {
    only_ours(|t| {
        let script = format!("{V2_ALONE} && {{ {GATE}; }}");
        t.inside(&["unshare", "--mount", "sh", "-c", &script, "sh"]);
        t.sleeping("other");
        Ordeal { t, victim: Victim::Runtime, before: &[], command: &["create", "x"] }.go(3, |_| truthful(t));
        let create: &[&str] = &["create", "x"];
        Ordeal { t, victim: Victim::Runtime, before: &[create], command: &["delete", "--force", "x"] }
            .go(3, |_| truthful(t));
    });
}
