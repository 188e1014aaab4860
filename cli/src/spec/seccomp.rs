//! The system-call filter: our default profile, none, or the user's file.

use std::collections::BTreeSet;
use std::path::Path;

use dhow_api::defaults;
use serde_json::Value;

use super::typed;
use crate::error::{Error, Result};
use crate::files;
use crate::parse::security::Seccomp;

/// The `linux.seccomp` document, if there is to be one.
pub(super) fn profile(choice: &Seccomp, privileged: bool, capabilities: &BTreeSet<String>) -> Result<Option<Value>> {
    match choice {
        Seccomp::Unconfined => Ok(None),
        Seccomp::Default if privileged => Ok(None),
        Seccomp::Default => {
            let profile = defaults::seccomp(&typed(capabilities));
            serde_json::to_value(profile)
                .map(Some)
                .map_err(|source| Error::Encode { what: "the seccomp profile", source })
        }
        Seccomp::File(path) => {
            let path = Path::new(path);
            let bytes = files::read(path).map_err(Error::file("read", path))?;
            let parse = |source| Error::Document { document: "seccomp profile", path: path.to_owned(), source };
            let mut profile: Value = serde_json::from_slice(&bytes).map_err(parse)?;
            translate(&mut profile, capabilities);
            // Refused here and not in the runtime: the message can name the file.
            serde_json::from_value::<oci_spec::runtime::LinuxSeccomp>(profile.clone()).map_err(parse)?;
            Ok(Some(profile))
        }
    }
}

/// Turns docker's extensions into the specification's: `archMap`, `name`, and rules that hold for some capabilities or
/// architectures only (`includes`, `excludes`).
fn translate(profile: &mut Value, capabilities: &BTreeSet<String>) {
    let Some(map) = profile.as_object_mut() else { return };
    if let Some(Value::Array(list)) = map.remove("archMap") {
        let mine = list.iter().filter(|entry| entry["architecture"].as_str() == Some(native().0));
        let names = mine.flat_map(|entry| {
            let more = entry["subArchitectures"].as_array().into_iter().flatten().cloned();
            std::iter::once(entry["architecture"].clone()).chain(more)
        });
        let names: Vec<Value> = names.collect();
        map.insert("architectures".into(), names.into());
    }
    let Some(rules) = map.get_mut("syscalls").and_then(Value::as_array_mut) else { return };
    rules.retain_mut(|rule| {
        let Some(rule) = rule.as_object_mut() else { return true };
        let (includes, excludes) = (rule.remove("includes"), rule.remove("excludes"));
        rule.remove("comment");
        if let Some(name) = rule.remove("name") {
            rule.insert("names".into(), vec![name].into());
        }
        if rule.get("args").is_some_and(Value::is_null) {
            rule.remove("args");
        }
        includes.is_none_or(|c| holds(&c, capabilities, true))
            && excludes.is_none_or(|c| !holds(&c, capabilities, false))
    });
}

/// Whether a condition holds: `all` of its parts, or any of them. An empty condition includes and never excludes.
fn holds(condition: &Value, capabilities: &BTreeSet<String>, all: bool) -> bool {
    let list = |key: &str| condition[key].as_array().filter(|l| !l.is_empty());
    let caps = list("caps").map(|caps| {
        let has = |cap: &Value| cap.as_str().is_some_and(|cap| capabilities.contains(cap));
        if all { caps.iter().all(has) } else { caps.iter().any(has) }
    });
    let arches = list("arches").map(|arches| arches.iter().any(|a| a.as_str() == Some(native().1)));
    // The kernel is ours: every version that a profile asks for has been reached.
    let kernel = condition["minKernel"].as_str().map(|_| true);
    let mut parts = [caps, arches, kernel].into_iter().flatten();
    if all { parts.all(|part| part) } else { parts.any(|part| part) }
}

/// This machine's architecture in libseccomp's and in Go's words.
fn native() -> (&'static str, &'static str) {
    match std::env::consts::ARCH {
        "x86_64" => ("SCMP_ARCH_X86_64", "amd64"),
        "aarch64" => ("SCMP_ARCH_AARCH64", "arm64"),
        "riscv64" => ("SCMP_ARCH_RISCV64", "riscv64"),
        "s390x" => ("SCMP_ARCH_S390X", "s390x"),
        "powerpc64" => ("SCMP_ARCH_PPC64LE", "ppc64le"),
        "arm" => ("SCMP_ARCH_ARM", "arm"),
        _ => ("SCMP_ARCH_X86", "386"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn dockers_extensions() {
        let mut profile = json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "archMap": [{ "architecture": native().0, "subArchitectures": ["SCMP_ARCH_X86"] }, { "architecture": "SCMP_ARCH_MIPS" }],
            "syscalls": [
                { "names": ["read"], "action": "SCMP_ACT_ALLOW", "args": null, "comment": "", "includes": {}, "excludes": {} },
                { "names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": { "caps": ["CAP_SYS_ADMIN"] } },
                { "names": ["chroot"], "action": "SCMP_ACT_ALLOW", "includes": { "caps": ["CAP_SYS_CHROOT"] } },
                { "name": "clone", "action": "SCMP_ACT_ALLOW", "excludes": { "caps": ["CAP_SYS_ADMIN"], "arches": ["none"] } },
                { "names": ["arch"], "action": "SCMP_ACT_ALLOW", "includes": { "arches": ["none"] } },
            ],
        });
        translate(&mut profile, &BTreeSet::from(["CAP_SYS_CHROOT".to_owned()]));
        assert_eq!(
            profile,
            json!({
                "defaultAction": "SCMP_ACT_ERRNO",
                "architectures": [native().0, "SCMP_ARCH_X86"],
                "syscalls": [
                    { "names": ["read"], "action": "SCMP_ACT_ALLOW" },
                    { "names": ["chroot"], "action": "SCMP_ACT_ALLOW" },
                    { "names": ["clone"], "action": "SCMP_ACT_ALLOW" },
                ],
            })
        );
    }

    #[test]
    fn choices() {
        let none = BTreeSet::new();
        assert!(profile(&Seccomp::Unconfined, false, &none).unwrap().is_none());
        assert!(profile(&Seccomp::Default, true, &none).unwrap().is_none());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.json");
        std::fs::write(&path, r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).unwrap();
        let file = Seccomp::File(path.to_string_lossy().into_owned());
        assert!(profile(&file, true, &none).unwrap().is_some());
        std::fs::write(&path, r#"{"defaultAction":"x"}"#).unwrap();
        assert!(matches!(profile(&file, false, &none), Err(Error::Document { .. })));
    }
}
