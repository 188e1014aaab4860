//! seccomp(2): installing a compiled filter, and the notification descriptor.
