//! `exec --cgroup`: cgroups below the container's own.

use std::path::{Component, Path, PathBuf};

use dhow_sys::Errno;

use super::dir::Dir;
use super::error::{CgroupError, Result};
use super::{Cgroup, Member, path};

impl Cgroup {
    /// The cgroups that `places` name, below this one's: `PATH`, or on v1 any number of `CONTROLLER[,CONTROLLER…]:PATH`; the
    /// other controllers' are this one's own. They have to exist.
    ///
    /// # Errors
    /// A path that leads out of this cgroup, a controller that it does not have, a cgroup that is not there.
    pub fn below(&self, places: &[String]) -> Result<Self> {
        let mut members: Vec<Member> = self.members.iter().map(Member::again).collect::<Result<_>>()?;
        let mut named: Vec<&str> = Vec::new();
        for place in places {
            let Some((controllers, path)) = place.split_once(':') else {
                if places.len() > 1 {
                    return Err(problem(place, "lacks the controller in front of the path"));
                }
                members = self.members.iter().map(|member| member.below(Path::new(place))).collect::<Result<_>>()?;
                break;
            };
            for controller in controllers.split(',') {
                if named.contains(&controller) {
                    return Err(problem(place, "names a controller for the second time"));
                }
                named.push(controller);
                let at = self.members.iter().position(|member| member.has(controller));
                let at = at.ok_or_else(|| CgroupError::UnknownController { controller: controller.to_owned() })?;
                members[at] = self.members[at].below(Path::new(path))?;
            }
        }
        Ok(Self::new(members))
    }
}

impl Member {
    fn again(&self) -> Result<Self> {
        self.below(Path::new(""))
    }

    fn has(&self, controller: &str) -> bool {
        !controller.is_empty()
            && self.controllers.iter().any(|own| own.strip_prefix("name=").unwrap_or(own) == controller)
    }

    fn below(&self, place: &Path) -> Result<Self> {
        if leads_out(place) {
            return Err(CgroupError::NotBelow { path: place.to_owned() });
        }
        let below = path::clean(place);
        let dir = if below.as_os_str().is_empty() { Dir::open(self.dir.path()) } else { self.dir.child(&below) };
        let error = |source: Errno| CgroupError::Below { path: self.dir.path().join(&below), source };
        Ok(Self { controllers: self.controllers.clone(), dir: dir.map_err(error)? })
    }
}

/// Whether a `..` goes above the beginning.
fn leads_out(place: &Path) -> bool {
    let mut depth = PathBuf::new();
    place.components().any(|component| match component {
        Component::ParentDir => !depth.pop(),
        Component::Normal(name) => {
            depth.push(name);
            false
        }
        _ => false,
    })
}

fn problem(place: &str, problem: &str) -> CgroupError {
    CgroupError::invalid(format!("--cgroup {place}"), problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_out_is_seen() {
        for (path, out) in
            [("..", true), ("a/../..", true), ("/../a", true), ("a/../b", false), ("/", false), ("", false)]
        {
            assert_eq!(leads_out(Path::new(path)), out, "{path}");
        }
    }
}
