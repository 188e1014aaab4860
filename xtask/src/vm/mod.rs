//! `cargo xtask vm-test`: what needs a whole machine, in a virtual one: Debian's kernel with systemd on it.
//!
//! First all controllers of cgroup v2, the out-of-memory killer, the systemd driver, AppArmor, rootless containers with a
//! user's systemd, and some of the runtime's own tests once more; then a boot for the systemd driver on v1, and one for SELinux.
//! By hand only: it takes too long for a part of `cargo xtask test`.
//!
//! ```text
//! debootstrap ─▶ target/vm/root (kept) ─▶ a disk in a temporary directory ─▶ qemu ─▶ guest.sh
//!                                          binaries of this workspace ──┘              │ second serial line
//!                                                                         results ◀────┘ @ok, @failed, @skip, @end
//! ```
//! qemu emulates the processor where there is no KVM, which takes about ten times as long.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::packages;
use crate::shell::{Error, Result, cargo, command, file_error, output, target, workspace};

/// Seconds for one boot with all its tests, without KVM and on a busy host.
const LIMIT: &str = "2400";

/// What is added to the kernel's command line for each boot.
const BOOTS: [(&str, &str); 3] = [
    ("v2", "apparmor=1 security=apparmor"),
    ("v1", "apparmor=1 security=apparmor systemd.unified_cgroup_hierarchy=0"),
    ("selinux", "selinux=1 security=selinux enforcing=0 systemd.unified_cgroup_hierarchy=0"),
];

/// All boots, or only the one that `only` names.
pub(crate) fn run(only: Option<&str>) -> Result<()> {
    packages::install(&[packages::TEST, packages::MACHINE])?;
    let binaries = build()?;
    // Not in /tmp, which may be memory.
    let stage = Stage::new(&target().join(format!("vm-{}", std::process::id())))?;
    let mut failed = Vec::new();
    for (name, words) in BOOTS.iter().filter(|(name, _)| only.is_none_or(|only| *name == only)) {
        println!("==> {name}");
        image(&stage.0, &binaries)?;
        let log = target().join(format!("vm/{name}.log"));
        let report = boot(&stage.0, words, &log)?;
        println!(
            "    {} passed, {} skipped, {} failed; all that was said is in {}",
            report.passed,
            report.skipped,
            report.failed.len(),
            log.display()
        );
        failed.extend(report.failed.into_iter().map(|test| format!("{name}: {test}")));
    }
    if failed.is_empty() { Ok(()) } else { Err(Error::Check(failed.join("\n"))) }
}

/// A directory that is gone at the end.
struct Stage(PathBuf);

impl Stage {
    fn new(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(file_error("create", path))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Builds what is run in the machine: the runtime and its two test programs, as `FROM=TO`.
fn build() -> Result<Vec<String>> {
    const MESSAGES: &str = "--message-format=json-render-diagnostics";
    let said = output(&mut cargo(["test", "--locked", "--quiet", "--no-run", MESSAGES, "-p", "dhow-runtime"]))?;
    let programs = said.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let path = message["executable"].as_str()?.to_owned();
        let name = message["target"]["name"].as_str()?;
        let kind = message["target"]["kind"][0].as_str()?;
        Some(match (kind, name, message["profile"]["test"].as_bool()?) {
            // The tests call it by the path that it has here.
            ("bin", "dhow-runtime", false) => vec![format!("{path}=opt/dhow/dhow-runtime"), format!("{path}={path}")],
            ("test", "conformance", _) => vec![format!("{path}=opt/dhow/conformance")],
            ("lib", _, true) => vec![format!("{path}=opt/dhow/unit")],
            _ => Vec::new(),
        })
    });
    Ok(programs.flatten().collect())
}

fn image(stage: &Path, binaries: &[String]) -> Result<()> {
    let here = workspace().join("xtask/src/vm");
    let own = [
        "guest.sh=opt/dhow/guest.sh",
        "policy.cil=opt/dhow/policy.cil",
        "dhow-test.service=etc/systemd/system/dhow-test.service",
    ];
    let own = own.iter().map(|file| format!("{}/{file}", here.display()));
    let mut make = command("timeout", ["900", "bash", "-c", include_str!("image.sh"), "image.sh"]);
    make.arg(target().join("vm")).arg(stage).args(binaries).args(own);
    output(&mut make).map(drop)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    passed: usize,
    skipped: usize,
    failed: Vec<String>,
    ended: bool,
}

impl Report {
    /// Takes one line of what the tests say; whether it is for people, too.
    fn line(&mut self, line: &str) -> bool {
        let Some((word, rest)) = line.strip_prefix('@').and_then(|line| line.split_once(' ').or(Some((line, ""))))
        else {
            return false;
        };
        match word {
            "ok" => self.passed += 1,
            "skip" => self.skipped += 1,
            "failed" => self.failed.push(rest.to_owned()),
            "end" => self.ended = true,
            _ => {}
        }
        matches!(word, "begin" | "ok" | "skip" | "failed")
    }
}

/// Starts the machine and waits until it has switched itself off, or the time is over.
fn boot(stage: &Path, words: &str, log: &Path) -> Result<Report> {
    let console = log.with_extension("console");
    let append =
        format!("console=ttyS0 root=/dev/vda rw panic=-1 quiet systemd.mask=serial-getty@ttyS0.service {words}");
    let mut machine = command("timeout", ["-k", "5", LIMIT, "qemu-system-x86_64", "-nodefaults", "-display", "none"]);
    // The guest has no network, and asks for none.
    machine.args(["-no-reboot", "-m", "2048", "-smp", "2"]).args(accelerator());
    machine.arg("-serial").arg(format!("file:{}", console.display())).args(["-serial", "stdio", "-append", &append]);
    machine.arg("-kernel").arg(stage.join("vmlinuz")).arg("-initrd").arg(stage.join("initrd"));
    machine.arg("-drive").arg(format!("file={},if=virtio,format=raw,cache=unsafe", stage.join("disk").display()));
    let report = listen(&mut machine, log)?;
    if report.ended {
        return Ok(report);
    }
    let mut report = report;
    report.failed.push(format!("it did not come to its end within {LIMIT} seconds; see {}", console.display()));
    Ok(report)
}

fn listen(machine: &mut Command, log: &Path) -> Result<Report> {
    let start = |source| Error::Start { program: "qemu-system-x86_64".into(), source };
    let mut child = machine.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(start)?;
    let mut report = Report::default();
    let mut all = String::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n').map_while(std::result::Result::ok) {
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches('\r');
            if report.line(line) {
                println!("    {}", line.trim_start_matches('@'));
            }
            all.push_str(line);
            all.push('\n');
        }
    }
    child.wait().map_err(start)?;
    fs::write(log, all).map_err(file_error("write", log))?;
    Ok(report)
}

/// KVM where the processor has what it takes: the device alone is also there on machines where it can't work.
fn accelerator() -> [&'static str; 4] {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let capable = flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    if capable && Path::new("/dev/kvm").exists() {
        ["-accel", "kvm", "-cpu", "host"]
    } else {
        ["-accel", "tcg,thread=multi", "-cpu", "max"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_says_is_counted() {
        let mut report = Report::default();
        let said: Vec<bool> =
            ["noise", "@begin 6.1", "@run a", "@ok a", "+ x", "@failed b: c", "@skip d: no e", "@end"]
                .iter()
                .map(|line| report.line(line))
                .collect();
        assert_eq!(said, [false, true, false, true, false, true, true, false]);
        assert_eq!(report, Report { passed: 1, skipped: 1, failed: vec!["b: c".into()], ended: true });
    }
}
