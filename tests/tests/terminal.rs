//! A real terminal: size, resize, ctrl-c, job control, exit codes, detaching and coming back.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use dhow_tests::{BUSYBOX, DEBIAN, Instance, Terminal, isolated};

#[test]
fn a_shell_on_a_terminal() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let mut terminal = Terminal::open(dhow.dhow(["run", "--rm", "-it", &image, "sh"]), 30, 100);
        terminal.expect("# ");
        let before = terminal.settings();
        terminal.send("tty; stty size\n");
        terminal.expect("/dev/pts/0");
        terminal.expect("30 100");
        terminal.resize(55, 133);
        terminal.send("until stty size | grep '^55 133'; do sleep 0.1; done\n");
        terminal.expect("\n55 133");
        terminal.send("echo $TERM\n");
        terminal.expect("xterm");
        terminal.send("sleep 100\n");
        dhow_tests::eventually("sleep runs", || {
            let top = dhow.dhow(["ps", "-q"]).run().ok();
            let inside = dhow.dhow(["exec", top.out(), "ps"]).run();
            inside.stdout.contains("sleep 100").then_some(())
        });
        terminal.send("\x03");
        terminal.expect("^C");
        terminal.send("echo code $?\n");
        terminal.expect("code 130");
        terminal.send("exit 42\n");
        assert_ne!(before, "");
        assert_eq!(terminal.end(), 42);
        assert_eq!(dhow.ok("ps -aq"), "");
    });
}

#[test]
fn the_terminal_is_given_back_as_it_was() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let script = "stty -g; \"$@\"; echo code $?; stty -g; echo done";
        let program = dhow.dhow(["run", "--rm", "-it", &image, "false"]).into_command();
        let mut call = dhow_tests::tool("sh", ["-c", script, "sh"]).arg(program.get_program()).args(program.get_args());
        for (name, value) in program.get_envs() {
            call = call.env(name, value.unwrap_or_default());
        }
        let mut terminal = Terminal::open(call, 24, 80);
        let before = terminal.expect("code 1");
        let after = terminal.expect("done");
        let settings =
            |text: &str| text.lines().find(|line| line.matches(':').count() > 10).map(|line| line.trim().to_owned());
        assert!(settings(&before).is_some(), "{before}");
        assert_eq!(settings(&before), settings(&after));
        assert_eq!(terminal.end(), 0);
    });
}

#[test]
fn job_control_works_in_bash() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, DEBIAN);
        let mut terminal = Terminal::open(dhow.dhow(["run", "--rm", "-it", &image, "bash", "--norc"]), 24, 80);
        terminal.expect("# ");
        // Once bash has written a word, its line editor has given the terminal back, which now echoes itself.
        terminal.send("echo st''art; cat\n");
        terminal.expect("start");
        terminal.send("echoed\n");
        terminal.expect("echoed\r\nechoed");
        terminal.send("\x1a");
        terminal.expect("Stopped");
        terminal.expect("# ");
        terminal.send("jobs\n");
        terminal.expect("Stopped");
        terminal.expect("# ");
        terminal.send("fg\n");
        terminal.expect("cat\r\n");
        terminal.send("again\n");
        // Once the terminal's, once cat's.
        terminal.expect("again\r\nagain\r\n");
        terminal.send("\x04");
        terminal.expect("# ");
        terminal.send("exit 3\n");
        assert_eq!(terminal.end(), 3);
    });
}

#[test]
fn detach_and_attach_again() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let mut terminal = Terminal::open(dhow.dhow(["run", "-it", "--name", "shell", &image, "sh"]), 24, 80);
        terminal.expect("# ");
        terminal.send("mark=kept\n");
        terminal.expect("# ");
        terminal.send("\x10\x11");
        assert_eq!(terminal.end(), 0);
        assert_eq!(dhow.status("shell"), "running");
        let mut terminal = Terminal::open(dhow.dhow(["attach", "shell"]), 40, 90);
        terminal.send("echo mark is $mark\n");
        terminal.expect("mark is kept");
        terminal.send("exit 9\n");
        assert_eq!(terminal.end(), 9);
        assert_eq!(dhow.status("shell"), "exited");
        dhow.ok("rm shell");
    });
}

#[test]
fn exec_on_a_terminal() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        dhow.ok(&format!("run -d --name web {image} sleep 1000"));
        let mut terminal = Terminal::open(dhow.dhow(["exec", "-it", "web", "sh"]), 33, 77);
        terminal.expect("# ");
        terminal.send("stty size; tty\n");
        terminal.expect("33 77");
        terminal.expect("/dev/pts/");
        terminal.resize(44, 88);
        terminal.send("until stty size | grep '^44 88'; do sleep 0.1; done\n");
        terminal.expect("\n44 88");
        terminal.send("exit 5\n");
        assert_eq!(terminal.end(), 5);
        dhow.ok("rm -f web");
    });
}

#[test]
fn a_terminal_is_refused_where_there_is_none() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        dhow.run(&format!("run --rm -it {image} sh")).one_line(125, &["not a TTY"]);
        assert_eq!(dhow.ok("ps -aq"), "");
    });
}

#[test]
fn hanging_up_leaves_the_container_running() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let mut terminal = Terminal::open(dhow.dhow(["run", "-it", "--name", "shell", &image, "sh"]), 24, 80);
        terminal.expect("# ");
        drop(terminal);
        assert_eq!(dhow.status("shell"), "running");
        dhow.ok("rm -f shell");
    });
}
