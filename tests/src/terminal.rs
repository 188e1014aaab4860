//! A terminal that a test types into: a pty with a program on its other end.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{Winsize, openpty};

use crate::command::Call;

/// A program on a terminal of its own; killed on drop.
#[derive(Debug)]
pub struct Terminal {
    keyboard: File,
    device: String,
    screen: Arc<(Mutex<Screen>, Condvar)>,
    child: std::process::Child,
}

#[derive(Debug, Default)]
struct Screen {
    text: Vec<u8>,
    /// What [`Terminal::expect`] has already gone past.
    read: usize,
    closed: bool,
}

impl Terminal {
    /// Starts the call on a terminal of `rows` by `columns`, as its controlling terminal.
    ///
    /// # Panics
    /// When that cannot be done.
    #[must_use]
    pub fn open(call: Call, rows: u16, columns: u16) -> Self {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).expect("a pty");
        // openpty(3) knows no close-on-exec, and a program that holds the other end of its own terminal never hangs up.
        for end in [&pty.master, &pty.slave] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("close on exec");
        }
        let device = nix::unistd::ttyname(&pty.slave).expect("its name").to_string_lossy().into_owned();
        let wanted = call.into_command();
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(wanted.get_program()).args(wanted.get_args());
        for (name, value) in wanted.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(dir) = wanted.get_current_dir() {
            command.current_dir(dir);
        }
        let slave = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("a second descriptor"));
        command.env("TERM", "xterm").stdin(slave(&pty.slave)).stdout(slave(&pty.slave)).stderr(slave(&pty.slave));
        let child = command.spawn().expect("setsid starts");
        drop(command);
        drop(pty.slave);
        let screen = Arc::new((Mutex::new(Screen::default()), Condvar::new()));
        let output = File::from(pty.master.try_clone().expect("a second descriptor"));
        let shown = Arc::clone(&screen);
        std::thread::spawn(move || watch(output, &shown));
        Self { keyboard: File::from(pty.master), device, screen, child }
    }

    /// Types.
    ///
    /// # Panics
    /// When nobody holds the terminal any more.
    #[track_caller]
    pub fn send(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("typing");
    }

    /// Waits until `text` appears after what was expected before; returns what stood between.
    ///
    /// # Panics
    /// When it does not within [`crate::LIMIT`].
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        let end = Instant::now() + crate::LIMIT;
        let (lock, changed) = &*self.screen;
        let mut screen = lock.lock().expect("the watcher does not panic");
        loop {
            let news = String::from_utf8_lossy(&screen.text[screen.read..]).into_owned();
            if let Some(at) = news.find(text) {
                screen.read += at + text.len();
                return news[..at].to_owned();
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero() && !screen.closed, "no {text:?} on the terminal, but: {news:?}");
            screen = changed.wait_timeout(screen, left).expect("the watcher does not panic").0;
        }
    }

    /// Changes the size, as a window manager does.
    ///
    /// # Panics
    /// When `stty` cannot.
    pub fn resize(&self, rows: u16, columns: u16) {
        let args = ["-F", &self.device, "rows", &rows.to_string(), "cols", &columns.to_string()].map(str::to_owned);
        crate::tool("stty", args).run().ok();
    }

    /// The terminal's settings, to see whether a program left them as they were.
    ///
    /// # Panics
    /// When `stty` cannot.
    #[must_use]
    pub fn settings(&self) -> String {
        crate::tool("stty", ["-F", &self.device, "-g"]).run().ok().stdout
    }

    /// The pid of the program on the terminal.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Waits for the program's end; returns its exit code.
    ///
    /// # Panics
    /// When it does not end within a minute.
    #[track_caller]
    pub fn end(mut self) -> i32 {
        let status =
            crate::eventually("the program on the terminal ends", || self.child.try_wait().expect("a child of ours"));
        use std::os::unix::process::ExitStatusExt as _;
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    }

    /// Everything that was shown so far.
    ///
    /// # Panics
    /// Never, unless the watcher did.
    #[must_use]
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.screen.0.lock().expect("the watcher does not panic").text).into_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn watch(mut output: File, shown: &(Mutex<Screen>, Condvar)) {
    let mut buffer = [0; 4096];
    loop {
        // A read fails with EIO once nobody holds the other end.
        let length = output.read(&mut buffer).unwrap_or(0);
        let Ok(mut screen) = shown.0.lock() else { return };
        screen.text.extend_from_slice(&buffer[..length]);
        screen.closed = length == 0;
        shown.1.notify_all();
        if length == 0 {
            return;
        }
    }
}
