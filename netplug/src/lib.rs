//! Bridge, veth, addresses, ports, names: library and dhow-netplug.
#![forbid(unsafe_code)]
