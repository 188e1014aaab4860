#!/bin/bash
# rustc.sh RUSTC ARGUMENT...: what cargo calls for each crate of the workspace (.cargo/config.toml).
#
# Everything that a container's life depends on is linked statically: it starts faster and needs nothing from the system it
# lies on. And at a fixed address: a program of this size that starts thousands of times spends a tenth of a start on
# relocations. Cargo can set neither for one program of several, and when it is set for all of them, or for each by
# `cargo rustc`, the dependencies are compiled once more each time. `dhow` itself stays dynamic, because only glibc's shared
# libraries can resolve a registry's name the way the machine is configured to (nsswitch.conf).
#
# bash, because sh may drop variables with a hyphen in their name (CARGO_BIN_EXE_dhow-runtime).
case "$*" in
*"--crate-name dhow_runtime "*"--crate-type bin "* | *"--crate-name containerd_shim_dhow_v2 "*"--crate-type bin "* | \
	*"--crate-name dhow_snapshotter "*"--crate-type bin "* | *"--crate-name dhow_netplug "*"--crate-type bin "*)
	exec "$@" -C target-feature=+crt-static -C relocation-model=static
	;;
esac
exec "$@"
