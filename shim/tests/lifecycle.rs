//! From Create to the end: exit codes, logs, restarts, failures, and that nothing is left.

mod common;

use common::Container;
use dhow_api::clients::Task;
use dhow_api::documents::{LogConfig, RestartPolicy};
use dhow_api::{Kind, task};

#[test]
fn exit_codes_and_signals() {
    for (script, code, signal) in [
        ("exit 0", 0, None),
        ("exit 1", 1, None),
        ("exit 255", 255, None),
        ("kill -9 $$; sleep 9", 0, None),
        ("sh -c 'kill -9 $$'; exit $?", 137, None),
    ] {
        let container = Container::sh(script);
        // The first process of a pid namespace is not killed by its own signals: this one must be killed from outside.
        if script.starts_with("kill") {
            let container = Container::new(&["sleep", "1000"]).run();
            container.kill(libc::SIGKILL).unwrap();
            assert_eq!(container.wait(), 137);
            let record = container.exit_record();
            assert_eq!((record.exit_code, record.signal, record.oom_killed), (137, Some(9), false));
            container.assert_gone();
            continue;
        }
        let container = container.run();
        assert_eq!(container.wait(), code, "{script}");
        let record = container.exit_record();
        assert_eq!((record.exit_code, record.signal), (code, signal), "{script}");
        assert!(record.started_at.unwrap() <= record.finished_at);
        assert_eq!(record.error, None);
        container.assert_gone();
    }
}

#[test]
fn states_on_the_way() {
    let container = Container::sh("trap 'exit 3' TERM; echo up; while :; do sleep 0.1; done").create();
    assert_eq!(container.state().status.unwrap(), task::Status::CREATED);
    assert_eq!(container.try_create().unwrap_err().kind(), Kind::AlreadyExists);
    container.start();
    assert_eq!(container.try_start().unwrap_err().kind(), Kind::FailedPrecondition);
    container.wait_for_log("up");
    assert_eq!(container.state().status.unwrap(), task::Status::RUNNING);
    let id = container.id.clone();
    let pids = container.task.pids(&task::PidsRequest { id: id.clone(), ..Default::default() }).unwrap();
    assert!(pids.processes.iter().any(|process| process.pid == container.state().pid), "{pids:?}");
    container.task.pause(&task::PauseRequest { id: id.clone(), ..Default::default() }).unwrap();
    assert_eq!(container.state().status.unwrap(), task::Status::PAUSED);
    container.task.resume(&task::ResumeRequest { id: id.clone(), ..Default::default() }).unwrap();
    assert_eq!(container.state().status.unwrap(), task::Status::RUNNING);
    let stats = container.task.stats(&task::StatsRequest { id, ..Default::default() }).unwrap();
    // Which message it is depends on the machine's cgroups; that it is one of them, and not empty, does not.
    assert!(stats.stats.type_url.starts_with("io.containerd.cgroups.v"), "{stats:?}");
    assert!(!stats.stats.value.is_empty());
    container.kill(libc::SIGTERM).unwrap();
    assert_eq!(container.wait(), 3);
    assert_eq!(container.kill(libc::SIGTERM).unwrap_err().kind(), Kind::NotFound);
    container.assert_gone();
}

