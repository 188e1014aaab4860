//! What needs a process with one thread: clones. Its own `main`, because the usual harness runs tests in threads.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a test with its own main")]

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use dhow_sys::clone::{Namespaces, Request, spawn};
use dhow_sys::mountfd::{Change, Context, Propagation, attr, clone_tree, is_mount_root, move_mount, set_attr};
use dhow_sys::openat2::Root;
use dhow_sys::pidfd::{Exit, reap};
use dhow_sys::{Errno, caps, fd, keyring, net, process, tty};
use nix::fcntl::AT_FDCWD;

fn main() {
    assert!(nix::unistd::geteuid().is_root(), "needs root");
    let tests: [(&str, fn()); 7] = [
        ("a child has its code", child_has_its_code),
        ("a panic ends the child", panic_ends_the_child),
        ("namespaces are new", namespaces_are_new),
        ("descriptors are kept and closed", descriptors),
        ("mounts are built detached", mounts),
        ("a terminal's other end", terminals),
        ("threads are refused", threads_are_refused),
    ];
    for (name, test) in tests {
        test();
        println!("test {name} ... ok");
    }
}

fn in_child(namespaces: Namespaces, child: impl FnOnce() -> u8) -> Exit {
    let born = spawn(&Request { namespaces, ..Request::default() }, |_| child()).unwrap();
    reap(born.pidfd.as_fd(), true).unwrap().unwrap()
}

fn child_has_its_code() {
    assert_eq!(in_child(Namespaces::NONE, || 42), Exit::Code(42));
    assert_eq!(in_child(Namespaces::PID, || u8::from(std::process::id() != 1)), Exit::Code(0));
}

fn panic_ends_the_child() {
    std::panic::set_hook(Box::new(|_| {}));
    #[expect(clippy::panic, reason = "that is the test")]
    let exit = in_child(Namespaces::NONE, || panic!("in the child"));
    drop(std::panic::take_hook());
    assert_eq!(exit, Exit::Code(101));
}

fn namespaces_are_new() {
    let exit = in_child(Namespaces::NETWORK | Namespaces::UTS | Namespaces::MOUNT, || {
        net::loopback_up().unwrap();
        process::set_domain_name("example").unwrap();
        keyring::join_session(c"dhow-sys-test").unwrap().allow_user_search().unwrap();
        std::net::TcpListener::bind("127.0.0.1:1").map_or(1, |_| 0)
    });
    assert_eq!(exit, Exit::Code(0));
    let exit = in_child(Namespaces::NONE, || {
        caps::bound(caps::CapSet::EMPTY.with(1)).unwrap();
        caps::set(caps::Sets::default()).unwrap();
        u8::from(caps::bounding() != caps::CapSet(2) || caps::get().unwrap() != caps::Sets::default())
    });
    assert_eq!(exit, Exit::Code(0));
}

fn descriptors() {
    let files: Vec<OwnedFd> = (0..5).map(|_| fd::sealed("x", b"x").unwrap()).collect();
    let kept = files[2].as_raw_fd();
    let born = spawn(&Request::default(), |token| {
        fd::keep_only(token, &mut [kept]).unwrap();
        let open: Vec<_> = (3..64).filter(|n| fd::is_open(*n)).collect();
        fd::place(token, files[2].as_fd(), 9).unwrap();
        fd::cloexec_from(3).unwrap();
        fd::inherit(token, 9).unwrap();
        u8::from(open != [kept] || !fd::is_open(9))
    })
    .unwrap();
    assert_eq!(reap(born.pidfd.as_fd(), true).unwrap(), Some(Exit::Code(0)));
}

fn tmpfs() -> OwnedFd {
    let context = Context::open(c"tmpfs").unwrap();
    context.set_string(c"size", c"64k").unwrap();
    context.create().unwrap();
    context.mount(attr::NOSUID).unwrap()
}

fn mounts() {
    let wrong = Context::open(c"tmpfs").unwrap();
    assert_eq!(wrong.set_string(c"nonsense", c"1"), Err(Errno::EINVAL));
    assert!(wrong.log().contains("nonsense"), "{}", wrong.log());
    let dir = tempfile::tempdir().unwrap();
    let exit = in_child(Namespaces::MOUNT, || {
        let private = Change { propagation: Some(Propagation::Private), recursive: true, ..Change::default() };
        set_attr(Root::open_path("/".as_ref()).unwrap().dir(), &private).unwrap();
        let root = Root::open_path(dir.path()).unwrap();
        let made = tmpfs();
        move_mount(made.as_fd(), root.dir()).unwrap();
        std::fs::write(dir.path().join("file"), "x").unwrap();
        let path = dhow_sys::openat2::c_path(dir.path()).unwrap();
        let copy = clone_tree(AT_FDCWD, &path, true).unwrap();
        set_attr(copy.as_fd(), &Change { set: attr::RDONLY, ..Change::default() }).unwrap();
        move_mount(copy.as_fd(), root.find("..".as_ref()).unwrap().as_fd()).unwrap();
        let error = std::fs::write(dir.path().join("file"), "y").unwrap_err();
        u8::from(error.raw_os_error() != Some(libc::EROFS) || !is_mount_root(copy.as_fd()).unwrap())
    });
    assert_eq!(exit, Exit::Code(0));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

fn terminals() {
    let path: &CStr = c"/dev/ptmx";
    let flags = nix::fcntl::OFlag::O_RDWR | nix::fcntl::OFlag::O_NOCTTY | nix::fcntl::OFlag::O_CLOEXEC;
    let primary = nix::fcntl::open(path, flags, nix::sys::stat::Mode::empty()).unwrap();
    assert_eq!(tty::peer(primary.as_fd()).unwrap_err(), Errno::EIO);
    tty::unlock(primary.as_fd()).unwrap();
    let secondary = tty::peer(primary.as_fd()).unwrap();
    let size = tty::Size { rows: 12, columns: 34 };
    tty::set_size(primary.as_fd(), size).unwrap();
    assert_eq!(tty::size(secondary.as_fd()).unwrap(), size);
    let exit = in_child(Namespaces::NONE, || {
        nix::unistd::setsid().unwrap();
        tty::set_controlling(secondary.as_fd()).map_or(1, |()| 0)
    });
    assert_eq!(exit, Exit::Code(0));
}

fn threads_are_refused() {
    let (hold, release) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || release.recv());
    assert_eq!(spawn(&Request::default(), |_| 0).unwrap_err(), Errno::EBUSY);
    drop(hold);
    assert!(thread.join().unwrap().is_err());
}
