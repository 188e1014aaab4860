//! The command line itself: its grammar, its complaints, what commands print.

use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{Bench, everywhere, only_ours};

#[test]
fn a_wrong_command_line_is_answered_with_help() {
    everywhere(|t| {
        for (args, complaint) in [
            (&["state"][..], "\"state\" requires exactly 1 argument(s)"),
            (&["start", "a", "b"], "\"start\" requires exactly 1 argument(s)"),
            (&["kill"], "\"kill\" requires a minimum of 1 argument(s)"),
            (&["exec"], "\"exec\" requires a minimum of 1 argument(s)"),
            (&["run"], "\"run\" requires exactly 1 argument(s)"),
            (&["state", "--nope", "x"], "flag provided but not defined: -nope"),
            (&["list", "--format"], "flag needs an argument: -format"),
        ] {
            let output = t.call(args);
            let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
            assert!(stdout.starts_with("Incorrect Usage") && stdout.contains("NAME:"), "{args:?}: {stdout}");
            assert!(stderr.contains("level=error") && stderr.lines().count() == 1, "{args:?}: {stderr}");
            assert!(stderr.replace("\\\"", "\"").contains(complaint), "{args:?}: {stderr}");
        }
        let (code, stderr) = t.fails(&["nope"]);
        assert_eq!(code, 3, "{stderr}");
        assert!(stderr.contains("No help topic for 'nope'"), "{stderr}");
    });
}

#[test]
fn help_and_version_need_nothing_else() {
    everywhere(|t| {
        for command in [
            "checkpoint",
            "create",
            "delete",
            "events",
            "exec",
            "kill",
            "list",
            "pause",
            "ps",
            "restore",
            "resume",
            "run",
            "spec",
            "start",
            "state",
            "update",
        ] {
            let text = t.ok(&[command, "-h"]);
            let name = text.lines().nth(1).unwrap_or_default();
            assert!(text.starts_with("NAME:\n") && name.contains(&format!(" {command} - ")), "{command}: {text}");
        }
        assert!(t.ok(&["--help"]).lines().nth(1).unwrap().ends_with(" - Open Container Initiative runtime"));
        let version = t.ok(&["--version"]);
        let mut lines = version.lines();
        assert!(lines.next().unwrap().contains(" version "), "{version}");
        assert!(lines.next().unwrap().starts_with("commit: "), "{version}");
        assert!(lines.next().unwrap().starts_with("spec: 1."), "{version}");
    });
}

#[test]
fn flags_stand_before_and_after_the_name() {
    everywhere(|t| {
        t.sleeping("c");
        t.ok(&["ps", "--format", "json", "c"]);
        let pid = t.pid("c");
        t.ok(&["kill", "c", "KILL", "--all"]);
        t.gone(pid);
        t.ok(&["delete", "c", "--force"]);
        t.ok(&["delete", "-force=true", "c"]);
    });
}

#[test]
fn what_follows_the_name_belongs_to_ps() {
    everywhere(|t| {
        t.sleeping("c");
        let pid = t.pid("c");
        let table = t.ok(&["ps", "c"]);
        assert!(table.lines().next().unwrap().contains("PPID") && table.lines().count() == 2, "{table}");
        let table = t.ok(&["ps", "c", "-e", "-x"]);
        assert!(table.contains("STAT") && table.contains(&pid.to_string()), "{table}");
        assert_eq!(t.ok(&["ps", "-f", "json", "c"]), format!("[{pid}]\n"));
        assert!(t.fails(&["ps", "-f", "yaml", "c"]).1.contains("invalid format option"));
    });
}