#[test]
fn output_is_logged_by_stream_and_rotated() {
    let container = Container::sh("echo out; echo err >&2; printf unfinished").run();
    assert_eq!(container.wait(), 0);
    assert_eq!(container.log("stdout"), "out\nunfinished");
    assert_eq!(container.log("stderr"), "err\n");
    container.assert_gone();

    let container = Container::sh("seq 1 20000")
        .config(|config| config.log = LogConfig::JsonFile { path: None, max_size: 100_000, max_files: 1000 })
        .run();
    assert_eq!(container.wait(), 0);
    let expected: String = (1..=20_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(container.log("stdout"), expected);
    assert!(container.bundle().path().join("log.5").exists());
    container.assert_gone();

    let container = Container::sh("seq 1 20000").config(|config| config.log = LogConfig::None).run();
    assert_eq!(container.wait(), 0);
    assert!(!container.bundle().log().exists());
    container.assert_gone();
}

#[test]
fn a_terminal_s_output_is_complete() {
    for _ in 0..5 {
        let container = Container::sh("seq 1 5000").terminal().run();
        assert_eq!(container.wait(), 0);
        let expected: String = (1..=5000).map(|n| format!("{n}\r\n")).collect();
        assert_eq!(container.log("stdout"), expected);
        container.assert_gone();
    }
}

#[test]
fn a_program_that_cannot_be_executed() {
    for (program, kind, code) in [
        ("absent", Kind::NotFound, 127),
        ("/bin/absent", Kind::NotFound, 127),
        ("/etc/passwd", Kind::PermissionDenied, 126),
    ] {
        let container = Container::new(&[program]);
        let result = container.try_create().and_then(|_| container.try_start());
        let error = result.unwrap_err();
        assert_eq!(error.kind(), kind, "{program}: {error}");
        container.until(|| container.bundle().exit().exists(), "no exit.json");
        let record = container.exit_record();
        assert_eq!(record.exit_code, code, "{record:?}");
        assert!(record.error.unwrap().contains(program));
        container.assert_gone();
    }
}

#[test]
fn a_bad_configuration_leaves_nothing() {
    let container = Container::new(&["true"]).spec(|spec| spec["root"]["path"] = "/nonexistent/root".into());
    assert!(container.try_create().is_err());
    container.until(|| container.bundle().exit().exists(), "no exit.json");
    assert_eq!(container.exit_record().exit_code, 125);
    container.assert_gone();
}

#[test]
fn auto_remove_takes_the_directory_along() {
    let container = Container::new(&["true"]).config(|config| config.auto_remove = true).run();
    assert_eq!(container.wait(), 0);
    assert!(!container.bundle().path().exists(), "Wait was answered before the name was free");
    container.assert_gone();
}

#[test]
fn auto_remove_takes_along_what_it_is_told() {
    let mut container = Container::new(&["true"]);
    let (name, volume) = (container.dir().join("name"), container.dir().join("volume"));
    std::fs::write(&name, "id").unwrap();
    std::fs::create_dir_all(volume.join("_data")).unwrap();
    let missing = container.dir().join("missing");
    container = container.config(|config| {
        config.auto_remove = true;
        config.also_remove = vec![name.clone(), volume.clone(), missing];
    });
    let container = container.run();
    assert_eq!(container.wait(), 0);
    assert!(!name.exists() && !volume.exists());
    container.assert_gone();
}

#[test]
fn an_overlay_is_mounted_for_the_container_only() {
    let mut container = Container::sh("echo new > /file; cat /lower /file");
    let dir = container.dir().to_owned();
    for name in ["lower", "upper", "work"] {
        std::fs::create_dir(dir.join(name)).unwrap();
    }
    std::fs::write(dir.join("lower/lower"), "below\n").unwrap();
    let base = container.spec["root"]["path"].as_str().unwrap().to_owned();
    container.spec["root"] = serde_json::json!({ "path": "rootfs" });
    container.rootfs = vec![task::Mount {
        type_: "overlay".into(),
        source: "overlay".into(),
        options: vec![
            format!("lowerdir={}:{base}", dir.join("lower").display()),
            format!("upperdir={}", dir.join("upper").display()),
            format!("workdir={}", dir.join("work").display()),
        ],
        ..Default::default()
    }];
    let container = container.run();
    assert_eq!(container.wait(), 0, "{}", container.log("stderr"));
    assert_eq!(container.log("stdout"), "below\nnew\n");
    assert_eq!(std::fs::read_to_string(dir.join("upper/file")).unwrap(), "new\n");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(dir.to_str().unwrap()), "{mounts}");
    container.assert_gone();
}

#[test]
fn restarts_on_failure_as_often_as_allowed() {
    let container = Container::sh("echo run; exit 4")
        .config(|config| config.restart = RestartPolicy::OnFailure { max: Some(2) })
        .run();
    container.until(
        || container.bundle().exit().exists() && container.exit_record().restarts == 2,
        "it was not started three times",
    );
    container.until(|| !container.shim_dir().path().exists(), "the shim stays");
    assert_eq!(container.log("stdout"), "run\nrun\nrun\n");
    assert_eq!(container.exit_record().exit_code, 4);
    container.assert_gone();
}

#[test]
fn a_container_that_is_told_to_stop_is_not_restarted() {
    let container =
        Container::sh("echo run; exec sleep 1000").config(|config| config.restart = RestartPolicy::Always).run();
    container.wait_for_log("run");
    container.kill(libc::SIGKILL).unwrap();
    assert_eq!(container.wait(), 137);
    assert_eq!(container.exit_record().restarts, 0);
    container.assert_gone();

    // And between two runs.
    let container = Container::sh("echo run; exit 1").config(|config| config.restart = RestartPolicy::Always).run();
    container.until(
        || container.bundle().exit().exists() && container.exit_record().restarts >= 2,
        "it was not started again",
    );
    container.kill(libc::SIGKILL).unwrap();
    container.until(|| !container.shim_dir().path().exists(), "the shim stays");
    container.assert_gone();
}

