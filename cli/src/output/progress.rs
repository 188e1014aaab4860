//! How a pull or push shows: on a terminal one line per layer, redrawn in place; elsewhere one line per change.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dhow_image::{Digest, Event, LayerStatus, Progress};

use super::human;

/// Where it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// `pull`, `push`.
    Stdout,
    /// The pull of a `run`, whose output is the container's.
    Stderr,
    /// `--quiet`.
    Nowhere,
}

impl Target {
    /// A writer to it.
    pub(crate) fn writer(self) -> Box<dyn Write> {
        match self {
            Self::Stdout => Box::new(io::stdout()),
            Self::Stderr => Box::new(io::stderr()),
            Self::Nowhere => Box::new(io::sink()),
        }
    }

    fn is_terminal(self) -> bool {
        match self {
            Self::Stdout => io::stdout().is_terminal(),
            Self::Stderr => io::stderr().is_terminal(),
            Self::Nowhere => false,
        }
    }
}

/// A [`Progress`] that shows.
#[derive(Debug)]
pub(crate) struct Display {
    target: Target,
    live: bool,
    state: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    layers: Vec<(Digest, String)>,
    drawn: usize,
    at: Option<Instant>,
    stale: bool,
}

/// Redrawing more often than this shows nothing more.
const PAUSE: Duration = Duration::from_millis(80);
const BAR: usize = 40;

impl Display {
    /// A display at `target`.
    pub(crate) fn new(target: Target) -> Self {
        Self { target, live: target.is_terminal(), state: Mutex::default() }
    }

    /// Draws the last state. Nothing is drawn afterwards.
    pub(crate) fn finish(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.live && state.stale {
            self.draw(&mut state);
        }
    }

    fn set(&self, digest: &Digest, text: &str, last: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.layers.iter_mut().find(|(known, _)| known == digest) {
            Some((_, shown)) if shown == text => return,
            Some((_, shown)) => text.clone_into(shown),
            None => state.layers.push((digest.clone(), text.to_owned())),
        }
        if !self.live {
            self.line(&format!("{}: {text}", digest.short()));
            return;
        }
        state.stale = true;
        if last || state.at.is_none_or(|at| at.elapsed() > PAUSE) {
            self.draw(&mut state);
        }
    }

    fn draw(&self, state: &mut Lines) {
        let mut text = String::new();
        if state.drawn > 0 {
            text.push_str(&format!("\x1b[{}A", state.drawn));
        }
        for (digest, shown) in &state.layers {
            text.push_str(&format!("\x1b[2K{}: {shown}\r\n", digest.short()));
        }
        state.drawn = state.layers.len();
        state.at = Some(Instant::now());
        state.stale = false;
        // A display that cannot be written must not stop the work.
        let mut out = self.target.writer();
        drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
    }

    fn line(&self, text: &str) {
        drop(self.target.writer().write_all(format!("{text}\n").as_bytes()));
    }
}

impl Progress for Display {
    fn event(&self, event: &Event<'_>) {
        if self.target == Target::Nowhere {
            return;
        }
        match event {
            Event::Resolved { reference, layers, .. } => {
                let tag = reference.tag().unwrap_or("latest");
                self.line(&format!("{tag}: {}", reference.familiar_repository()));
                if self.live {
                    let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                    for layer in *layers {
                        if !state.layers.iter().any(|(known, _)| *known == layer.digest) {
                            state.layers.push((layer.digest.clone(), "Waiting".to_owned()));
                        }
                    }
                    self.draw(&mut state);
                }
            }
            Event::Layer { digest, status } => {
                if let Some((text, last)) = words(status, self.live) {
                    self.set(digest, &text, last);
                }
            }
            Event::Retrying { delay, reason } => {
                self.line(&format!("retrying in {} s: {reason}", delay.as_secs().max(1)));
            }
            _ => {}
        }
    }
}

/// A layer's state in words, and whether it is worth drawing at once. Without a terminal counting bytes is left out.
fn words(status: &LayerStatus<'_>, live: bool) -> Option<(String, bool)> {
    let counted = |verb: &str, done: u64, total: u64| {
        let text = if live { bar(verb, done, total) } else { verb.to_owned() };
        (text, false)
    };
    Some(match status {
        LayerStatus::Waiting if !live => return None,
        LayerStatus::Waiting => ("Waiting".into(), false),
        LayerStatus::Exists => ("Already exists".into(), true),
        LayerStatus::Downloading { done, total } => counted("Downloading", *done, *total),
        LayerStatus::Downloaded => ("Download complete".into(), true),
        LayerStatus::Extracting { done, total } => counted("Extracting", *done, *total),
        LayerStatus::Complete => ("Pull complete".into(), true),
        LayerStatus::Uploading { done, total } => counted("Pushing", *done, *total),
        LayerStatus::Mounted { from } => (format!("Mounted from {from}"), true),
        LayerStatus::Pushed => ("Pushed".into(), true),
        LayerStatus::Retrying { delay, reason } => {
            (format!("Retrying in {} s: {reason}", delay.as_secs().max(1)), true)
        }
        _ => return None,
    })
}

fn bar(verb: &str, done: u64, total: u64) -> String {
    let share = if total == 0 { 0 } else { (done.min(total) as u128 * BAR as u128 / u128::from(total)) as usize };
    let filled = "=".repeat(share);
    let head = if share < BAR { ">" } else { "" };
    let rest = " ".repeat(BAR - share - head.len());
    format!("{verb} [{filled}{head}{rest}] {}/{}", human::size(done), human::size(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        assert_eq!(bar("Downloading", 0, 100), format!("Downloading [>{}] 0B/100B", " ".repeat(39)));
        assert_eq!(bar("Downloading", 100, 100), format!("Downloading [{}] 100B/100B", "=".repeat(40)));
        assert_eq!(bar("X", 5, 0), format!("X [>{}] 5B/0B", " ".repeat(39)));
        assert!(words(&LayerStatus::Waiting, false).is_none());
        assert_eq!(words(&LayerStatus::Downloading { done: 1, total: 2 }, false).unwrap().0, "Downloading");
    }
}