#[test]
fn lists_and_states_have_their_fields_in_order() {
    everywhere(|t| {
        let empty = t.ok(&["list"]);
        assert_eq!(empty, "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n");
        assert_eq!((t.ok(&["list", "--format", "json"]), t.ok(&["list", "-q"])), ("null\n".into(), String::new()));
        t.set("/annotations", json!({"key": "value"}));
        t.sleeping("c");
        let state = t.ok(&["state", "c"]);
        let fields = ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "annotations", "owner"];
        let places: Vec<_> = fields.iter().map(|field| state.find(&format!("\"{field}\": ")).expect(field)).collect();
        assert!(places.is_sorted(), "{state}");
        let bundle = t.path("").canonicalize().unwrap();
        assert_eq!(t.state("c")["bundle"], json!(bundle));
        let list: Value = serde_json::from_str(&t.ok(&["list", "-f", "json"])).unwrap();
        assert_eq!((&list[0]["id"], &list[0]["owner"], &list[1]), (&json!("c"), &json!("root"), &Value::Null));
        assert_eq!(t.ok(&["list", "-q"]), "c\n");
        assert!(t.fails(&["list", "-f", "yaml"]).1.contains("invalid format option"));
    });
}

#[test]
fn limits_come_from_flags_from_a_file_and_from_stdin() {
    everywhere(|t| {
        t.sleeping("c");
        t.ok(&["update", "--pids-limit", "50", "c"]);
        assert_eq!(t.ok(&["exec", "c", "sh", "-c", "exit 0"]), "");
        let limit = |t: &mut Bench| -> Value {
            let event: Value = serde_json::from_str(&t.ok(&["events", "--stats", "c"])).unwrap();
            event["data"]["pids"]["limit"].clone()
        };
        assert_eq!(limit(t), 50);
        if std::path::Path::new("/sys/fs/cgroup/cpuset/cpuset.cpus").exists() {
            let event: Value = serde_json::from_str(&t.ok(&["events", "--stats", "c"])).unwrap();
            assert!(event["data"]["cpuset"]["cpus"].as_array().is_some_and(|cpus| !cpus.is_empty()), "{event}");
        }
        std::fs::write(t.path("limits.json"), r#"{"pids": {"limit": 60}}"#).unwrap();
        t.ok(&["update", "--resources", "limits.json", "c"]);
        assert_eq!(limit(t), 60);
        let mut child = t.command(&["update", "-r", "-", "c"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(br#"{"pids": {"limit": 70}}"#).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(limit(t), 70);
        if !std::path::Path::new("/sys/fs/resctrl/schemata").exists() {
            assert!(t.fails(&["update", "--l3-cache-schema", "L3:0=f", "c"]).1.to_lowercase().contains("rdt"));
            assert_eq!(limit(t), 70);
        }
    });
}

#[test]
fn the_default_configuration_is_written_once() {
    everywhere(|t| {
        std::fs::create_dir(t.path("new")).unwrap();
        assert_eq!(t.ok(&["spec", "--bundle", "new"]), "");
        let text = std::fs::read_to_string(t.path("new/config.json")).unwrap();
        assert!(text.starts_with("{\n\t\"ociVersion\": \"1.") && text.ends_with('}'), "{text}");
        let config: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&config["process"]["terminal"], &config["process"]["args"]), (&json!(true), &json!(["sh"])));
        assert!(t.fails(&["spec", "--bundle", "new"]).1.contains("File config.json exists. Remove it first"));
    });
}

#[test]
fn features_name_what_there_is() {
    everywhere(|t| {
        let features: Value = serde_json::from_str(&t.ok(&["features"])).unwrap();
        assert_eq!(features["ociVersionMin"], "1.0.0");
        assert_eq!(features["hooks"][0], "prestart");
        assert_eq!(
            (&features["linux"]["cgroup"]["v1"], &features["linux"]["seccomp"]["enabled"]),
            (&json!(true), &json!(true))
        );
    });
}

#[test]
fn what_is_not_there_is_said_before_anything_is_made() {
    only_ours(|t| {
        t.args(&["true"]);
        let (code, stderr) = t.fails(&["--systemd-cgroup", "run", "c"]);
        assert!(code == 1 && stderr.contains("systemd"), "{stderr}");
        assert_eq!(t.ok(&["list", "-q"]), "");
    });
}

#[test]
fn a_reader_that_has_gone_is_no_panic() {
    only_ours(|t| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = t.command(&["features"]).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let output = output.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && stderr.contains("broken pipe"), "{stderr}");
    });
}

