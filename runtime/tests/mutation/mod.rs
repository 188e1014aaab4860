//! Documents and bytes that are nearly right. Shared by the tests of the library's own parsers and those of its documents.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};

/// As many rounds, always the same ones. `DHOW_FUZZ` in the environment says how many times as many.
pub(crate) fn rounds(cases: u32) -> ProptestConfig {
    let times = std::env::var("DHOW_FUZZ").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    ProptestConfig {
        cases: cases.saturating_mul(times),
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(5),
        ..ProptestConfig::default()
    }
}

/// Anything that a document can have in a place, more often what is nearly right.
pub(crate) fn anything() -> impl Strategy<Value = Value> {
    let text = prop_oneof![prop::sample::select(vec![
        "",
        "/",
        ".",
        "..",
        "a/../b",
        "/proc/self/fd/7",
        "\0",
        "=",
        "-1",
        "rw",
        "SCMP_ACT_ALLOW",
        "CAP_X"
    ]),];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-2_i64..5).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{0,4}|type|path|names", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

/// Every place of a document, as pointers.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| places(value, &format!("{at}/{key}"), found)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(n, value)| places(value, &format!("{at}/{n}"), found));
        }
        _ => {}
    }
}

/// What happens to a place of a document.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// Something else is there.
    Replace(Value),
    /// Nothing is there.
    Remove,
    /// It is there twice.
    Repeat,
}

/// A few changes, each in a place that is chosen when the document is known.
pub(crate) fn changes() -> impl Strategy<Value = Vec<(Index, Change)>> {
    let change = prop_oneof![
        4 => anything().prop_map(Change::Replace),
        1 => Just(Change::Remove),
        1 => Just(Change::Repeat),
    ];
    vec((any::<Index>(), change), 1..4)
}

/// A document with them.
pub(crate) fn changed(mut document: Value, changes: &[(Index, Change)]) -> Value {
    for (place, change) in changes {
        let mut all = Vec::new();
        places(&document, "", &mut all);
        let pointer = &all[place.index(all.len())];
        let Some((parent, key)) = pointer.rsplit_once('/') else { continue };
        match (change, document.pointer_mut(parent).unwrap()) {
            (Change::Replace(value), _) => *document.pointer_mut(pointer).unwrap() = value.clone(),
            (Change::Remove, Value::Object(map)) => drop(map.remove(key)),
            (Change::Remove, Value::Array(list)) => drop(list.remove(key.parse().unwrap())),
            (Change::Repeat, Value::Array(list)) => {
                let copy = list[key.parse::<usize>().unwrap()].clone();
                list.push(copy);
            }
            _ => {}
        }
    }
    document
}

/// What happens to bytes.
#[derive(Debug, Clone)]
pub(crate) enum Damage {
    /// A bit is the other way round.
    Flip(Index, u8),
    /// They end here.
    Cut(Index),
    /// These are put between.
    Insert(Index, Vec<u8>),
    /// A piece is there once more, somewhere else.
    Copy(Index, Index, Index),
    /// A number in it is a very large one.
    Enlarge(Index),
}

/// A few.
pub(crate) fn damages() -> impl Strategy<Value = Vec<Damage>> {
    let place = any::<Index>;
    let one = prop_oneof![
        3 => (place(), any::<u8>()).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        1 => place().prop_map(Damage::Cut),
        1 => (place(), vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        2 => (place(), place(), place()).prop_map(|(from, to, at)| Damage::Copy(from, to, at)),
        2 => place().prop_map(Damage::Enlarge),
    ];
    vec(one, 0..5)
}

/// Bytes with them.
pub(crate) fn damaged(bytes: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for damage in damages {
        let length = bytes.len();
        // The end is a place, too.
        let at = |place: &Index| place.index(length + 1);
        match damage {
            Damage::Flip(place, bit) if length > 0 => bytes[place.index(length)] ^= 1 << (bit % 8),
            Damage::Flip(..) => {}
            Damage::Cut(place) => bytes.truncate(at(place)),
            Damage::Insert(place, more) => drop(bytes.splice(at(place)..at(place), more.iter().copied())),
            Damage::Copy(from, to, place) => {
                let piece = bytes[at(from).min(at(to))..at(from).max(at(to))].to_vec();
                drop(bytes.splice(at(place)..at(place), piece));
            }
            Damage::Enlarge(place) => {
                let digits = bytes.iter().enumerate().filter(|(_, byte)| byte.is_ascii_digit()).map(|(n, _)| n);
                let digits: Vec<usize> = digits.collect();
                if !digits.is_empty() {
                    let at = digits[place.index(digits.len())];
                    drop(bytes.splice(at..=at, *b"18446744073709551615"));
                }
            }
        }
    }
    bytes
}
