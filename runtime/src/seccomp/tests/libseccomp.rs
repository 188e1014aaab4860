//! What libseccomp makes of the same profiles. `data/make.py` says how the programs beside it were made.

use dhow_api::defaults;
use dhow_sys::seccomp::Instruction;

use super::super::{Architecture, compile_for};
use super::interpreter::{Call, interesting_numbers, run};
use super::reading::Reading;

fn instructions(bytes: &[u8]) -> Vec<Instruction> {
    let field = |chunk: &[u8], from: usize| u32::from_le_bytes(chunk[from..from + 4].try_into().unwrap());
    bytes
        .chunks_exact(8)
        .map(|chunk| Instruction {
            code: u16::from_le_bytes([chunk[0], chunk[1]]),
            jt: chunk[2],
            jf: chunk[3],
            k: field(chunk, 4),
        })
        .collect()
}

/// Where the two differ on purpose: libseccomp ends the thread for a foreign architecture, and it does not know calls newer
/// than itself, nor "newer than the profile".
fn same(ours: u32, theirs: u32, known_to_them: bool) -> bool {
    const ENOSYS: u32 = 0x5_0026;
    ours == theirs || (ours == 0x8000_0000 && theirs == 0) || ours == ENOSYS || !known_to_them
}

fn compare(profile: &oci_spec::runtime::LinuxSeccomp, theirs: &[u8]) {
    let (ours, theirs) = (compile_for(profile, Architecture::X86_64).unwrap(), instructions(theirs));
    let reading = Reading::new(profile, Architecture::X86_64);
    for audit in [0xc000_003e, 0x4000_0003, 0xc000_00b7] {
        for number in interesting_numbers() {
            // libseccomp 2.5.4 ends at set_mempolicy_home_node; uretprobe is newer as well.
            let known = number & 0x3fff_ffff <= 450 && number & 0x3fff_ffff != 335 || number & 0x3fff_ffff >= 512;
            for mut arguments in reading.interesting_arguments(audit, number) {
                if audit == 0xc000_003e && number & 0x4000_0000 != 0 {
                    // It compares 32 bits of x32's arguments, although its registers have 64.
                    arguments.iter_mut().for_each(|argument| *argument &= 0xffff_ffff);
                }
                let call = Call { number, audit, arguments };
                let (a, b) = (run(ours.program(), &call), run(&theirs, &call));
                assert!(same(a, b, known), "{call:x?}: {a:x}, libseccomp {b:x}");
            }
        }
    }
}

#[test]
fn dockers_profile_decides_as_with_libseccomp() {
    compare(&defaults::seccomp(&defaults::capabilities()), include_bytes!("data/docker.bpf"));
    compare(&defaults::seccomp(&defaults::all_capabilities()), include_bytes!("data/docker-privileged.bpf"));
}

#[test]
fn conditions_decide_as_with_libseccomp() {
    let profile = serde_json::from_slice(include_bytes!("data/conditions.json")).unwrap();
    compare(&profile, include_bytes!("data/conditions.bpf"));
}
