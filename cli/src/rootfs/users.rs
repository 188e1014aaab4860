//! Whom a container's process runs as: `USER[:GROUP]` by the image's own /etc/passwd and /etc/group.
//!
//! A name is looked up; a number is taken as it is, even where a user is *named* by that number, so that an image
//! cannot make `1` mean root.

use std::path::Path;

use super::view::View;
use crate::error::{Error, Result};

/// A resolved user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups, sorted, without the primary one.
    pub groups: Vec<u32>,
    /// Home directory; `/` where passwd has none.
    pub home: String,
}

/// Larger files are refused: they come from the image.
const LARGEST: u64 = 4 << 20;

/// The text of /etc/passwd and /etc/group; empty where the image has none.
#[derive(Debug, Default)]
pub(crate) struct Files {
    passwd: String,
    group: String,
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl Files {
    /// Reads both files.
    pub(crate) fn read(view: &View) -> Result<Self> {
        let read = |path: &str| match view.read(Path::new(path), LARGEST) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            Err(source) => Err(Error::InContainer { action: "read", path: path.to_owned(), source }),
        };
        Ok(Self { passwd: read("/etc/passwd")?, group: read("/etc/group")? })
    }

    /// Resolves `spec` (empty: uid 0) and the names and numbers of `--group-add`.
    pub(crate) fn resolve(&self, spec: &str, added: &[String]) -> Result<User> {
        let (user, group) = spec.split_once(':').map_or((spec, None), |(user, group)| (user, Some(group)));
        let user = if user.is_empty() { "0" } else { user };
        let account = match number(user, spec)? {
            Some(uid) => self.accounts().find(|a| a.uid == uid).unwrap_or(Account { name: "", uid, gid: 0, home: "/" }),
            None => self.accounts().find(|a| a.name == user).ok_or_else(|| Error::User {
                user: user.to_owned(),
                why: "no matching entries in the passwd file of the image".into(),
            })?,
        };
        let mut groups = Vec::new();
        let gid = match group.filter(|g| !g.is_empty()) {
            Some(group) => self.gid(group, spec)?,
            None => {
                let member =
                    |g: &Group<'_>| !account.name.is_empty() && g.members.split(',').any(|m| m == account.name);
                groups.extend(self.groups().filter(member).map(|g| g.gid));
                account.gid
            }
        };
        for name in added {
            groups.push(self.gid(name, name)?);
        }
        groups.retain(|g| *g != gid);
        groups.sort_unstable();
        groups.dedup();
        let home = if account.home.is_empty() { "/" } else { account.home };
        Ok(User { uid: account.uid, gid, groups, home: home.to_owned() })
    }

    fn gid(&self, group: &str, spec: &str) -> Result<u32> {
        if let Some(gid) = number(group, spec)? {
            return Ok(gid);
        }
        self.groups().find(|g| g.name == group).map(|g| g.gid).ok_or_else(|| Error::User {
            user: spec.to_owned(),
            why: format!("no group {group} in the group file of the image"),
        })
    }

    fn accounts(&self) -> impl Iterator<Item = Account<'_>> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (name, _password) = (fields.next()?, fields.next()?);
            let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            let home = fields.nth(1).unwrap_or("/");
            (!name.is_empty() && !name.starts_with('#')).then_some(Account { name, uid, gid, home })
        })
    }

    fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (name, _password) = (fields.next()?, fields.next()?);
            let gid = fields.next()?.parse().ok()?;
            Some(Group { name, gid, members: fields.next().unwrap_or("").trim() })
        })
    }
}

/// The number that `text` is; an error where it is one that no id can be.
fn number(text: &str, spec: &str) -> Result<Option<u32>> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    // The kernel keeps 2^32-1 for "no change".
    match text.parse::<u32>() {
        Ok(id) if id != u32::MAX && digits.len() == text.len() => Ok(Some(id)),
        _ => Err(Error::User { user: spec.to_owned(), why: "ids are numbers from 0 to 4294967294".into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Files {
        Files {
            passwd:
                "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/www:/bin/false\nbad line\n1:x:0:0::/evil:/bin/sh\n\
                     toor:x:0:5::/t:\nnohome:x:7:7::\n"
                    .into(),
            group: "root:x:0:\nweb:x:33:\nadm:x:4:web,x\nsudo:x:27:web\ndaemon:x:1:root\n".into(),
        }
    }

    #[test]
    fn users() {
        let user = |uid, gid, groups: &[u32], home: &str| User { uid, gid, groups: groups.into(), home: home.into() };
        for (spec, added, want) in [
            ("", &[][..], user(0, 0, &[1], "/root")),
            ("root", &[], user(0, 0, &[1], "/root")),
            ("web", &["27", "root"], user(33, 33, &[0, 4, 27], "/var/www")),
            ("web:adm", &[], user(33, 4, &[], "/var/www")),
            ("33", &[], user(33, 33, &[4, 27], "/var/www")),
            ("33:1000", &[], user(33, 1000, &[], "/var/www")),
            // Uid 1, though a user with uid 0 is named "1".
            ("1", &[], user(1, 0, &[], "/")),
            ("12345", &[], user(12345, 0, &[], "/")),
            ("nohome", &[], user(7, 7, &[], "/")),
            (":adm", &[], user(0, 4, &[], "/root")),
        ] {
            let added: Vec<_> = added.iter().map(|a| (*a).to_owned()).collect();
            assert_eq!(files().resolve(spec, &added).unwrap(), want, "{spec}");
        }
        for bad in ["nobody", "web:none", "4294967296", "4294967295", "-1", "+1", "99999999999999999999", "0:-1"] {
            assert!(files().resolve(bad, &[]).is_err(), "{bad}");
        }
        assert_eq!(Files::default().resolve("5", &[]).unwrap(), user(5, 0, &[], "/"));
    }
}
