//! With the real kernel: see `real`.
