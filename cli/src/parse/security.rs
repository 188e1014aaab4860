//! `--security-opt`, `--cap-add`, `--cap-drop`.

use super::Invalid;

/// What the `--security-opt` flags together ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Security {
    /// The system-call filter.
    pub seccomp: Seccomp,
    /// `no-new-privileges`.
    pub no_new_privileges: bool,
    /// AppArmor profile; `unconfined` is none.
    pub apparmor: Option<String>,
    /// SELinux process label from `label=`; none where disabled or not asked for.
    pub selinux: Option<String>,
    /// `systempaths=unconfined`: no masked and read-only paths.
    pub system_paths_unconfined: bool,
}

/// Where the system-call filter comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Seccomp {
    /// Our default profile.
    #[default]
    Default,
    /// None at all.
    Unconfined,
    /// A profile file in docker's JSON or the runtime specification's.
    File(String),
}

/// Parses all `--security-opt` values.
pub(crate) fn parse(values: &[String]) -> Result<Security, Invalid> {
    let mut security = Security::default();
    for text in values {
        let refuse = |why: &str| Invalid::new("--security-opt", text, why);
        // docker long ago separated with a colon and still accepts it.
        let split = text.split_once('=').or_else(|| text.split_once(':'));
        match split {
            None if text == "no-new-privileges" => security.no_new_privileges = true,
            Some(("no-new-privileges", value)) => match value {
                "true" => security.no_new_privileges = true,
                "false" => security.no_new_privileges = false,
                _ => return Err(refuse("it is neither true nor false")),
            },
            Some(("seccomp", "unconfined")) => security.seccomp = Seccomp::Unconfined,
            Some(("seccomp", "builtin")) => security.seccomp = Seccomp::Default,
            Some(("seccomp", "")) => return Err(refuse("a profile file, builtin or unconfined is expected")),
            Some(("seccomp", file)) => security.seccomp = Seccomp::File(file.to_owned()),
            Some(("apparmor", "unconfined")) => security.apparmor = None,
            Some(("apparmor", profile)) => security.apparmor = Some(profile.to_owned()),
            Some(("label", "disable")) => security.selinux = None,
            Some(("label", label)) => security.selinux = Some(label.to_owned()),
            Some(("systempaths", "unconfined")) => security.system_paths_unconfined = true,
            _ => {
                return Err(refuse(
                    "it is none of seccomp=, no-new-privileges, apparmor=, label=, systempaths=unconfined",
                ));
            }
        }
    }
    Ok(security)
}

/// A capability's name in upper case with `CAP_`; `ALL` stays as it is.
pub(crate) fn capability(text: &str) -> Result<String, Invalid> {
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if bare.is_empty() || !bare.bytes().all(|b| b.is_ascii_uppercase() || b == b'_') {
        return Err(Invalid::new("capability", text, "it is not a capability's name"));
    }
    Ok(if bare == "ALL" { "ALL".to_owned() } else { format!("CAP_{bare}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Result<Security, Invalid> {
        parse(&values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn options() {
        assert_eq!(of(&[]), Ok(Security::default()));
        assert!(of(&["no-new-privileges"]).unwrap().no_new_privileges);
        assert!(of(&["no-new-privileges:true"]).unwrap().no_new_privileges);
        assert_eq!(of(&["seccomp=unconfined"]).unwrap().seccomp, Seccomp::Unconfined);
        assert_eq!(of(&["seccomp=/p.json"]).unwrap().seccomp, Seccomp::File("/p.json".into()));
        assert_eq!(of(&["apparmor=p"]).unwrap().apparmor.as_deref(), Some("p"));
        for bad in ["", "x", "seccomp=", "no-new-privileges=maybe", "foo=bar"] {
            assert!(of(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn capabilities() {
        assert_eq!(capability("net_admin").as_deref(), Ok("CAP_NET_ADMIN"));
        assert_eq!(capability("CAP_SYS_TIME").as_deref(), Ok("CAP_SYS_TIME"));
        assert_eq!(capability("all").as_deref(), Ok("ALL"));
        assert!(capability("").is_err());
        assert!(capability("a-b").is_err());
    }
}