#[test]
fn without_a_pid_namespace_nothing_is_left_running() {
    // The orphan ends as a child of the shim, the other is killed with the container.
    let script = "(sh -c 'sleep 0.1; echo orphan; : > /tmp/done' &); sleep 1000 & \
                  while [ ! -e /tmp/done ]; do sleep 0.05; done; echo end; exit 5";
    let container = Container::sh(script)
        .spec(|spec| {
            let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "pid");
        })
        .run();
    assert_eq!(container.wait(), 5);
    assert_eq!(container.log("stdout"), "orphan\nend\n");
    container.assert_gone();
}

#[test]
fn exec_codes_and_errors() {
    let container = Container::new(&["sleep", "1000"]).run();
    for (id, script, code) in [("a", "exit 7", 7), ("b", "kill -TERM $$", 143), ("c", "true", 0)] {
        container.exec(id, script, false).unwrap();
        assert_eq!(container.exec(id, script, false).unwrap_err().kind(), Kind::AlreadyExists);
        container.start_exec(id).unwrap();
        assert_eq!(container.wait_for(id), code);
        let request = task::DeleteRequest { id: container.id.clone(), exec_id: id.into(), ..Default::default() };
        assert_eq!(container.task.delete(&request).unwrap().exit_status, code);
        assert_eq!(container.task.delete(&request).unwrap_err().kind(), Kind::NotFound);
    }
    assert_eq!(container.start_exec("none").unwrap_err().kind(), Kind::NotFound);
    container.exec("never", "exit 6", false).unwrap();
    let request = task::DeleteRequest { id: container.id.clone(), exec_id: "never".into(), ..Default::default() };
    assert_eq!(container.task.delete(&request).unwrap().exit_status, 0);
    container.kill(libc::SIGKILL).unwrap();
    container.wait();
    container.assert_gone();
}

#[test]
fn stdin_is_the_end_of_file_unless_asked_for() {
    let container = Container::sh("cat; echo done").run();
    assert_eq!(container.wait(), 0);
    assert_eq!(container.log("stdout"), "done\n");
    container.assert_gone();
}

#[test]
fn what_leads_to_the_shims_own_file_is_read_only() {
    let container = Container::new(&["sleep", "1000"]).run();
    let exe = std::fs::File::open(format!("/proc/{}/exe", container.shim_pid())).unwrap();
    let flags = nix::sys::statvfs::fstatvfs(&exe).unwrap().flags();
    assert!(flags.contains(nix::sys::statvfs::FsFlags::ST_RDONLY), "{flags:?}");
    container.kill(libc::SIGKILL).unwrap();
    container.wait();
    container.assert_gone();
}

#[test]
fn a_checkpoint_is_made_or_refused_and_the_container_goes_on() {
    let container = Container::new(&["sleep", "1000"]).run();
    let checkpoint = |cgroups_mode: &str| {
        let mut options = protobuf::well_known_types::any::Any::new();
        "containerd.runc.v1.CheckpointOptions".clone_into(&mut options.type_url);
        // The field of this number, a text.
        options.value = [&[7 << 3 | 2, u8::try_from(cgroups_mode.len()).unwrap()], cgroups_mode.as_bytes()].concat();
        let request = task::CheckpointTaskRequest {
            id: container.id.clone(),
            path: container.dir().join("images").to_str().unwrap().to_owned(),
            options: Some(options).into(),
            ..Default::default()
        };
        let client = container.task.client();
        client.call::<_, protobuf::well_known_types::empty::Empty>(Task::SERVICE, "Checkpoint", &request, None)
    };
    assert_eq!(checkpoint("hard").unwrap_err().kind(), Kind::InvalidArgument);
    match checkpoint("ignore") {
        Ok(_) => assert!(container.dir().join("images/inventory.img").exists()),
        Err(error) => assert!(error.to_string().contains("criu"), "{error}"),
    }
    assert_eq!(container.state().status.unwrap(), task::Status::RUNNING);
    container.exec("still", "exit 3", false).unwrap();
    container.start_exec("still").unwrap();
    assert_eq!(container.wait_for("still"), 3);
    container.kill(libc::SIGKILL).unwrap();
    assert_eq!(container.wait(), 137);
    container.assert_gone();
}
