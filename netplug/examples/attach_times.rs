//! Attaches and detaches containers in a network namespace of its own, and prints how long each took:
//! `attach_times [COUNT] [PORTS]`. Under strace it shows the requests.

use std::time::{Duration, Instant};

use dhow_netplug::{AttachRequest, ContainerId, Mode, Netplug, Port};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u32>());
    let count = arguments.next().transpose()?.unwrap_or(50);
    let ports = arguments.next().transpose()?.unwrap_or(1);
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    let directory = tempfile::tempdir()?;
    let plug = Netplug::new(&directory.path().join("root"), &directory.path().join("run"))?;
    let mut attached = Vec::new();
    let mut detached = Vec::new();
    for number in 0..count {
        let request = AttachRequest {
            container: ContainerId::parse(&format!("c{number}"))?,
            mode: Mode::parse("bridge")?,
            ports: (0..ports)
                .map(|port| Port::parse("tcp", "", 20_000 + number * ports + port, 80))
                .collect::<Result<_, _>>()?,
            ip: None,
            mac: None,
            files: None,
        };
        let start = Instant::now();
        plug.attach(&request)?;
        attached.push(start.elapsed());
    }
    for number in 0..count {
        let start = Instant::now();
        plug.detach(&ContainerId::parse(&format!("c{number}"))?)?;
        detached.push(start.elapsed());
    }
    let start = Instant::now();
    plug.release()?;
    show("attach, first", &mut attached[..1].to_vec());
    show("attach", &mut attached);
    show("detach", &mut detached);
    show("release", &mut [start.elapsed()]);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a program that prints")]
fn show(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1000.0;
    println!("{what:14} median {:7.3} ms   p10 {:7.3}   p90 {:7.3}   max {:7.3}", at(50), at(10), at(90), at(100));
}
