//! The stream of an attachment: a process's stdio between a shim and whoever is attached.
//!
//! `Shim.Attach` answers with a socket and a token; the client connects there, sends the token and a newline, and from
//! then on both sides send frames:
//!
//! ```text
//! client → shim: Stdin data, StdinEnd once
//! shim → client: Stdout data, Stderr data, then one End, after which the shim closes
//! ```
//!
//! A client that closes without StdinEnd has detached; a container's stdin stays open then unless it was made to be
//! closed by the first client (docker's StdinOnce). Sizes of terminals go by `Task.ResizePty`, not here.

mod detach_keys;
mod frame;

pub use detach_keys::{BadKeys, DetachKeys, DetachScanner, Scanned};
pub use frame::{BadFrame, Decoder, End, Frame, LONGEST, Stream, header, read, write};

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::{Error, socket};

/// Makes the connection that an [`crate::shim::AttachResponse`] describes. Frames may be read and written at once.
///
/// # Errors
///
/// [`Error::Connect`], [`Error::Peer`]. An unknown token shows as the end of the stream.
pub fn connect(path: &Path, token: &str) -> Result<UnixStream, Error> {
    let mut stream = socket::connect(path)?;
    let line = format!("{token}\n");
    stream.write_all(line.as_bytes()).map_err(|source| Error::Connect { socket: path.to_owned(), source })?;
    Ok(stream)
}
