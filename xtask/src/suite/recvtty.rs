//! `xtask recvtty`: takes the terminals of detached containers and keeps them open. With `--mode null` it takes any number
//! and throws their output away, with `--mode single` it takes one and prints its output.
//!
//! runc's suite starts it under the name of runc's own helper, of which it has the flags that the suite uses.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use crate::shell::{Error, Result, file_error};

/// Serves until it is killed, or the one terminal is closed.
pub(crate) fn serve(words: &[&str]) -> Result<()> {
    let words: Vec<&str> = words.iter().copied().filter(|word| *word != "--no-stdin").collect();
    let ["--pid-file", pid_file, "--mode", mode, socket] = words[..] else {
        return Err(Error::Check("recvtty: [--no-stdin] --pid-file FILE --mode null|single SOCKET".into()));
    };
    std::fs::write(pid_file, std::process::id().to_string()).map_err(file_error("write", Path::new(pid_file)))?;
    let listener = UnixListener::bind(socket).map_err(file_error("listen at", Path::new(socket)))?;
    loop {
        let (stream, _) = listener.accept().map_err(file_error("accept at", Path::new(socket)))?;
        if mode == "single" {
            drain(&stream, &mut std::io::stdout());
            return Ok(());
        }
        std::thread::spawn(move || drain(&stream, &mut std::io::sink()));
    }
}

/// Reads until no process has the terminal open any more; whoever sent nothing gets nothing.
fn drain(stream: &UnixStream, output: &mut impl Write) {
    let Ok((_, fds)) = dhow_sys::fd::receive(stream.as_fd(), &mut [0; 4096]) else { return };
    for fd in fds {
        // The end of a terminal is an error (EIO), and all there is to wait for.
        drop(std::io::copy(&mut File::from(fd), output));
    }
}