#[test]
fn a_name_leads_nowhere_else() {
    everywhere(|t| {
        t.sleeping("c");
        std::fs::create_dir(t.path("beside")).unwrap();
        for command in
            [&["state", ".."][..], &["kill", "../beside"], &["delete", "--force", ".."], &["delete", "-f", "../beside"]]
        {
            let (code, stderr) = t.fails(command);
            assert!(code == 1 && stderr.contains("invalid container ID format"), "{command:?}: {stderr}");
        }
        assert!(t.path("beside").exists() && t.path("config.json").exists());
    });
}

#[test]
fn another_file_than_config_json() {
    only_ours(|t| {
        t.args(&["echo", "other"]);
        drop(t.command(&["run", "c"]));
        std::fs::rename(t.path("config.json"), t.path("other.json")).unwrap();
        t.args(&["echo", "usual"]);
        let absolute = t.path("other.json");
        for config in ["other.json", "./other.json", absolute.to_str().unwrap()] {
            assert_eq!(t.ok(&["run", "--config", config, "c"]), "other\n");
        }
        assert_eq!(t.ok(&["run", "c"]), "usual\n");
        assert!(
            t.fails(&["run", "-f", "nowhere.json", "c"]).1.contains("JSON specification file nowhere.json not found")
        );
    });
}

#[test]
fn a_regular_expression_names_several() {
    // crun's.
    only_ours(|t| {
        let ids = ["web-1", "web-2", "db-1"];
        ids.iter().for_each(|id| t.sleeping(id));
        let pids = ids.map(|id| t.pid(id));
        t.ok(&["kill", "--regex", "^web-[0-9]+$", "KILL"]);
        pids[..2].iter().for_each(|pid| t.gone(*pid));
        assert_eq!(t.state("db-1")["status"], "running");
        // What is refused for one stops nothing.
        let output = t.call(&["delete", "-r", "1$"]);
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("container db-1: "), "{output:?}");
        assert_eq!(t.ok(&["list", "-q"]), "db-1\nweb-2\n");
        t.ok(&["delete", "--force", "--regex", "."]);
        assert_eq!(t.ok(&["list", "-q"]), "");
        assert!(t.fails(&["delete", "--regex", "("]).1.contains("regular expression"));
    });
}

#[test]
fn the_least_grave_line_of_the_log_can_be_chosen() {
    // crun's.
    only_ours(|t| {
        t.push("/process/capabilities/bounding", json!("CAP_MOON")).args(&["true"]);
        let stderr = |args: &[&str]| {
            let output = t.call(args);
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stderr).unwrap()
        };
        assert_eq!(stderr(&["--log-level", "error", "run", "c"]), "");
        assert!(stderr(&["--log-level=warning", "run", "c"]).contains("CAP_MOON"));
        assert!(stderr(&["--log-level", "debug", "run", "c"]).contains("level=debug"));
        assert!(t.fails(&["--log-level", "loud", "run", "c"]).1.contains("invalid log-level"));
    });
}

#[test]
fn a_configuration_has_another_name_if_that_is_wanted() {
    // crun's.
    only_ours(|t| {
        assert_eq!(t.ok(&["spec", "--file", "other.json"]), "");
        let text = std::fs::read(t.path("other.json")).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&text).unwrap()["hostname"], "runc");
        assert!(t.fails(&["spec", "-f", "other.json"]).1.contains("File other.json exists"));
    });
}

#[test]
fn a_limit_of_no_tasks_is_a_limit() {
    // Since 1.3 of the specification; runc has it from 1.4 on.
    only_ours(|t| {
        t.set("/linux/resources", json!({"pids": {"limit": 0}}));
        t.sleeping("c");
        let own =
            |t: &Bench| std::fs::read_to_string(format!("/sys/fs/cgroup/pids/{}/c/pids.max", t.cgroup())).unwrap();
        assert_eq!(own(t), "1\n");
        t.ok(&["update", "--pids-limit", "-1", "c"]);
        assert_eq!(own(t), "max\n");
        std::fs::write(t.path("limits.json"), r#"{"pids": {}}"#).unwrap();
        t.ok(&["update", "-r", "limits.json", "c"]);
        assert_eq!(own(t), "max\n", "none was given");
        t.ok(&["update", "--pids-limit", "0", "c"]);
        assert_eq!(own(t), "1\n");
    });
}
