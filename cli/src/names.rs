//! Names and ids of containers: what they may look like, and how new ones are drawn.

use crate::parse::Invalid;

const ADJECTIVES: [&str; 64] = [
    "able", "agile", "amber", "ample", "azure", "bold", "brave", "brisk", "bright", "calm", "candid", "clear",
    "clever", "cosy", "crisp", "curious", "daring", "deft", "eager", "early", "easy", "fair", "fleet", "fond", "frank",
    "fresh", "gentle", "glad", "golden", "grand", "happy", "hardy", "honest", "humble", "jolly", "keen", "kind",
    "lively", "loyal", "lucid", "lucky", "mellow", "merry", "mild", "neat", "nimble", "noble", "patient", "placid",
    "polite", "proud", "quick", "quiet", "rapid", "ready", "serene", "sharp", "steady", "sturdy", "sunny", "swift",
    "tidy", "warm", "wise",
];

const NOUNS: [&str; 64] = [
    "anchor",
    "barge",
    "bay",
    "beacon",
    "bosun",
    "bow",
    "breeze",
    "brig",
    "buoy",
    "canvas",
    "caravel",
    "clipper",
    "coast",
    "compass",
    "coral",
    "cove",
    "current",
    "cutter",
    "deck",
    "delta",
    "dock",
    "dolphin",
    "ferry",
    "fjord",
    "foam",
    "frigate",
    "galley",
    "gannet",
    "gull",
    "harbour",
    "haven",
    "heron",
    "hull",
    "island",
    "jetty",
    "kayak",
    "keel",
    "ketch",
    "lagoon",
    "lantern",
    "lugger",
    "mast",
    "mooring",
    "oar",
    "osprey",
    "petrel",
    "pier",
    "pilot",
    "quay",
    "reef",
    "rigging",
    "rudder",
    "sail",
    "schooner",
    "sextant",
    "shoal",
    "sloop",
    "spinnaker",
    "strait",
    "tern",
    "tide",
    "voyage",
    "wharf",
    "yawl",
];

/// A new container id: 64 random hexadecimal digits, of which the first is a letter or a digit over 0 somewhere in the
/// first twelve, so that a short id never reads as a number.
pub(crate) fn new_id() -> Result<String, getrandom::Error> {
    loop {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes)?;
        let id: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        if id[..12].bytes().any(|b| b.is_ascii_alphabetic()) {
            return Ok(id);
        }
    }
}

/// A new name such as `brisk_harbour`; `attempt` above 0 adds digits, as the plain names may all be taken.
pub(crate) fn new_name(attempt: u32) -> Result<String, getrandom::Error> {
    let mut bytes = [0_u8; 4];
    getrandom::fill(&mut bytes)?;
    let adjective = ADJECTIVES[usize::from(bytes[0]) % ADJECTIVES.len()];
    let noun = NOUNS[usize::from(bytes[1]) % NOUNS.len()];
    Ok(if attempt == 0 {
        format!("{adjective}_{noun}")
    } else {
        format!("{adjective}_{noun}_{}", u16::from_le_bytes([bytes[2], bytes[3]]))
    })
}

/// Checks a name that a user chose for a container.
pub(crate) fn check(name: &str) -> Result<(), Invalid> {
    let starts = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if starts && plain && name.len() >= 2 && name.len() <= 200 {
        Ok(())
    } else {
        let why = "two or more letters, digits, '_', '.' or '-' are expected, starting with a letter or digit";
        Err(Invalid::new("container name", name, why))
    }
}

/// The first twelve digits of an id, with a digest's algorithm taken off.
pub(crate) fn short(id: &str) -> &str {
    let hex = id.split_once(':').map_or(id, |(_, hex)| hex);
    hex.get(..12).unwrap_or(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        let id = new_id().unwrap();
        assert_eq!(id.len(), 64);
        assert!(id.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(short(&id), &id[..12]);
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short("abc"), "abc");
    }

    #[test]
    fn names() {
        assert!(check(&new_name(0).unwrap()).is_ok());
        assert_eq!(new_name(1).unwrap().split('_').count(), 3);
        for good in ["web", "a1", "x_y.z-1", "0a"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "-a", ".a", "a b", "a/b", "é1"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
