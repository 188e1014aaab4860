//! `dhow events`: docker's events, of commands and of what happens while no command runs.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use dhow_tests::{BUSYBOX, Instance, isolated};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// All events so far: type and action, and for some the word that matters.
fn actions(dhow: &Instance, filters: &[&str]) -> Vec<String> {
    let mut call = dhow.dhow(["events", "--since", "0", "--until", "0s", "--format", "{{json .}}"]);
    for filter in filters {
        call = call.args(["--filter", filter]);
    }
    let ran = call.run().ok();
    let documents = ran.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let text = |document: Value| {
        let detail = ["exitCode", "signal", "oldName"].iter().find_map(|key| {
            let value = document["Actor"]["Attributes"].get(*key)?;
            Some(format!(" {}", value.as_str().unwrap()))
        });
        assert!(document["timeNano"].as_i64().unwrap() / 1_000_000_000 == document["time"].as_i64().unwrap());
        format!(
            "{} {}{}",
            document["Type"].as_str().unwrap(),
            document["Action"].as_str().unwrap(),
            detail.unwrap_or_default()
        )
    };
    documents.map(text).collect()
}

#[test]
fn the_life_of_a_container_is_told() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        dhow.ok(&format!("run --rm {image} sh -c true"));
        assert_eq!(
            actions(&dhow, &["type=container", "type=network"]),
            [
                "container create",
                "network connect",
                "container attach",
                "container start",
                "container die 0",
                "network disconnect",
                "container destroy"
            ]
        );
        dhow.ok(&format!("run -d --net none --name web --label tier=front {image} sleep 1000"));
        dhow.ok("exec web echo hi");
        dhow.ok("rename web app");
        dhow.ok("pause app");
        dhow.ok("unpause app");
        dhow.ok("restart -t 0 app");
        dhow.ok("rm -f app");
        // By its new name: what happened under the old one has it too.
        assert_eq!(
            actions(&dhow, &["label=tier=front"]),
            [
                "container create",
                "container start",
                "container exec_create: echo hi",
                "container exec_start: echo hi",
                "container exec_die 0",
                "container rename /web",
                "container pause",
                "container unpause",
                "container kill 15",
                "container kill 9",
                "container die 137",
                "container stop",
                "container start",
                "container restart",
                "container kill 9",
                "container die 137",
                "container destroy"
            ]
        );
        assert_eq!(actions(&dhow, &["container=web", "event=start", "event=die"]), ["container start"]);
        assert_eq!(actions(&dhow, &["container=app", "event=die"]), ["container die 137", "container die 137"]);
    });
}

#[test]
fn images_and_volumes_are_told() {
    isolated(|sandbox| {
        let (registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let other = registry.image("other:1");
        dhow.ok(&format!("tag {image} {other}"));
        dhow.ok(&format!("push -q {other}"));
        dhow.ok(&format!("rmi {other}"));
        dhow.ok(&format!("rmi {image}"));
        assert_eq!(
            actions(&dhow, &["type=image"]),
            ["image pull", "image tag", "image push", "image untag", "image untag", "image delete"]
        );
        dhow.ok("volume create data");
        dhow.ok("volume rm data");
        assert_eq!(actions(&dhow, &["volume=data"]), ["volume create", "volume destroy"]);
        dhow.run("events --filter nonsense=1").one_line(1, &["nonsense=1", "container, daemon, event"]);
        dhow.run("events --since yesterday").one_line(1, &["yesterday"]);
    });
}

#[test]
fn an_end_without_a_command_is_told_to_who_follows() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        dhow.ok(&format!("run -d --net none --name web {image} sleep 1000"));
        let format = "{{.Action}} {{.Actor.Attributes.name}}";
        let mut follow = dhow.dhow(["events", "--filter", "type=container", "--format", format]).spawn();
        // A first event shows that it follows.
        dhow_tests::eventually("it follows", || {
            dhow.ok("pause web");
            dhow.ok("unpause web");
            follow.has_output().then_some(())
        });
        kill(Pid::from_raw(dhow.pid("web")), Signal::SIGKILL).unwrap();
        follow.wait_for_output("die web");
        follow.signal(Signal::SIGINT);
        let said = follow.end().stdout;
        assert!(!said.contains("start web"), "only what is new: {said}");
        dhow.ok("rm web");

        dhow.ok("volume create data");
        let said = dhow.dhow(["events", "--until", &in_seconds(1)]).run().ok().stdout;
        assert!(said.lines().any(|line| line.contains(" volume create data (driver=local)")), "{said}");
    });
}

/// So many seconds from now, in Unix time.
fn in_seconds(seconds: u64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    (now.as_secs() + seconds).to_string()
}
