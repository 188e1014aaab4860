//! The mount option `idmap=uids=…;gids=…`, as crun and podman's users write it.
//!
//! A list is `#`-separated triples `FILE-SYSTEM-ID-HOST-ID-COUNT` with dashes between; after an `@` the second number is an id in
//! the container instead, of which the user namespace says the host's.

use crate::config::IdMapping;

/// Mappings of users, and of groups.
pub(super) type Maps = (Vec<IdMapping>, Vec<IdMapping>);

/// Reads what stands after `idmap=`. `container`: the container's own mappings.
pub(super) fn parse(value: &str, container: (&[IdMapping], &[IdMapping])) -> Result<Maps, String> {
    let mut maps = Maps::default();
    for part in value.split(';').filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some(("uids", text)) => maps.0 = list(text, container.0)?,
            Some(("gids", text)) => maps.1 = list(text, container.1)?,
            _ => return Err(format!("{part:?} is neither uids=… nor gids=…")),
        }
    }
    Ok(maps)
}

fn list(text: &str, container: &[IdMapping]) -> Result<Vec<IdMapping>, String> {
    text.split('#').filter(|triple| !triple.is_empty()).map(|triple| one(triple, container)).collect()
}

fn one(triple: &str, container: &[IdMapping]) -> Result<IdMapping, String> {
    let (relative, bare) = match triple.strip_prefix('@') {
        Some(bare) => (true, bare),
        None => (false, triple),
    };
    let numbers: Option<Vec<u32>> = bare.split('-').map(|number| number.parse().ok()).collect();
    let Some([container_id, second, size]) = numbers.as_deref() else {
        return Err(format!("{triple:?} is not of the form 0-1000-10"));
    };
    let on_host = |id: u32| {
        let inside =
            |map: &IdMapping| id.checked_sub(map.container_id).filter(|n| *n < map.size).map(|n| (map.host_id, n));
        container.iter().find_map(inside).and_then(|(first, n)| first.checked_add(n))
    };
    let host_id = if relative {
        on_host(*second).ok_or_else(|| format!("{triple:?} names an id that the user namespace does not map"))?
    } else {
        *second
    };
    Ok(IdMapping { container_id: *container_id, host_id, size: *size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triples() {
        let map = |container_id, host_id, size| IdMapping { container_id, host_id, size };
        let container = [map(0, 100_000, 10), map(10, 5000, 5)];
        let parse = |text: &str| parse(text, (&container, &container[1..]));
        let expected = (vec![map(0, 1, 2), map(7, 5001, 1)], vec![map(0, 5000, 1)]);
        assert_eq!(parse("uids=0-1-2#@7-11-1;gids=@0-10-1").unwrap(), expected);
        assert_eq!(parse("").unwrap(), (Vec::new(), Vec::new()));
        for (wrong, why) in [
            ("0-1-2", "neither"),
            ("uids=0-1", "not of the form"),
            ("uids=0-1-2-3", "not of the form"),
            ("uids=0-1-x", "not of the form"),
            ("uids=@0-15-1", "does not map"),
            ("gids=@0-0-1", "does not map"),
        ] {
            assert!(parse(wrong).unwrap_err().contains(why), "{wrong}");
        }
    }
}
