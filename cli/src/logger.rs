//! Diagnostics on standard error.

use std::io::Write;

use log::{LevelFilter, Log, Metadata, Record};

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = record.level().as_str().to_ascii_lowercase();
            // Nobody is left to hear that standard error is closed.
            drop(writeln!(std::io::stderr(), "dhow: {level}: {}", record.args()));
        }
    }

    fn flush(&self) {}
}

/// Shows messages of this level and above.
pub(crate) fn init(level: LevelFilter) {
    // A second call in one process (tests) changes the level only.
    drop(log::set_logger(&Stderr));
    log::set_max_level(level);
}
